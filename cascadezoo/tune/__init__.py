"""Search over the sampling settings of a trained model.

A model enters; a table of figures by setting leaves, and the best setting as the new default where
that is requested.
"""
