"""autoencoder.v1: a variational autoencoder whose latents other stages learn to make."""
