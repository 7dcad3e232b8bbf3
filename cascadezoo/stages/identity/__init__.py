"""identity.v1: the upstream image as it is."""
