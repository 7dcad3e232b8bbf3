"""diffusion.v1: the shallow wide diffusion model of the cascade study."""
