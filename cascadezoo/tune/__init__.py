"""Search over the sampling settings of a trained model.

A model enters; a table of figures by setting leaves. The best setting becomes the new default on
request.
"""
