"""A U-Net for images of any size (Ronneberger et al. 2015; Ho et al. 2020, appendix B)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cascadezoo.nn.attention import CrossAttention, SelfAttention
from cascadezoo.nn.embeddings import ConditionEmbedding, LabelTable
from cascadezoo.nn.resnet import Norm, ResidualBlock, zero
from cascadezoo.nn.sizes import multiple_of, unet_resolutions

__all__ = ["LABEL_CHANNELS", "LABEL_TOKENS", "LabelConditioning", "UNet", "pad_to_multiple"]

LabelConditioning: TypeAlias = Literal["embedding", "concat", "cross-attention"]

LABEL_CHANNELS = 8
"""Number of input channels of a concatenated label."""

LABEL_TOKENS = 4
"""Number of tokens of a label in cross-attention; attention to a single token is constant."""


class _Level(nn.Module):
    """Residual blocks of one resolution, each optionally followed by attention.

    Args:
        widths: input channels of each block.
        outputs: output channels of each block.
        block: builds a block from its input and output channels.
        attention: builds self-attention from its channels; None for no attention.
        cross: builds cross-attention from its channels; None for no attention.
        resample: the layer to the next resolution; None at the last.
    """

    def __init__(
        self,
        widths: Sequence[int],
        outputs: int,
        *,
        block: Callable[[int, int], ResidualBlock],
        attention: Callable[[int], SelfAttention] | None,
        cross: Callable[[int], CrossAttention] | None,
        resample: nn.Module | None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(block(width, outputs) for width in widths)
        self.attention = nn.ModuleList(
            nn.Identity() if attention is None else attention(outputs) for _ in widths
        )
        self.cross = nn.ModuleList([] if cross is None else [cross(outputs) for _ in widths])
        self.resample = resample

    def step(self, index: int, h: Tensor, embedding: Tensor, tokens: Tensor | None) -> Tensor:
        """A block and the attention after it."""
        h = self.attention[index](self.blocks[index](h, embedding))
        return h if tokens is None or not len(self.cross) else self.cross[index](h, tokens)


class _Down(_Level):
    def forward(
        self, h: Tensor, embedding: Tensor, tokens: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """The image for the next level, and the output of each block."""
        outputs = []
        for index in range(len(self.blocks)):
            h = self.step(index, h, embedding, tokens)
            outputs.append(h)
        return (h if self.resample is None else self.resample(h)), outputs


class _Up(_Level):
    def forward(
        self, h: Tensor, skips: list[Tensor], embedding: Tensor, tokens: Tensor | None
    ) -> Tensor:
        """The image for the next level; takes a skip from the end of the list for each block."""
        for index in range(len(self.blocks)):
            h = self.step(index, torch.cat([h, skips.pop()], dim=1), embedding, tokens)
        if self.resample is None:
            return h
        grown: Tensor = self.resample(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return grown


class UNet(nn.Module):
    """Residual blocks at decreasing and increasing resolution, joined by skip connections.

    It works in channels_last for any input: the faster layout on CPUs and tensor cores.

    Args:
        inputs: channels of the noised image.
        outputs: channels of the prediction.
        size: height and width of the image; other sizes are padded inside.
        channels: width of the first level.
        multipliers: width of each level as a multiple of ``channels``; each but the first level
            halves the resolution.
        blocks: residual blocks per level, on the way down and on the way up.
        dense_skips: add skip connections from the outputs of the stem and of the downsampling
            layers, to one more block per level on the way up (Ho et al. 2020). Without them, only
            the outputs of blocks are passed, which learns more in the same training time on
            CIFAR-10 at 16x16.
        attention: resolutions (of :func:`~cascadezoo.nn.sizes.unet_resolutions`) with
            self-attention after each block.
        middle_attention: self-attention between the two blocks of the lowest resolution.
        scale_shift: how time and label enter the blocks, see :class:`ResidualBlock`.
        dropout: in every residual block.
        num_classes: number of labels; the label ``num_classes`` means no label. None for a
            network without labels.
        condition: channels of a further image as condition.
        label_conditioning: how the label enters the network; without effect if there are no
            classes. ``embedding``: a learned vector, added to the time embedding, in every residual
            block. ``concat``: :data:`LABEL_CHANNELS` learned numbers, each a further constant input
            channel. ``cross-attention``: :data:`LABEL_TOKENS` learned tokens of width ``channels``,
            attended to after each block of the ``attention`` resolutions and between the two blocks
            of the lowest resolution, regardless of ``middle_attention``.
        levels: number of further noise levels, each with its own time embedding (Ho et al. 2021:
            the level of conditioning augmentation).
        heads: of every attention; None for as many as are at least 32 wide.
        pad_to: images are padded to at least this height and width; None pads only to a multiple
            of the smallest resolution's scale.

    Raises:
        ValueError: ``heads`` does not divide the channels of an attention.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        size: int,
        channels: int = 32,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 1,
        dense_skips: bool = False,
        attention: Collection[int] = (),
        middle_attention: bool = False,
        scale_shift: bool = True,
        dropout: float = 0.0,
        num_classes: int | None = None,
        condition: int = 0,
        label_conditioning: LabelConditioning = "embedding",
        levels: int = 0,
        heads: int | None = None,
        pad_to: int | None = None,
    ) -> None:
        super().__init__()
        self.least = pad_to or 0
        size = max(size, self.least)
        self.dense_skips = dense_skips
        self.factor = 2 ** (len(multipliers) - 1)
        time = 4 * channels
        widths = [channels * multiplier for multiplier in multipliers]
        attends = [level in attention for level in unet_resolutions(size, len(widths))]

        embedded = num_classes if label_conditioning == "embedding" else None
        self.embedding = ConditionEmbedding(channels, time, embedded, levels)
        self.label_channels: LabelTable | None = None
        self.label_tokens: LabelTable | None = None
        stem_inputs = inputs + condition
        if num_classes is not None and label_conditioning == "concat":
            self.label_channels = LabelTable(num_classes, LABEL_CHANNELS, 1, 1)
            stem_inputs += LABEL_CHANNELS
        if num_classes is not None and label_conditioning == "cross-attention":
            self.label_tokens = LabelTable(num_classes, LABEL_TOKENS, channels)
        self.stem = nn.Conv2d(stem_inputs, channels, 3, padding=1)

        block = partial(ResidualBlock, time=time, scale_shift=scale_shift, dropout=dropout)
        self_attention = partial(SelfAttention, heads=heads)
        cross_attention = (
            None
            if self.label_tokens is None
            else partial(CrossAttention, context=channels, heads=heads)
        )

        skips = [channels] if dense_skips else []
        width = channels
        self.down = nn.ModuleList()
        for level, out in enumerate(widths):
            last = level == len(widths) - 1
            self.down.append(
                _Down(
                    [width, *[out] * (blocks - 1)],
                    out,
                    block=block,
                    attention=self_attention if attends[level] else None,
                    cross=cross_attention if attends[level] else None,
                    resample=None if last else nn.Conv2d(out, out, 3, stride=2, padding=1),
                )
            )
            skips += [out] * (blocks + (dense_skips and not last))
            width = out

        self.middle1 = block(width, width)
        self.middle_attention = self_attention(width) if middle_attention else nn.Identity()
        self.middle_cross = None if cross_attention is None else cross_attention(width)
        self.middle2 = block(width, width)

        self.up = nn.ModuleList()
        for level, out in reversed(list(enumerate(widths))):
            entering = [width, *[out] * (blocks - 1 + dense_skips)]
            self.up.append(
                _Up(
                    [inner + skips.pop() for inner in entering],
                    out,
                    block=block,
                    attention=self_attention if attends[level] else None,
                    cross=cross_attention if attends[level] else None,
                    resample=None if level == 0 else nn.Conv2d(out, out, 3, padding=1),
                )
            )
            width = out

        self.norm = Norm(width)
        self.head = zero(nn.Conv2d(width, outputs, 3, padding=1))

    def forward(
        self,
        x: Tensor,
        times: Tensor,
        labels: Tensor | None = None,
        condition: Tensor | None = None,
        level: Tensor | None = None,
    ) -> Tensor:
        """The prediction.

        Args:
            x: noised images, [N, inputs, H, W].
            times: [N], on a scale where neighbours are about 1 apart.
            labels: int64 [N] in 0..num_classes, the last of which means no label; None for
                images without labels.
            condition: [N, condition, H, W].
            level: the further noise levels, [N, levels] (or [N] for one level), each from 0
                (clean) to 1 (pure noise).

        Returns:
            [N, outputs, H, W].

        Raises:
            ValueError: the number of levels is not that of the network.
        """
        count, height, width = x.shape[0], x.shape[-2], x.shape[-1]
        further = [] if condition is None else [condition]
        if self.label_channels is not None:
            further.append(self.label_channels(labels, count).expand(-1, -1, height, width))
        if further:
            x = torch.cat([x, *further], dim=1)
        x, top, left = pad_to_multiple(x, self.factor, self.least)
        x = x.contiguous(memory_format=torch.channels_last)
        embedding = self.embedding(times, labels, level)
        tokens = None if self.label_tokens is None else self.label_tokens(labels, count)

        # The stem may return the other layout: a single channel is in both.
        h = self.stem(x).contiguous(memory_format=torch.channels_last)
        skips = [h] if self.dense_skips else []
        for down in self.down:
            h, outputs = down(h, embedding, tokens)
            skips += [*outputs, h] if self.dense_skips and down.resample is not None else outputs
        h = self.middle_attention(self.middle1(h, embedding))
        if self.middle_cross is not None:
            h = self.middle_cross(h, tokens)
        h = self.middle2(h, embedding)
        for up in self.up:
            h = up(h, skips, embedding, tokens)
        out: Tensor = self.head(self.norm.activated(h))
        return out[..., top : top + height, left : left + width]


def pad_to_multiple(images: Tensor, factor: int, least: int = 0) -> tuple[Tensor, int, int]:
    """Pad images [N, C, H, W] so that ``factor`` divides their height and width.

    Both are at least ``least``.

    The border is reflected; if the image is too small for that, its edge is repeated.

    Returns:
        The padded images, and the number of rows and columns added before the first.
    """
    height, width = images.shape[-2:]
    rows = multiple_of(max(height, least), factor) - height
    columns = multiple_of(max(width, least), factor) - width
    if not rows and not columns:
        return images, 0, 0
    top, left = rows // 2, columns // 2
    fits = rows - top < height and columns - left < width
    pads = (left, columns - left, top, rows - top)
    return F.pad(images, pads, mode="reflect" if fits else "replicate"), top, left
