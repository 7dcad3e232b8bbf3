"""Networks: residual blocks, the discriminator, the generator, the upsampler.

No network normalises over a batch, so that an image depends neither on its neighbours nor on how
many processes share a batch.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cascadezoo_gan.config import smallest

__all__ = ["Discriminator", "Enlarger", "Painter", "ResidualBlock", "StyledBlock"]

SET = 4
"""How many made or real images a discriminator sees beside each other (Karras et al. 2020)."""

MOST = 8
"""How many times the channels at full size there are at most."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions after leaky rectifiers, a tenth of them added to the input.

    Of Mescheder, Geiger and Nowozin (2018), appendix D.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """From [N, inputs, H, W] to [N, outputs, H, W]."""
        h = self.conv1(rectified(x))
        out: Tensor = self.skip(x) + 0.1 * self.conv2(rectified(h))
        return out


class StyledBlock(nn.Module):
    """A residual block that is told the noise and the label: they scale and shift its features.

    Features are normalised over each image alone (Ulyanov et al. 2016) and scaled by what the block
    is told (Huang and Belongie 2017; Karras et al. 2019).

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        told: length of what the block is told.
    """

    def __init__(self, inputs: int, outputs: int, result: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.style1 = nn.Linear(result, 2 * inputs)
        self.style2 = nn.Linear(result, 2 * outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, result: Tensor) -> Tensor:
        """From [N, inputs, H, W] and [N, told] to [N, outputs, H, W]."""
        h = self.conv1(rectified(styled(x, self.style1(result))))
        h = self.conv2(rectified(styled(h, self.style2(result))))
        out: Tensor = (self.skip(x) + h) * 0.5**0.5
        return out


class Painter(nn.Module):
    """The generator's network.

    Args:
        channels: of the image.
        size: of the image.
        width: channels at full size.
        noise: length of the noise vector.
        labels: how many there are; None for a network that knows none.
    """

    def __init__(
        self, channels: int, size: int, width: int, noise: int, labels: int | None
    ) -> None:
        super().__init__()
        self.grid = smallest(size)
        widths = [*reversed(widths_from(size, width))]
        self.labels = None if labels is None else nn.Embedding(labels, noise)
        result = noise if labels is None else 2 * noise
        self.start = nn.Linear(result, widths[0] * self.grid**2)
        self.blocks = nn.ModuleList(
            StyledBlock(a, b, result) for a, b in zip([widths[0], *widths], widths, strict=False)
        )
        self.end = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """From noise [N, noise] and labels [N] to images [N, channels, size, size], float32.

        They are not limited to [-1, 1]: a hyperbolic tangent has no gradient left where a corner
        of plain white drives it.
        """
        # On the sphere, as the label beside it: neither drowns the other.
        result = unit(noise)
        if self.labels is not None:
            if labels is None:
                raise TypeError("a class-conditional GAN needs labels")
            result = torch.cat([result, unit(self.labels(labels))], dim=1)
        x = self.start(result).unflatten(1, (-1, self.grid, self.grid))
        x = x.contiguous(memory_format=torch.channels_last)
        for place, block in enumerate(self.blocks):
            if place:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(x, result)
        image: Tensor = self.end(rectified(x)).float()
        return image


class Discriminator(nn.Module):
    """Tells real images from made ones; with labels by projection (Miyato and Koyama 2018).

    Args:
        channels: of the image.
        size: of the image.
        width: channels at full size.
        labels: how many there are; None for a network that knows none.
        spread: show how much the images of a set of four differ (Karras et al. 2018, section 3):
            a generator that makes one image of all noise is found out. Sets are neighbours in a
            batch, so that processes see the same ones where a process's share has whole sets.
    """

    def __init__(
        self, channels: int, size: int, width: int, labels: int | None, *, spread: bool
    ) -> None:
        super().__init__()
        widths = widths_from(size, width)
        self.start = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            ResidualBlock(a, b) for a, b in zip([width, *widths], widths, strict=False)
        )
        features = widths[-1]
        self.spread = spread
        self.features = nn.Linear((features + spread) * smallest(size) ** 2, features)
        self.verdict = nn.Linear(features, 1)
        self.labels = None if labels is None else nn.Embedding(labels, features)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """How real images [N, C, H, W] of labels [N] look: logits [N], float32."""
        x = self.start(images.contiguous(memory_format=torch.channels_last))
        for place, block in enumerate(self.blocks):
            if place:
                x = F.avg_pool2d(x, 2)
            x = block(x)
        x = rectified(x)
        if self.spread:
            x = with_spread(x)
        features = rectified(self.features(x.flatten(1)))
        logits: Tensor = self.verdict(features).float().squeeze(1)
        if self.labels is None:
            return logits
        if labels is None:
            raise TypeError("a class-conditional discriminator needs labels")
        known = self.labels(labels) * features.float()
        scored: Tensor = logits + known.sum(1) / known.shape[1] ** 0.5
        return scored


class Enlarger(nn.Module):
    """The upsampler's network: what an interpolation lacks.

    Args:
        channels: of the image.
        width: channels at the upstream image's size.
        blocks: residual blocks at that size.
        factor: how many times larger the image becomes.
    """

    def __init__(self, channels: int, width: int, blocks: int, factor: int) -> None:
        super().__init__()
        fine = max(1, width // 2)
        self.start = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(width, width) for _ in range(blocks)))
        self.enlarge = nn.Conv2d(width, fine * factor**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(factor)
        self.end = nn.Conv2d(fine, channels, 3, padding=1)
        # An untrained stage is the interpolation.
        nn.init.zeros_(self.end.weight)
        if self.end.bias is not None:
            nn.init.zeros_(self.end.bias)

    def forward(self, upstream: Tensor) -> Tensor:
        """From [N, channels, H, W] to a residual [N, channels, factor H, factor W], float32."""
        x = self.start(upstream.contiguous(memory_format=torch.channels_last))
        x = x + self.blocks(x)
        x = self.shuffle(self.enlarge(rectified(x)))
        residual: Tensor = self.end(rectified(x)).float()
        return residual


def widths_from(size: int, width: int) -> list[int]:
    """The channels at each size, from ``size`` down to the smallest grid."""
    halvings = (size // smallest(size)).bit_length() - 1
    return [width * min(MOST, 2**place) for place in range(halvings + 1)]


def rectified(x: Tensor) -> Tensor:
    """A leaky rectifier."""
    return F.leaky_relu(x, 0.2)


def with_spread(x: Tensor) -> Tensor:
    """Features [N, C, H, W] and one more: how much they differ in each set of images."""
    count = math.gcd(len(x), SET)
    sets = x.float().reshape(-1, count, *x.shape[1:])
    spread = (sets.var(1, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
    spread = spread.repeat_interleave(count)[:, None, None, None].expand(-1, 1, *x.shape[2:])
    return torch.cat([x, spread.to(x.dtype)], dim=1)


def styled(x: Tensor, style: Tensor) -> Tensor:
    """Features [N, C, H, W] normalised image by image, scaled and shifted by style [N, 2 C]."""
    scale, shift = style[:, :, None, None].chunk(2, dim=1)
    x = F.group_norm(x.float(), 1)
    return torch.addcmul(shift, x, 1 + scale)


def unit(rows: Tensor) -> Tensor:
    """Vectors [N, D] scaled to the length that standard normal ones have, the root of D."""
    scaled: Tensor = F.normalize(rows.float(), dim=1) * rows.shape[1] ** 0.5
    return scaled
