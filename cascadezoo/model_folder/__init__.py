"""The model folder: its files, digests and figures. Free of torch.

A path enters; a validated config, checked files and figures leave. Files that are replaced are
sealed by their sha256 in config.json.
"""
