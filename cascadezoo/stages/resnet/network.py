"""The network of ``resnet.v1``."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cascadezoo.nn.resnet import Norm, ResidualBlock

__all__ = ["NoiseToImage"]


class NoiseToImage(nn.Module):
    """Strided convolutions reduce the noise, residual blocks turn it into an image.

    It works in channels_last.

    Args:
        image: channels of the noise and of the image.
        channels: width of the residual blocks; half of it at full resolution.
        blocks: residual blocks at the lowest resolution.
        halvings: number of times the noise is halved and the image doubled.
        dropout: in every residual block.
        num_classes: number of labels; None for a network without labels.
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
        embedding = None if num_classes is None else channels
        self.labels = None if num_classes is None else nn.Embedding(num_classes, channels)
        widths = [fine, *[channels] * halvings]
        self.stem = nn.Conv2d(image, fine, 3, padding=1)
        self.down = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1)
            for before, after in itertools.pairwise(widths)
        )
        self.low = nn.ModuleList(
            ResidualBlock(widths[-1], widths[-1], time=embedding, dropout=dropout)
            for _ in range(blocks)
        )
        self.up = nn.ModuleList(
            ResidualBlock(after, before, time=embedding, dropout=dropout)
            for before, after in reversed(list(itertools.pairwise(widths)))
        )
        self.norm = Norm(fine)
        self.head = nn.Conv2d(fine, image, 3, padding=1)

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """The image, [N, C, H, W].

        Args:
            noise: standard normal, [N, C, H, W]; the halvings divide H and W.
            labels: int64 [N]; None for a network without labels.
        """
        embedding = None
        if self.labels is not None and labels is not None:
            embedding = F.silu(self.labels(labels))
        # The stem may return the other layout: a single channel is in both.
        h = self.stem(noise.contiguous(memory_format=torch.channels_last))
        h = h.contiguous(memory_format=torch.channels_last)
        for down in self.down:
            h = down(F.silu(h))
        for block in self.low:
            h = block(h, embedding)
        for block in self.up:
            h = block(F.interpolate(h, scale_factor=2.0, mode="nearest"), embedding)
        out: Tensor = self.head(F.silu(self.norm(h)))
        return out
