"""Cascades: stages put together, sampled from, saved and loaded."""
