"""autoencoder-kl.v1: a pretrained AutoencoderKL of diffusers as a frozen decoder."""
