"""The feature extractors, one file each.

Images as bytes enter; feature vectors leave, in float32, one row for each image.
"""
