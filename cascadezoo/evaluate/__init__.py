"""Figures of a model: how good its images are, and how that was measured. See README.md."""
