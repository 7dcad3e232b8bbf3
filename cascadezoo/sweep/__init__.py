"""Sweeps: one base spec, axes of alternatives, a table of what came of each cell."""
