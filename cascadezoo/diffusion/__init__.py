"""Diffusion and flow as pure functions that cite their papers.

The package imports none of its modules, so that ``schedules`` stays free of torch.
"""
