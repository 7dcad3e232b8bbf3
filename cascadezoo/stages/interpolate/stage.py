"""``interpolate.v1``: an upsampler without parameters."""

from __future__ import annotations

from torch import Tensor

from cascadezoo.nn.upsample import enlarge
from cascadezoo.stages.base import enlarged_size
from cascadezoo.stages.interpolate.config import InterpolateConfig
from cascadezoo.stages.residual_stage import MappingStage

__all__ = ["Interpolation"]


class Interpolation(MappingStage):
    """The interpolated upstream image."""

    Config = InterpolateConfig
    config: InterpolateConfig

    def predict(self, upstream: Tensor) -> Tensor:
        """The upstream image at ``out_size``."""
        return enlarge(upstream.float(), enlarged_size(self, upstream), self.config.interpolation)
