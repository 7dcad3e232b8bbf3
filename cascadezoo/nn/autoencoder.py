"""Variational autoencoders of images (Kingma & Welling 2014; Rombach et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cascadezoo.nn.attention import SelfAttention
from cascadezoo.nn.resnet import Norm, ResidualBlock, zero
from cascadezoo.nn.unet import pad_to_multiple

__all__ = ["Posterior", "VariationalAutoencoder", "channels_last", "crop_middle", "posterior_of"]

FRESH_LOG_VARIANCE = -6.0
"""Log variance of the posterior of an untrained encoder.

Training starts close to an autoencoder without noise. With a variance of 1, far above the latents
of an untrained encoder, the decoder would first learn to ignore the latents.
"""


class Posterior(NamedTuple):
    """A normal distribution over the latents of each image, with independent dimensions.

    Args:
        mean: also the mode, [N, C, H, W], float32.
        log_variance: natural logarithm, of the same shape, in [-30, 20].
    """

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Latents drawn by standard normal ``noise`` of the same shape, differentiable."""
        return self.mean + torch.exp(0.5 * self.log_variance) * noise

    def kl(self) -> Tensor:
        """Divergence from the standard normal in nats, summed over each image's dimensions, [N].

        Kingma & Welling 2014, appendix B.
        """
        terms = self.mean.square() + self.log_variance.exp() - 1.0 - self.log_variance
        return 0.5 * terms.flatten(1).sum(dim=1)


def posterior_of(moments: Tensor) -> Posterior:
    """The posterior of an encoder's output [N, 2 C, H, W]: means, then log variances.

    The log variance is limited to [-30, 20] as in Rombach et al.
    """
    mean, log_variance = moments.float().chunk(2, dim=1)
    return Posterior(mean, log_variance.clamp(-30.0, 20.0))


def crop_middle(images: Tensor, size: int) -> Tensor:
    """Remove the padding of :func:`~cascadezoo.nn.unet.pad_to_multiple` from [N, C, H, W].

    Args:
        images: at least as large as ``size``.
        size: height and width before the padding.
    """
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    top, left = (height - size) // 2, (width - size) // 2
    return images[..., top : top + size, left : left + size]


def channels_last(x: Tensor) -> Tensor:
    """The tensor [N, C, H, W] in channels_last, the faster layout on CPUs and tensor cores.

    Use it on the output of the first convolution, too: an image of one channel is in both layouts,
    and the convolution may return the other one.
    """
    return x.contiguous(memory_format=torch.channels_last)


class _Encoder(nn.Module):
    """Residual blocks at decreasing resolution, attention at the lowest.

    Args:
        inputs: channels of the image.
        outputs: channels of the output.
        widths: of each level; each but the first halves the resolution.
        blocks: residual blocks per level.
        attention: self-attention between the last two blocks.
        dropout: in every residual block.
        halve_last: one more halving after the last level, without residual blocks of its own.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        widths: Sequence[int],
        *,
        blocks: int,
        attention: bool,
        dropout: float,
        halve_last: bool,
    ) -> None:
        super().__init__()
        width = widths[0]
        self.stem = nn.Conv2d(inputs, width, 3, padding=1)
        self.levels = nn.ModuleList()
        for level, wide in enumerate(widths):
            layers: list[nn.Module] = []
            if level:
                layers.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
            for _ in range(blocks):
                layers.append(ResidualBlock(width, wide, dropout=dropout))
                width = wide
            self.levels.append(nn.Sequential(*layers))
        if halve_last:
            self.levels.append(nn.Sequential(nn.Conv2d(width, width, 3, stride=2, padding=1)))
        self.middle = _middle(width, attention=attention, dropout=dropout)
        self.norm = Norm(width)
        self.head = nn.Conv2d(width, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H / factor, W / factor]."""
        h = channels_last(self.stem(channels_last(x)))
        for level in self.levels:
            h = level(h)
        out: Tensor = self.head(self.norm.activated(self.middle(h)))
        return out


