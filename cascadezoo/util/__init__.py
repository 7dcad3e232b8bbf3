"""Small helpers without state: text made safe, files, numbers, keyed randomness."""
