"""Pictures of a run: sample grids, stage strips, training curves. See README.md."""
