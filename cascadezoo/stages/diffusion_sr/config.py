"""The config of ``diffusion-sr.v1``. Free of torch."""

from __future__ import annotations

from cascadezoo.stages.process_config import DiffusionProcessConfig
from cascadezoo.stages.shared_config import SuperResolutionConfig, UNetConfig

__all__ = ["DiffusionSRConfig"]


class DiffusionSRConfig(DiffusionProcessConfig, UNetConfig, SuperResolutionConfig):
    """Super-resolution by diffusion on a U-Net that sees the enlarged upstream image.

    Cascaded Diffusion Models (Ho et al. 2021), with its conditioning augmentation.
    """
