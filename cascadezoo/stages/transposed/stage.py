"""``transposed.v1``: an upsampler of transposed convolutions, the baseline with checkerboards."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cascadezoo.nn.resnet import Norm, ResidualBlock
from cascadezoo.nn.sizes import factor_steps
from cascadezoo.nn.upsample import TransposedUp, enlarge
from cascadezoo.stages.base import StageGeometry, enlarged_size
from cascadezoo.stages.residual_stage import MappingStage
from cascadezoo.stages.transposed.config import TransposedConfig

__all__ = ["TransposedUpsampler"]


class TransposedNetwork(nn.Module):
    """Residual blocks at low resolution, then one transposed convolution per prime factor.

    It works in channels_last.

    Args:
        image: channels of the image.
        factor: the enlargement in each direction.
        hidden: width at low resolution; half of it after the first of several enlargements.
        blocks: residual blocks.
        kernel: height and width of the transposed convolutions' kernels.
        dropout: in every residual block.
    """

    def __init__(
        self,
        image: int,
        *,
        factor: int,
        hidden: int = 64,
        blocks: int = 2,
        kernel: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        steps = factor_steps(factor)
        fine = max(hidden // 2, 1)
        widths = [hidden, *[fine] * (len(steps) - 1), image]
        self.stem = nn.Conv2d(image, hidden, 3, padding=1)
        self.blocks = nn.ModuleList(
            ResidualBlock(hidden, hidden, dropout=dropout) for _ in range(blocks)
        )
        self.norm = Norm(hidden)
        self.up = nn.ModuleList(
            TransposedUp(before, after, step, kernel)
            for (before, after), step in zip(itertools.pairwise(widths), steps, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, C, factor * H, factor * W]."""
        # The stem may return the other layout: a single channel is in both.
        h: Tensor = self.stem(x.contiguous(memory_format=torch.channels_last))
        h = h.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            h = block(h)
        h = self.norm(h)
        for up in self.up:
            h = up(F.silu(h))
        return h


class TransposedUpsampler(MappingStage):
    """Strided transposed convolutions (Zeiler et al. 2010), with or without an interpolation."""

    Config = TransposedConfig
    config: TransposedConfig

    def __init__(self, config: TransposedConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        self.network = TransposedNetwork(
            geometry.output.channels,
            factor=config.factor,
            hidden=config.hidden,
            blocks=config.blocks,
            kernel=config.kernel,
            dropout=config.dropout,
        )
        if config.output == "residual":
            with torch.no_grad():
                for parameter in self.network.up[-1].parameters():
                    parameter.zero_()

    def predict(self, upstream: Tensor) -> Tensor:
        """The enlarged image."""
        image: Tensor = self.network(upstream).float()
        if self.config.output == "pixels":
            return image
        return (
            enlarge(upstream.float(), enlarged_size(self, upstream), self.config.interpolation)
            + image
        )
