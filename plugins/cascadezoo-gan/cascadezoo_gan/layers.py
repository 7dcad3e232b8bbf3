"""Networks: residual blocks, the discriminator, the generator, the upsampler.

No network normalises over a batch, so an image depends neither on its neighbours nor on the number
of processes that share a batch.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cascadezoo_gan.config import smallest

__all__ = ["Discriminator", "Enlarger", "Painter", "ResidualBlock", "StyledBlock"]

SET = 4
"""Number of generated or real images that a discriminator compares (Karras et al. 2020)."""

MOST = 8
"""Maximum number of channels as a multiple of those at full size."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions after leaky rectifiers; a tenth of their output is added to the input.

    See Mescheder, Geiger and Nowozin (2018), appendix D.

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
        """Map [N, inputs, H, W] to [N, outputs, H, W]."""
        h = self.conv1(rectified(x))
        out: Tensor = self.skip(x) + 0.1 * self.conv2(rectified(h))
        return out


class StyledBlock(nn.Module):
    """A residual block whose features are scaled and shifted by noise and label.

    Features are normalised over each image (Ulyanov et al. 2016) and scaled by a style vector of
    noise and label (Huang and Belongie 2017; Karras et al. 2019).

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        style: length of the style vector.
    """

    def __init__(self, inputs: int, outputs: int, style: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.style1 = nn.Linear(style, 2 * inputs)
        self.style2 = nn.Linear(style, 2 * outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Map [N, inputs, H, W] and style vectors [N, style] to [N, outputs, H, W]."""
        h = self.conv1(rectified(styled(x, self.style1(style))))
        h = self.conv2(rectified(styled(h, self.style2(style))))
        out: Tensor = (self.skip(x) + h) * 0.5**0.5
        return out


class Painter(nn.Module):
    """The generator's network.

    Args:
        channels: of the image.
        size: of the image.
        width: channels at full size.
        noise: length of the noise vector.
        labels: number of labels; None for a network without labels.
    """

    def __init__(
        self, channels: int, size: int, width: int, noise: int, labels: int | None
    ) -> None:
        super().__init__()
        self.grid = smallest(size)
        widths = [*reversed(widths_from(size, width))]
        self.labels = None if labels is None else nn.Embedding(labels, noise)
        style = noise if labels is None else 2 * noise
        self.start = nn.Linear(style, widths[0] * self.grid**2)
        self.blocks = nn.ModuleList(
            StyledBlock(a, b, style) for a, b in zip([widths[0], *widths], widths, strict=False)
        )
        self.end = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map noise [N, noise] and labels [N] to images [N, channels, size, size], float32.

        The images are not limited to [-1, 1]: a hyperbolic tangent has no gradient in saturated
        regions, such as plain white.
        """
        # Noise and label have the same length, so neither dominates.
        style = unit(noise)
        if self.labels is not None:
            if labels is None:
                raise TypeError("a class-conditional GAN needs labels")
            style = torch.cat([style, unit(self.labels(labels))], dim=1)
        x = self.start(style).unflatten(1, (-1, self.grid, self.grid))
        x = x.contiguous(memory_format=torch.channels_last)
        for place, block in enumerate(self.blocks):
            if place:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(x, style)
        image: Tensor = self.end(rectified(x)).float()
        return image


class Discriminator(nn.Module):
    """Distinguishes real from generated images; labels by projection (Miyato and Koyama 2018).

    Args:
        channels: of the image.
        size: of the image.
        width: channels at full size.
        labels: number of labels; None for a network without labels.
        spread: add the variation within sets of four images as a feature (Karras et al. 2018,
            section 3), which detects a generator with only one image. Sets are neighbours in a
            batch, so they do not depend on the number of processes if each has complete sets.
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
        """Logits [N], float32, that images [N, C, H, W] with labels [N] are real."""
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
        projection = self.labels(labels) * features.float()
        conditional: Tensor = logits + projection.sum(1) / projection.shape[1] ** 0.5
        return conditional


class Enlarger(nn.Module):
    """The upsampler's network: the residual to an interpolation.

    Args:
        channels: of the image.
        width: channels at the upstream image's size.
        blocks: residual blocks at that size.
        factor: the enlargement in each direction.
    """

    def __init__(self, channels: int, width: int, blocks: int, factor: int) -> None:
        super().__init__()
        fine = max(1, width // 2)
        self.start = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(width, width) for _ in range(blocks)))
        self.enlarge = nn.Conv2d(width, fine * factor**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(factor)
        self.end = nn.Conv2d(fine, channels, 3, padding=1)
        # An untrained stage equals the interpolation.
        nn.init.zeros_(self.end.weight)
        if self.end.bias is not None:
            nn.init.zeros_(self.end.bias)

    def forward(self, upstream: Tensor) -> Tensor:
        """Map [N, channels, H, W] to a residual [N, channels, factor H, factor W], float32."""
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
    """Append a channel to features [N, C, H, W]: their deviation within each set of images."""
    count = math.gcd(len(x), SET)
    sets = x.float().reshape(-1, count, *x.shape[1:])
    spread = (sets.var(1, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
    spread = spread.repeat_interleave(count)[:, None, None, None].expand(-1, 1, *x.shape[2:])
    return torch.cat([x, spread.to(x.dtype)], dim=1)


def styled(x: Tensor, style: Tensor) -> Tensor:
    """Normalise features [N, C, H, W] per image, then scale and shift by style [N, 2 C]."""
    scale, shift = style[:, :, None, None].chunk(2, dim=1)
    x = F.group_norm(x.float(), 1)
    return torch.addcmul(shift, x, 1 + scale)


def unit(rows: Tensor) -> Tensor:
    """Scale vectors [N, D] to the typical length of standard normal vectors, the root of D."""
    scaled: Tensor = F.normalize(rows.float(), dim=1) * rows.shape[1] ** 0.5
    return scaled
