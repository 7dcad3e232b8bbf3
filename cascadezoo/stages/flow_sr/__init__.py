"""flow-sr.v1: super-resolution by rectified flow, with conditioning augmentation."""
