"""resnet-refiner.v1: residual blocks, residual output."""
