"""Diffusion and flow as pure functions that cite their papers.

Tensors and schedules enter; noisy images, targets, losses and sampler steps leave. Nothing here
depends on stages or specs, and this file imports nothing, so schedules stay free of torch.
"""
