"""diffusion-sr.v1: super-resolution by diffusion, with conditioning augmentation."""
