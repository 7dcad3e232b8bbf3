"""``flow-sr.v1`` and ``.v2``: super-resolution by rectified flow, of the image or its residual."""
