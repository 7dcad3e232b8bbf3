"""Evaluation: how good the images of a model are.

A cascade or a model folder enters. Figures leave, each with a record of its measurement. The
metrics and the feature extractors have folders of their own.
"""
