"""Configs of the built-in trackers. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cascadezoo.spec.configs import CallbackConfig

__all__ = ["TensorBoardConfig", "TrackerConfig", "TrackioConfig", "WandbConfig"]

Project = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]


class TrackerConfig(CallbackConfig):
    """Settings that all trackers share."""

    samples: Annotated[int, Field(ge=0, le=256)] = 16
    """Number of images in the sample grids at the end of each phase; 0 samples none."""


class TensorBoardConfig(TrackerConfig):
    """TensorBoard writes event files into `trackers/tensorboard` of the run folder."""

    packages: ClassVar[Mapping[str, str]] = {"tensorboard": "cascadezoo[tensorboard]"}


class WandbConfig(TrackerConfig):
    """Weights & Biases. Log in by `wandb login` or WANDB_API_KEY: specs contain no keys."""

    packages: ClassVar[Mapping[str, str]] = {"wandb": "cascadezoo[wandb]"}

    project: Project = "cascadezoo"
    """The project that the run belongs to."""
    entity: Project | None = None
    """The user or team; None is the one that is logged in."""
    mode: Literal["online", "offline"] | None = None
    """`offline` writes files into `trackers/wandb` of the run folder, which `wandb sync` sends;
    None uses WANDB_MODE, or is online."""


class TrackioConfig(TrackerConfig):
    """Trackio stores its database on this machine, in TRACKIO_DIR or its default folder."""

    packages: ClassVar[Mapping[str, str]] = {"trackio": "cascadezoo[trackio]"}

    project: Project = "cascadezoo"
    """The project that the run belongs to."""
