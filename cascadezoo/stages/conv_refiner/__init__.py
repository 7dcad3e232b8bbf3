"""conv-refiner.v1: plain convolutions, residual output."""
