"""Pictures and pages of runs and models.

Models, run folders and figures enter; PNG files and pages leave, each page one HTML file that
fetches nothing.
"""
