"""Datasets, and the loader that provides their images to the training.

A dataset config enters; uint8 images with labels leave, with the size and channels of the cascade.
The loader returns batches by epoch and number. This file imports nothing.
"""
