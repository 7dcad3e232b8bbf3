"""Cascades: stages put together, sampled from, saved and loaded.

A resolved spec or a model reference enters; a :class:`~cascadezoo.cascade.cascade.Cascade` leaves,
and images leave that. Weights are compared with the spec before memory is allocated.
"""
