"""Cascades: build, sample, save and load stages as one model.

A resolved spec or a model reference enters; a :class:`~cascadezoo.cascade.cascade.Cascade` leaves,
which samples images. Weights are compared with the spec before memory is allocated.
"""
