"""Model folders, references, cards and zoos: files only, no torch."""
