"""Datasets, and the loader that serves their images to a training.

Nothing is imported here: the config modules must stay free of torch and numpy.
"""
