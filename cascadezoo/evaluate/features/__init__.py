"""The feature extractors, one file each."""
