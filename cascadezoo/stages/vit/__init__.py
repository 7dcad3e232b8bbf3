"""vit.v1: transformer blocks on patches, residual output."""
