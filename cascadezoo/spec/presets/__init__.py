"""The specs and sweeps that ship with the package.

Each JSON file is a spec by its name, each in ``sweeps/`` a sweep; ``cascadezoo specs list`` shows
them. See README.md to add one.
"""
