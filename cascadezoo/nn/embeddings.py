"""Embeddings of times and labels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ConditionEmbedding", "FourierEmbedding", "sinusoidal_embedding"]


def sinusoidal_embedding(times: Tensor, width: int, longest: float = 10_000.0) -> Tensor:
    """Cosines and sines of falling frequency (Vaswani et al. 2017, section 3.5).

    The frequencies are made on the spot: a stored buffer would have to be as wide as a spec asks.

    Args:
        times: [N], on a scale where neighbours are about 1 apart.
        width: of the embedding; an odd one gets a zero at its end.
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
        deviation: of the normal distribution that the frequencies come from.

    Raises:
        ValueError: an odd width.
    """

    frequencies: Tensor

    def __init__(self, width: int, deviation: float = 16.0) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"a Fourier embedding has an even width, not {width}")
        self.register_buffer("frequencies", deviation * torch.randn(width // 2))

    def forward(self, times: Tensor) -> Tensor:
        """From times [N], of order 1, to [N, width]."""
        angles = 2 * math.pi * times.float()[:, None] * self.frequencies.float()
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class ConditionEmbedding(nn.Module):
    """Time and label as one vector that residual blocks are told.

    The sinusoidal embedding of the time passes through a two-layer perceptron (Ho et al. 2020,
    appendix B); the label's embedding is added (Dhariwal & Nichol 2021).

    Args:
        width: of the sinusoidal embedding.
        hidden: of the perceptron and of the result.
        num_classes: how many labels there are; label ``num_classes`` stands for none. None for a
            network that knows no labels.
    """

    def __init__(self, width: int, hidden: int, num_classes: int | None = None) -> None:
        super().__init__()
        self.width = width
        self.time = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.labels = None if num_classes is None else nn.Embedding(num_classes + 1, hidden)

    def forward(self, times: Tensor, labels: Tensor | None = None) -> Tensor:
        """The activated embedding, so that no block has to.

        Args:
            times: [N], on a scale where neighbours are about 1 apart.
            labels: int64 [N] in 0..num_classes; None for images that have no labels.

        Returns:
            [N, hidden].
        """
        embedding: Tensor = self.time(sinusoidal_embedding(times, self.width))
        if self.labels is not None:
            embedding = embedding + (
                self.labels.weight[-1] if labels is None else self.labels(labels)
            )
        return F.silu(embedding)
