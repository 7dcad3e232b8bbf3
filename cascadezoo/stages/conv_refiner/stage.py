"""``conv-refiner.v1``: a refiner of plain convolutions."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cascadezoo.nn.resnet import zero
from cascadezoo.stages.base import StageGeometry
from cascadezoo.stages.conv_refiner.config import ConvRefinerConfig
from cascadezoo.stages.residual_stage import ResidualRefiner

__all__ = ["ConvRefiner"]


class PlainConvolutions(nn.Module):
    """Convolutions with SiLU between them, without norms and skip connections.

    It works in channels_last. The last convolution starts at zero.

    Args:
        image: channels of the image.
        hidden: width between the convolutions.
        layers: number of convolutions, at least two.
        kernel: height and width of the kernels, odd.
    """

    def __init__(self, image: int, *, hidden: int = 64, layers: int = 4, kernel: int = 3) -> None:
        super().__init__()
        widths = [image, *[hidden] * (layers - 1), image]
        convolutions = [
            nn.Conv2d(before, after, kernel, padding=kernel // 2)
            for before, after in itertools.pairwise(widths)
        ]
        for layer in convolutions:
            # Without norms, the default initialisation would let the signal fade (He et al. 2015).
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.layers = nn.ModuleList([*convolutions[:-1], zero(convolutions[-1])])

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the correction, of the same shape."""
        first, *further = self.layers
        # The first layer may return the other layout: a single channel is in both.
        h: Tensor = first(x.contiguous(memory_format=torch.channels_last))
        h = h.contiguous(memory_format=torch.channels_last)
        for layer in further:
            h = layer(F.silu(h))
        return h


class ConvRefiner(ResidualRefiner):
    """Plain convolutions (Kim et al. 2016), added to the upstream image."""

    Config = ConvRefinerConfig
    config: ConvRefinerConfig

    def __init__(self, config: ConvRefinerConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        self.network = PlainConvolutions(
            geometry.output.channels,
            hidden=config.hidden,
            layers=config.layers,
            kernel=config.kernel,
        )
