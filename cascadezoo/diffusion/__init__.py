"""Diffusion and flow as pure functions that cite their papers.

``schedules`` and ``guidance``'s arithmetic aside, the modules work on tensors; this package
imports none of them, so that ``cascadezoo.diffusion.schedules`` stays free of torch.
"""
