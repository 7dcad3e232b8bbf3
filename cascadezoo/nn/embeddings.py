"""Embeddings of times, noise levels and labels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ConditionEmbedding", "FourierEmbedding", "LabelTable", "sinusoidal_embedding"]

LEVEL_SCALE = 1000.0
"""The factor from noise levels in [0, 1] to the scale of DDPM's 1,000 timesteps."""


def sinusoidal_embedding(times: Tensor, width: int, longest: float = 10_000.0) -> Tensor:
    """Cosines and sines of decreasing frequency (Vaswani et al. 2017, section 3.5).

    The frequencies are computed on each call: a stored buffer would be as wide as the spec says.

    Args:
        times: [N], on a scale where neighbours are about 1 apart.
        width: of the embedding; an odd width is filled up with a zero.
        longest: the longest wave length is 2 pi times this.

    Returns:
        [N, width], float32: cosines, then sines.
    """
    half = width // 2
    steps = torch.arange(half, device=times.device, dtype=torch.float32)
    angles = times.float()[:, None] * torch.exp(steps * (-math.log(longest) / max(half, 1)))
    waves = torch.cat([angles.cos(), angles.sin()], dim=1)
    return waves if width % 2 == 0 else F.pad(waves, (0, 1))


class FourierEmbedding(nn.Module):
    """Cosines and sines of random frequencies (Tancik et al. 2020), for continuous noise levels.

    The frequencies are drawn once and saved with the weights.

    Args:
        width: of the embedding, even.
        deviation: standard deviation of the normal distribution of the frequencies.

    Raises:
        ValueError: an odd width.
    """

    frequencies: Tensor

    def __init__(self, width: int, deviation: float = 16.0) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"the width of a Fourier embedding must be even, not {width}")
        self.register_buffer("frequencies", deviation * torch.randn(width // 2))

    def forward(self, times: Tensor) -> Tensor:
        """Map times [N], of order 1, to [N, width]."""
        angles = 2 * math.pi * times.float()[:, None] * self.frequencies.float()
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class LabelTable(nn.Module):
    """A learned array of numbers for each label, of order 1.

    Args:
        num_classes: number of labels; the label ``num_classes`` means no label.
        shape: of a label's array.
    """

    def __init__(self, num_classes: int, *shape: int) -> None:
        super().__init__()
        self.shape = shape
        self.table = nn.Embedding(num_classes + 1, math.prod(shape))

    def forward(self, labels: Tensor | None, count: int) -> Tensor:
        """The arrays of labels.

        Args:
            labels: int64 [N] in 0..num_classes; None for images without labels.
            count: N.

        Returns:
            [N, *shape].
        """
        rows = self.table.weight[-1:].expand(count, -1) if labels is None else self.table(labels)
        arrays: Tensor = rows.reshape(count, *self.shape)
        return arrays


class ConditionEmbedding(nn.Module):
    """Time, further noise levels and label as one vector, the input of residual blocks.

    The vector is the sum of the sinusoidal embedding of the time after a two-layer perceptron (Ho
    et al. 2020, appendix B), those of further noise levels, each after its own perceptron (Ho et
    al. 2021, section 4: conditioning augmentation), and that of the label (Dhariwal & Nichol 2021).

    Args:
        width: of the sinusoidal embedding.
        hidden: of the perceptron and of the result.
        num_classes: number of labels; the label ``num_classes`` means no label. None for a
            network without labels.
        levels: number of further noise levels.
    """

    def __init__(
        self, width: int, hidden: int, num_classes: int | None = None, levels: int = 0
    ) -> None:
        super().__init__()
        self.width = width
        self.time = _perceptron(width, hidden)
        self.labels = None if num_classes is None else nn.Embedding(num_classes + 1, hidden)
        self.levels = nn.ModuleList(_perceptron(width, hidden) for _ in range(levels))

    def forward(
        self, times: Tensor, labels: Tensor | None = None, level: Tensor | None = None
    ) -> Tensor:
        """The embedding after its activation.

        Args:
            times: [N], on a scale where neighbours are about 1 apart.
            labels: int64 [N] in 0..num_classes; None for images without labels.
            level: the further noise levels, [N, levels] (or [N] for one level), each from 0
                (clean) to 1 (pure noise).

        Returns:
            [N, hidden].

        Raises:
            ValueError: the number of levels is not that of the network.
        """
        embedding: Tensor = self.time(sinusoidal_embedding(times, self.width))
        if self.labels is not None:
            embedding = embedding + (
                self.labels.weight[-1] if labels is None else self.labels(labels)
            )
        count = 0 if level is None else 1 if level.ndim == 1 else level.shape[1]
        if count != len(self.levels):
            raise ValueError(f"{count} noise levels for a network with {len(self.levels)}")
        if level is not None:
            for index, perceptron in enumerate(self.levels):
                one = level if level.ndim == 1 else level[:, index]
                # float() first: bfloat16 cannot represent 1000 different times
                waves = sinusoidal_embedding(LEVEL_SCALE * one.float(), self.width)
                embedding = embedding + perceptron(waves)
        return F.silu(embedding)


def _perceptron(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
