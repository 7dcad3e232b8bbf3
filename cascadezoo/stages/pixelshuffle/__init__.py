"""pixelshuffle.v1: sub-pixel convolution over an interpolation."""
