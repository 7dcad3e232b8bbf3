"""The config of ``flow.v1``. Free of torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cascadezoo.stages.shared_config import (
    ConditionalConfig,
    ConditionalGeneratorConfig,
    Guidance,
    UNetConfig,
)

__all__ = ["FlowConfig", "FlowFields"]


class FlowFields(ConditionalConfig):
    """Fields of a stage of rectified flow (Liu et al. 2023)."""

    stops: ClassVar[bool] = True

    time_sampling: Literal["logit-normal", "uniform"] = "logit-normal"
    """Distribution of training times: mostly in the middle (Esser et al. 2024), or uniform."""

    steps: Annotated[int, Field(ge=1, le=10_000)] = 25
    """Number of sampling steps."""

    sampler: Literal["euler", "midpoint", "heun"] = "euler"
    """The solver that integrates the velocity; midpoint and heun evaluate the network twice per
    step. Sampling can override it."""

    guidance: Guidance = 2.0
    """Scale of classifier-free guidance in sampling: 1 is none, 0 ignores the label. Larger values
    follow the label more closely and reduce variety. No effect on data without labels."""


class FlowConfig(FlowFields, UNetConfig, ConditionalGeneratorConfig):
    """Rectified flow (Liu et al. 2023) on a small U-Net, conditioned on labels if available."""

    reflows: ClassVar[bool] = True
