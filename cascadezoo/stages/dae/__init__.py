"""dae.v1: a denoising autoencoder, sampled by iterated denoising."""
