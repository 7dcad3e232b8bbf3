"""flow.v1: rectified flow on a class-conditional U-Net."""
