"""The model folder: its files, its digests and its figures. Free of torch."""
