"""Sweeps: one base spec, axes of alternatives, one build for each cell.

A sweep file enters; a folder of runs and the tables, plots and page of their results leave.
"""