class _Decoder(nn.Module):
    """Attention at the lowest resolution, residual blocks at increasing resolution.

    Args:
        inputs: channels of the latents.
        outputs: channels of the image.
        widths: of each level, from the highest resolution.
        blocks: residual blocks per level.
        attention: self-attention between the first two blocks.
        dropout: in every residual block.
        halve_last: one more halving after the last level, without residual blocks of its own.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        widths: Sequence[int],
        *,
        blocks: int,
        attention: bool,
        dropout: float,
        halve_last: bool,
    ) -> None:
        super().__init__()
        width = widths[-1]
        self.stem = nn.Conv2d(inputs, width, 3, padding=1)
        self.middle = _middle(width, attention=attention, dropout=dropout)
        self.levels = nn.ModuleList()
        if halve_last:
            grow = nn.Upsample(scale_factor=2.0, mode="nearest")
            self.levels.append(nn.Sequential(grow, nn.Conv2d(width, width, 3, padding=1)))
        for level, wide in reversed(list(enumerate(widths))):
            layers: list[nn.Module] = []
            for _ in range(blocks):
                layers.append(ResidualBlock(width, wide, dropout=dropout))
                width = wide
            if level:
                layers.append(nn.Upsample(scale_factor=2.0, mode="nearest"))
                layers.append(nn.Conv2d(width, widths[level - 1], 3, padding=1))
                width = widths[level - 1]
            self.levels.append(nn.Sequential(*layers))
        self.norm = Norm(width)
        self.head = zero(nn.Conv2d(width, outputs, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H * factor, W * factor]."""
        h = self.middle(channels_last(self.stem(channels_last(z))))
        for level in self.levels:
            h = level(h)
        out: Tensor = self.head(self.norm.activated(h))
        return out


class VariationalAutoencoder(nn.Module):
    """An encoder to a posterior over latents and a decoder of latents.

    It works in channels_last for any input. The decoder's last layer starts at zero, so an
    untrained decoder returns grey images.

    Args:
        image: channels of the image.
        latent: channels of the latents.
        channels: width of the first level.
        multipliers: width of each level as a multiple of ``channels``; each but the first level
            halves the resolution.
        blocks: residual blocks per level, in the encoder and in the decoder; two more at the lowest
            resolution.
        attention: self-attention at the lowest resolution.
        dropout: in every residual block.
        halve_last: one more halving after the last level, so that only the blocks around the
            attention work at the lowest resolution.
    """

    def __init__(
        self,
        image: int,
        latent: int,
        *,
        channels: int = 32,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks: int = 1,
        attention: bool = True,
        dropout: float = 0.0,
        halve_last: bool = False,
    ) -> None:
        super().__init__()
        self.factor = 2 ** (len(multipliers) - (0 if halve_last else 1))
        widths = [channels * multiplier for multiplier in multipliers]

        build: dict[str, Any] = {
            "blocks": blocks,
            "attention": attention,
            "dropout": dropout,
            "halve_last": halve_last,
        }
        self.encoder = _Encoder(image, 2 * latent, widths, **build)
        self.decoder = _Decoder(latent, image, widths, **build)
        with torch.no_grad():
            bias = self.encoder.head.bias
            if bias is not None:
                bias[latent:].fill_(FRESH_LOG_VARIANCE)

    def encode(self, images: Tensor) -> Posterior:
        """The posterior of images [N, C, H, W], padded to a multiple of ``factor``.

        Returns:
            The posterior over latents [N, latent, ceil(H / factor), ceil(W / factor)], float32.
        """
        padded, _, _ = pad_to_multiple(images, self.factor)
        return posterior_of(self.encoder(padded))

    def decode(self, latents: Tensor, size: int) -> Tensor:
        """Decode latents [N, latent, h, w] to images [N, C, size, size], float32, not limited."""
        image: Tensor = self.decoder(latents)
        return crop_middle(image.float(), size)


def _middle(width: int, *, attention: bool, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        ResidualBlock(width, width, dropout=dropout),
        SelfAttention(width) if attention else nn.Identity(),
        ResidualBlock(width, width, dropout=dropout),
    )
