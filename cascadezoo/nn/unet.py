"""A U-Net for images of any size (Ronneberger et al. 2015; Ho et al. 2020, appendix B)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cascadezoo.nn.attention import SelfAttention
from cascadezoo.nn.embeddings import ConditionEmbedding
from cascadezoo.nn.resnet import Norm, ResidualBlock, zero
from cascadezoo.nn.sizes import multiple_of, unet_resolutions

__all__ = ["UNet", "pad_to_multiple"]


class _Level(nn.Module):
    """Residual blocks of one resolution, each followed by attention where asked for.

    Args:
        widths: channels that each block receives.
        outputs: channels that each block makes.
        attends: whether attention follows each block.
        time: width of the embedding of time and label.
        scale_shift: how the blocks are told it.
        dropout: in every block.
        resample: what leads to the next resolution; None at the last.
    """

    def __init__(
        self,
        widths: Sequence[int],
        outputs: int,
        *,
        attends: bool,
        time: int,
        scale_shift: bool,
        dropout: float,
        resample: nn.Module | None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock(width, outputs, time=time, scale_shift=scale_shift, dropout=dropout)
            for width in widths
        )
        self.attention = nn.ModuleList(
            SelfAttention(outputs) if attends else nn.Identity() for _ in widths
        )
        self.resample = resample


class _Down(_Level):
    def forward(self, h: Tensor, embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The image for the next level, and what each block made."""
        made = []
        for block, attention in zip(self.blocks, self.attention, strict=True):
            h = attention(block(h, embedding))
            made.append(h)
        return (h if self.resample is None else self.resample(h)), made


class _Up(_Level):
    def forward(self, h: Tensor, skips: list[Tensor], embedding: Tensor) -> Tensor:
        """The image for the next level; takes a skip from the end of the list for each block."""
        for block, attention in zip(self.blocks, self.attention, strict=True):
            h = attention(block(torch.cat([h, skips.pop()], dim=1), embedding))
        if self.resample is None:
            return h
        grown: Tensor = self.resample(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return grown


class UNet(nn.Module):
    """Residual blocks at falling and again at rising resolution, joined by skip connections.

    It works in channels_last, whatever it is given: the faster layout on CPUs and tensor cores.

    Args:
        inputs: channels of the noised image.
        outputs: channels of the prediction.
        size: height and width of the image; any, as it is padded inside.
        channels: width of the first level.
        multipliers: width of each level as a multiple of ``channels``; each but the first level
            halves the resolution.
        blocks: residual blocks per level, on the way down and on the way up.
        dense_skips: pass every image of the way down across, the stem's and the shrunk ones too, to
            one more block per level on the way up, as Ho et al. have it. Without, only what the
            blocks made is passed: for the same training time on CIFAR-10 at 16x16 that learns more.
        attention: resolutions (of :func:`~cascadezoo.nn.sizes.unet_resolutions`) with
            self-attention after each block.
        middle_attention: self-attention between the two blocks of the lowest resolution.
        scale_shift: how the blocks are told time and label, see :class:`ResidualBlock`.
        dropout: in every residual block.
        num_classes: labels that it is conditioned on; label ``num_classes`` stands for none. None
            for a network that knows no labels.
        condition: channels of a further image that it is conditioned on.
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
    ) -> None:
        super().__init__()
        self.dense_skips = dense_skips
        self.factor = 2 ** (len(multipliers) - 1)
        time = 4 * channels
        widths = [channels * multiplier for multiplier in multipliers]
        attends = [level in attention for level in unet_resolutions(size, len(widths))]

        self.embedding = ConditionEmbedding(channels, time, num_classes)
        self.stem = nn.Conv2d(inputs + condition, channels, 3, padding=1)

        skips = [channels] if dense_skips else []
        width = channels
        self.down = nn.ModuleList()
        for level, out in enumerate(widths):
            last = level == len(widths) - 1
            self.down.append(
                _Down(
                    [width, *[out] * (blocks - 1)],
                    out,
                    attends=attends[level],
                    time=time,
                    scale_shift=scale_shift,
                    dropout=dropout,
                    resample=None if last else nn.Conv2d(out, out, 3, stride=2, padding=1),
                )
            )
            skips += [out] * (blocks + (dense_skips and not last))
            width = out

        def middle() -> ResidualBlock:
            return ResidualBlock(width, width, time=time, scale_shift=scale_shift, dropout=dropout)

        self.middle1 = middle()
        self.middle_attention = SelfAttention(width) if middle_attention else nn.Identity()
        self.middle2 = middle()

        self.up = nn.ModuleList()
        for level, out in reversed(list(enumerate(widths))):
            received = [width, *[out] * (blocks - 1 + dense_skips)]
            self.up.append(
                _Up(
                    [inner + skips.pop() for inner in received],
                    out,
                    attends=attends[level],
                    time=time,
                    scale_shift=scale_shift,
                    dropout=dropout,
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
    ) -> Tensor:
        """The prediction.

        Args:
            x: noised images, [N, inputs, H, W].
            times: [N], on a scale where neighbours are about 1 apart.
            labels: int64 [N] in 0..num_classes, the last of which stands for none; None for
                images that have no labels.
            condition: [N, condition, H, W].

        Returns:
            [N, outputs, H, W].
        """
        if condition is not None:
            x = torch.cat([x, condition], dim=1)
        height, width = x.shape[-2:]
        x, top, left = pad_to_multiple(x, self.factor)
        x = x.contiguous(memory_format=torch.channels_last)
        embedding = self.embedding(times, labels)

        h = self.stem(x)
        skips = [h] if self.dense_skips else []
        for level in self.down:
            h, made = level(h, embedding)
            skips += [*made, h] if self.dense_skips and level.resample is not None else made
        h = self.middle2(self.middle_attention(self.middle1(h, embedding)), embedding)
        for level in self.up:
            h = level(h, skips, embedding)
        out: Tensor = self.head(F.silu(self.norm(h)))
        return out[..., top : top + height, left : left + width]


def pad_to_multiple(images: Tensor, factor: int) -> tuple[Tensor, int, int]:
    """Images [N, C, H, W], padded so that ``factor`` divides their height and width.

    The border is reflected; where the image is too small for that, its edge is repeated.

    Returns:
        The padded images, and how many rows and columns were put before the first.
    """
    height, width = images.shape[-2:]
    rows, columns = multiple_of(height, factor) - height, multiple_of(width, factor) - width
    if not rows and not columns:
        return images, 0, 0
    top, left = rows // 2, columns // 2
    fits = rows - top < height and columns - left < width
    pads = (left, columns - left, top, rows - top)
    return F.pad(images, pads, mode="reflect" if fits else "replicate"), top, left
