"""Datasets, and the loader that serves their images to the training.

A dataset config enters; uint8 images with labels leave, at the size and with the channels that a
cascade needs. The loader gives batches by epoch and number. This file imports nothing.
"""
