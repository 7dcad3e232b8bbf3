"""Blocks that stages share. This package imports none of its modules, so ``sizes`` stays light."""
