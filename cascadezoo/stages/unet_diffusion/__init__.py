"""unet-diffusion.v1: denoising diffusion on a U-Net."""
