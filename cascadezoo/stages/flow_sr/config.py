"""The configs of ``flow-sr.v1`` and ``.v2``. Free of torch."""

from __future__ import annotations

from typing import ClassVar

from cascadezoo.stages.flow.config import FlowFields
from cascadezoo.stages.shared_config import (
    Guidance,
    ResidualScale,
    SuperResolutionConfig,
    UNetConfig,
)

__all__ = ["FlowResidualFields", "FlowResidualSRConfig", "FlowSRConfig"]


class FlowSRConfig(FlowFields, UNetConfig, SuperResolutionConfig):
    """Super-resolution by rectified flow (Liu et al. 2023) on a U-Net.

    The network sees the enlarged upstream image, with the conditioning augmentation of CDM (Ho et
    al. 2021).
    """

    guidance: Guidance = 1.0
    """Scale of classifier-free guidance in sampling: 1 is none, 0 ignores the label. Larger values
    follow the label more closely and reduce variety. No effect on data without labels."""


class FlowResidualFields(FlowFields, SuperResolutionConfig):
    """Fields of a rectified flow of the residual to the enlarged upstream image."""

    stops: ClassVar[bool] = False

    guidance: Guidance = 1.0
    """Scale of classifier-free guidance in sampling: 1 is none, 0 ignores the label. Larger values
    follow the label more closely and reduce variety. No effect on data without labels."""

    residual_scale: ResidualScale = 0.1
    """The divisor of the residual: about its standard deviation, which is 0.1 for photographs
    enlarged by 2 (values in [-1, 1])."""


class FlowResidualSRConfig(FlowResidualFields, FlowSRConfig):
    """Super-resolution by rectified flow (Liu et al. 2023) of the residual to the enlarged image.

    The flow leads from noise to the difference between the image and the enlarged upstream image,
    divided by `residual_scale` so that its standard deviation is about 1. A flow of the image
    itself spends most of its times where noise hides the details, which are ten times smaller.
    """
