"""Helpers without state that any package may use.

Text of strangers enters and safe text leaves; bytes enter and files leave whole; keys enter and
random numbers leave. Nothing here knows cascades.
"""
