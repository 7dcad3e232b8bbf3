"""A package, so that ``python -m tests.campaigns`` finds this folder and no other of its name."""
