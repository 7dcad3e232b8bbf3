"""resnet-upsampler.v1: residual blocks and resize convolutions over an interpolation."""
