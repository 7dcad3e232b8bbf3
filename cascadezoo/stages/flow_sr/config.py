"""The config of ``flow-sr.v1``. Free of torch."""

from __future__ import annotations

from cascadezoo.stages.flow.config import FlowFields
from cascadezoo.stages.shared_config import Guidance, SuperResolutionConfig, UNetConfig

__all__ = ["FlowSRConfig"]


class FlowSRConfig(FlowFields, UNetConfig, SuperResolutionConfig):
    """Super-resolution by rectified flow (Liu et al. 2023) on a U-Net.

    The network sees the enlarged upstream image, with the conditioning augmentation of CDM (Ho et
    al. 2021).
    """

    guidance: Guidance = 1.0
    """Scale of classifier-free guidance in sampling: 1 is none, 0 ignores the label. Larger values
    follow the label more closely and reduce variety. No effect on data without labels."""
