"""Searching the sampling settings of a trained model, and storing the best as its defaults."""
