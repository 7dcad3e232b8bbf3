"""The networks: a convolutional encoder and decoder, and a causal transformer."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Cache", "Decoder", "Encoder", "TokenTransformer"]

Cache = list[tuple[Tensor, Tensor]]
"""Keys and values of each block, [N, heads, L, width / heads]."""


def _norm(channels: int) -> nn.GroupNorm:
    """Up to 8 groups of two channels at least: alone, a channel would lose its mean."""
    groups = math.gcd(8, channels)
    return nn.GroupNorm(max(1, groups // 2) if groups == channels else groups, channels)


class Residual(nn.Module):
    """Two convolutions on top of the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _norm(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            _norm(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] of the same shape."""
        result: Tensor = x + self.body(x)
        return result


def _widths(channels: int, levels: int) -> list[int]:
    return [channels * min(2**level, 4) for level in range(levels + 1)]


class Encoder(nn.Sequential):
    """Halves the image at each level.

    Args:
        channels: channels of the image.
        size: length of the codes.
        width: channels at full size.
        levels: number of halvings.
        blocks: residual blocks after each halving.
    """

    def __init__(self, channels: int, size: int, width: int, levels: int, blocks: int) -> None:
        widths = _widths(width, levels)
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1)]
        for before, after in itertools.pairwise(widths):
            layers += [nn.SiLU(), nn.Conv2d(before, after, 4, stride=2, padding=1)]
            layers += [Residual(after) for _ in range(blocks)]
        layers += [_norm(widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], size, 1)]
        super().__init__(*layers)


class Decoder(nn.Sequential):
    """Doubles the image at each level; the arguments are those of :class:`Encoder`."""

    def __init__(self, channels: int, size: int, width: int, levels: int, blocks: int) -> None:
        widths = _widths(width, levels)[::-1]
        layers: list[nn.Module] = [nn.Conv2d(size, widths[0], 3, padding=1)]
        for before, after in itertools.pairwise(widths):
            layers += [Residual(before) for _ in range(blocks)]
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(before, after, 3, padding=1)]
        layers += [_norm(width), nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1)]
        super().__init__(*layers)


class Block(nn.Module):
    """A pre-norm block of causal self-attention and a feed-forward network."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.before = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The output [N, L, width], and the keys and values of all positions.

        Args:
            x: [N, L, width]; with ``past`` one position, which attends to all before it.
            past: keys and values of the positions before.
        """
        count, length, width = x.shape
        parts = self.qkv(self.before(x)).view(count, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        share = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(
            q, k, v, dropout_p=share, is_causal=past is None and length > 1
        )
        mixed = self.out(mixed.transpose(1, 2).reshape(count, length, width))
        x = x + F.dropout(mixed, self.dropout, self.training)
        return x + F.dropout(self.feed(x), self.dropout, self.training), (k, v)


class TokenTransformer(nn.Module):
    """Logits of each token, given the label and the tokens before it.

    Args:
        vocabulary: number of tokens.
        length: length of the sequence.
        labels: number of labels, with that for "none".
        width: its width.
        blocks: number of blocks.
        heads: attention heads.
        dropout: dropout of the blocks.
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        labels: int,
        *,
        width: int,
        blocks: int,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.labels = nn.Embedding(labels, width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(blocks))
        self.last = nn.LayerNorm(width)
        self.logits = nn.Linear(width, vocabulary)
        for table in (self.tokens, self.labels):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """The logits of all positions at once.

        Args:
            tokens: int64 [N, L]; position i is predicted from those before i.
            labels: int64 [N].

        Returns:
            [N, L, vocabulary].
        """
        start = self.labels(labels)[:, None]
        x = torch.cat([start, self.tokens(tokens[:, :-1])], 1) + self.places
        for block in self.blocks:
            x, _ = block(x)
        logits: Tensor = self.logits(self.last(x))
        return logits

    def advance(self, entry: Tensor, index: int, cache: Cache) -> Tensor:
        """The logits of one position; the cache takes its keys and values.

        Args:
            entry: [N, width], the embedding of the label for position 0, else of the token before.
            index: the position.
            cache: of the positions before; empty for position 0.

        Returns:
            [N, vocabulary].
        """
        x = (entry + self.places[index])[:, None]
        for number, block in enumerate(self.blocks):
            x, kept = block(x, cache[number] if index else None)
            cache[number : number + 1] = [kept]
        logits: Tensor = self.logits(self.last(x))[:, 0]
        return logits
