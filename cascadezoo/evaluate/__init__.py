"""Evaluation: how good the images of a model are.

A cascade or a model folder enters; figures leave, each with how it was got. The metrics and the
feature extractors have folders of their own.
"""
