"""Pictures and pages of runs and models.

Models, run folders and figures enter; PNG files and pages leave. A page is one HTML file that makes
no requests.
"""
