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
    """How training draws its times: mostly in the middle (Esser et al. 2024), or evenly."""

    steps: Annotated[int, Field(ge=1, le=10_000)] = 25
    """Steps of sampling."""

    sampler: Literal["euler", "midpoint", "heun"] = "euler"
    """The solver that sampling integrates the velocity with; midpoint and heun evaluate the network
    twice a step. Any of them can be asked for in sampling too."""

    guidance: Guidance = 2.0
    """Scale of classifier-free guidance in sampling: 1 is none, 0 ignores the label, more follows
    it more closely at the cost of variety. Has no effect on data without labels."""


class FlowConfig(FlowFields, UNetConfig, ConditionalGeneratorConfig):
    """Rectified flow (Liu et al. 2023) on a small U-Net, told the labels where there are any."""

    reflows: ClassVar[bool] = True
