"""The entries of the built-in trackers. Does not import torch."""

from __future__ import annotations

from cascadezoo.plugins.registry import CallbackEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    CallbackEntry(
        name="tensorboard",
        summary="TensorBoard: event files in the run folder",
        config="cascadezoo.train.tracker_configs:TensorBoardConfig",
        impl="cascadezoo.train.trackers:TensorBoardTracker",
    ),
    CallbackEntry(
        name="wandb",
        summary="Weights & Biases, online or as files in the run folder",
        config="cascadezoo.train.tracker_configs:WandbConfig",
        impl="cascadezoo.train.trackers:WandbTracker",
    ),
    CallbackEntry(
        name="trackio",
        summary="trackio: a local database with a dashboard",
        config="cascadezoo.train.tracker_configs:TrackioConfig",
        impl="cascadezoo.train.trackers:TrackioTracker",
    ),
)
