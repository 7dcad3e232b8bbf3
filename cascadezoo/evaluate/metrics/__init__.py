"""The metrics, one file each.

Features of real and generated images, or a cascade, enter; a
:class:`~cascadezoo.evaluate.metrics.base.Measured` value with its spread leaves.
"""
