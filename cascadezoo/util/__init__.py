"""Stateless helpers for all packages. They do not depend on cascades.

Input: untrusted text, bytes, numbers, keys. Output: safe text, complete files, formatted numbers,
random numbers.
"""
