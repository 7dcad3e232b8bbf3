"""The network of ``resnet.v1``."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cascadezoo.nn.resnet import Norm, ResidualBlock

__all__ = ["NoiseToImage"]


class NoiseToImage(nn.Module):
    """Strided convolutions gather the noise, residual blocks make an image of it.

    It works in channels_last.

    Args:
        image: channels of the noise and of the image.
        channels: width of the residual blocks; half of it at full resolution.
        blocks: residual blocks at the lowest resolution.
        halvings: how often the noise is halved, and the image doubled again.
        dropout: in every residual block.
        num_classes: labels that it is conditioned on; None for a network that knows no labels.
    """

    def __init__(
        self,
        image: int,
        *,
        channels: int = 64,
        blocks: int = 2,
        halvings: int = 2,
        dropout: float = 0.0,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        fine = max(channels // 2, 1)
        told = None if num_classes is None else channels
        self.labels = None if num_classes is None else nn.Embedding(num_classes, channels)
        widths = [fine, *[channels] * halvings]
        self.stem = nn.Conv2d(image, fine, 3, padding=1)
        self.down = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1)
            for before, after in itertools.pairwise(widths)
        )
        self.low = nn.ModuleList(
            ResidualBlock(widths[-1], widths[-1], time=told, dropout=dropout) for _ in range(blocks)
        )
        self.up = nn.ModuleList(
            ResidualBlock(after, before, time=told, dropout=dropout)
            for before, after in reversed(list(itertools.pairwise(widths)))
        )
        self.norm = Norm(fine)
        self.head = nn.Conv2d(fine, image, 3, padding=1)

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """The image, [N, C, H, W].

        Args:
            noise: standard normal, [N, C, H, W]; the halvings divide H and W.
            labels: int64 [N]; None for a network that knows none.
        """
        told = None
        if self.labels is not None and labels is not None:
            told = F.silu(self.labels(labels))
        # Again after the stem: a single channel has no layout.
        h = self.stem(noise.contiguous(memory_format=torch.channels_last))
        h = h.contiguous(memory_format=torch.channels_last)
        for down in self.down:
            h = down(F.silu(h))
        for block in self.low:
            h = block(h, told)
        for block in self.up:
            h = block(F.interpolate(h, scale_factor=2.0, mode="nearest"), told)
        out: Tensor = self.head(F.silu(self.norm(h)))
        return out
