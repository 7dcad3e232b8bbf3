"""The autoencoder of latent diffusion as diffusers' ``AutoencoderKL`` has it (Rombach et al. 2022).

Layers have diffusers' parameter names, so that its weights load as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from cascadezoo.nn.attention import attend
from cascadezoo.nn.autoencoder import Posterior, channels_last, crop_middle, posterior_of
from cascadezoo.nn.unet import pad_to_multiple

__all__ = ["AutoencoderKLNetwork"]

EPS = 1e-6


class _GroupNorm(nn.GroupNorm):
    """Group normalisation in float32, under autocast too."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__(groups, channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """From [N, C, H, W] to the same in float32."""
        return F.group_norm(x.float(), self.num_groups, self.weight, self.bias, self.eps)


class _ResnetBlock(nn.Module):
    """Two times norm, SiLU, 3x3 convolution, added to the input."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1 = _GroupNorm(groups, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = _GroupNorm(groups, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        out: Tensor = (x if self.conv_shortcut is None else self.conv_shortcut(x)) + h
        return out


class _Attention(nn.Module):
    """Self-attention over all positions with one head, added to the input."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = _GroupNorm(groups, channels)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        # diffusers has dropout as the second of the list.
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        # [N, 1, H * W, C]: attention kernels want a dimension of heads.
        tokens = self.group_norm(x).flatten(2).transpose(1, 2).unsqueeze(1)
        mixed = attend(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))
        out: Tensor = x + self.to_out[0](mixed).squeeze(1).transpose(1, 2).reshape(n, c, h, w)
        return out


class _Middle(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, channels: int, groups: int, attention: bool) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([_Attention(channels, groups)] if attention else [])
        self.resnets = nn.ModuleList(_ResnetBlock(channels, channels, groups) for _ in range(2))

    def forward(self, h: Tensor) -> Tensor:
        h = self.resnets[0](h)
        for attention in self.attentions:
            h = attention(h)
        out: Tensor = self.resnets[1](h)
        return out


class _Downsample(nn.Module):
    """Halves the resolution; the border of the 3x3 convolution lies right and below only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(h, (0, 1, 0, 1)))
        return out


class _Upsample(nn.Module):
    """Doubles the resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.conv(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return out


class _Blocks(nn.Module):
    """Residual blocks of one resolution. A subclass may lead to the next one."""

    def __init__(self, inputs: int, outputs: int, layers: int, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            _ResnetBlock(outputs if layer else inputs, outputs, groups) for layer in range(layers)
        )

    def forward(self, h: Tensor) -> Tensor:
        for resnet in self.resnets:
            h = resnet(h)
        return h


class _DownBlock(_Blocks):
    def __init__(
        self, inputs: int, outputs: int, layers: int, groups: int, *, shrinks: bool
    ) -> None:
        super().__init__(inputs, outputs, layers, groups)
        self.downsamplers = nn.ModuleList([_Downsample(outputs)] if shrinks else [])

    def forward(self, h: Tensor) -> Tensor:
        h = super().forward(h)
        for downsample in self.downsamplers:
            h = downsample(h)
        return h


class _UpBlock(_Blocks):
    def __init__(self, inputs: int, outputs: int, layers: int, groups: int, *, grows: bool) -> None:
        super().__init__(inputs, outputs, layers, groups)
        self.upsamplers = nn.ModuleList([_Upsample(outputs)] if grows else [])

    def forward(self, h: Tensor) -> Tensor:
        h = super().forward(h)
        for upsample in self.upsamplers:
            h = upsample(h)
        return h


class _Encoder(nn.Module):
    def __init__(
        self,
        inputs: int,
        outputs: int,
        widths: Sequence[int],
        layers: int,
        groups: int,
        attention: bool,
    ) -> None:
        super().__init__()
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(inputs, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            _DownBlock(widths[max(level - 1, 0)], width, layers, groups, shrinks=level < last)
            for level, width in enumerate(widths)
        )
        self.mid_block = _Middle(widths[-1], groups, attention)
        self.conv_norm_out = _GroupNorm(groups, widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = channels_last(self.conv_in(channels_last(x)))
        for block in self.down_blocks:
            h = block(h)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(self.mid_block(h))))
        return out


class _Decoder(nn.Module):
    def __init__(
        self,
        inputs: int,
        outputs: int,
        widths: Sequence[int],
        layers: int,
        groups: int,
        attention: bool,
    ) -> None:
        super().__init__()
        widths = list(reversed(widths))
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(inputs, widths[0], 3, padding=1)
        self.mid_block = _Middle(widths[0], groups, attention)
        self.up_blocks = nn.ModuleList(
            _UpBlock(widths[max(level - 1, 0)], width, layers + 1, groups, grows=level < last)
            for level, width in enumerate(widths)
        )
        self.conv_norm_out = _GroupNorm(groups, widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], outputs, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = channels_last(self.conv_in(channels_last(z)))
        h = self.mid_block(h)
        for block in self.up_blocks:
            h = block(h)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(h)))
        return out


class AutoencoderKLNetwork(nn.Module):
    """Encoder and decoder of Stable Diffusion's architecture, any widths.

    It works in channels_last, whatever it is given.

    Args:
        image: channels of the image.
        latent: channels of the latents.
        widths: of each level; each but the first halves the resolution.
        layers: residual blocks per level of the encoder; the decoder has one more.
        groups: of every group normalisation; divides all widths.
        quant_conv: a 1x1 convolution after the encoder.
        post_quant_conv: a 1x1 convolution before the decoder.
        attention: self-attention at the lowest resolution.
    """

    def __init__(
        self,
        image: int,
        latent: int,
        *,
        widths: Sequence[int] = (128, 256, 512, 512),
        layers: int = 2,
        groups: int = 32,
        quant_conv: bool = True,
        post_quant_conv: bool = True,
        attention: bool = True,
    ) -> None:
        super().__init__()
        self.factor = 2 ** (len(widths) - 1)
        self.encoder = _Encoder(image, 2 * latent, widths, layers, groups, attention)
        self.decoder = _Decoder(latent, image, widths, layers, groups, attention)
        self.quant_conv = nn.Conv2d(2 * latent, 2 * latent, 1) if quant_conv else None
        self.post_quant_conv = nn.Conv2d(latent, latent, 1) if post_quant_conv else None

    def encode(self, images: Tensor) -> Posterior:
        """The posterior of images [N, C, H, W], which are padded to a multiple of ``factor``.

        Returns:
            Over latents [N, latent, ceil(H / factor), ceil(W / factor)], float32.
        """
        padded, _, _ = pad_to_multiple(images, self.factor)
        moments = self.encoder(padded)
        return posterior_of(moments if self.quant_conv is None else self.quant_conv(moments))

    def decode(self, latents: Tensor, size: int) -> Tensor:
        """Images [N, C, size, size] of latents [N, latent, h, w], float32, not limited."""
        if self.post_quant_conv is not None:
            latents = self.post_quant_conv(latents)
        image: Tensor = self.decoder(latents)
        return crop_middle(image.float(), size)
