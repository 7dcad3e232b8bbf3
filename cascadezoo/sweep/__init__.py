"""Grids of specs; comes with the ablation study."""
