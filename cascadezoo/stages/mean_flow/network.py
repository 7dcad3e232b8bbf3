"""The network of ``mean-flow.v1``: a U-Net with the embeddings of a time and a span."""

from __future__ import annotations

from torch import Tensor, nn

from cascadezoo.nn.embeddings import LEVEL_SCALE
from cascadezoo.stages.base import StageGeometry
from cascadezoo.stages.shared_config import UNetConfig
from cascadezoo.stages.unet_factory import make_unet

__all__ = ["AverageUNet"]


class AverageUNet(nn.Module):
    """The U-Net of ``flow.v1`` with a second embedding, that of t - r.

    The paper compares pairs of embedded times, of which (t, t - r) is the best.

    Args:
        config: the fields of the U-Net.
        geometry: the place of the stage.
        num_classes: number of labels; None for a network without labels.
        scale: factor of times and spans before their embedding.
    """

    def __init__(
        self, config: UNetConfig, geometry: StageGeometry, num_classes: int | None, scale: float
    ) -> None:
        super().__init__()
        self.scale = scale
        self.unet = make_unet(config, geometry, num_classes, levels=1)

    def forward(self, x: Tensor, times: Tensor, labels: Tensor | None, spans: Tensor) -> Tensor:
        """The average velocity, [N, C, H, W].

        Args:
            x: x_t, [N, C, H, W].
            times: t, [N], in [0, 1].
            labels: int64 [N]; None for images without labels.
            spans: t - r, [N], in [0, 1].
        """
        scaled = spans * (self.scale / LEVEL_SCALE)
        output: Tensor = self.unet(x, times * self.scale, labels, None, scaled)
        return output
