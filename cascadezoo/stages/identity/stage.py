"""``identity.v1``: a refiner that changes nothing."""

from __future__ import annotations

from torch import Tensor

from cascadezoo.stages.identity.config import IdentityConfig
from cascadezoo.stages.residual_stage import MappingStage

__all__ = ["Identity"]


class Identity(MappingStage):
    """The upstream image, limited to [-1, 1] in sampling."""

    Config = IdentityConfig
    config: IdentityConfig

    def predict(self, upstream: Tensor) -> Tensor:
        """The upstream image."""
        return upstream.float()
