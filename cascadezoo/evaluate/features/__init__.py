"""The feature extractors, one file each.

8-bit images enter; float32 feature vectors leave, one row per image.
"""
