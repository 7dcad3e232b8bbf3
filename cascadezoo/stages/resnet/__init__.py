"""resnet.v1: a residual network from a noise image to an image, in one pass."""
