"""interpolate.v1: an interpolation and nothing else."""
