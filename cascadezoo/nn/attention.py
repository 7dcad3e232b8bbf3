"""Self-attention over the positions of an image, and cross-attention to conditioning tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cascadezoo.nn.resnet import Norm, has_tangent, zero
from cascadezoo.nn.sizes import divisor_near

__all__ = ["FEW_TOKENS", "CrossAttention", "SelfAttention", "TokenBlock", "attend"]

FEW_TOKENS = 64
"""Up to this number of tokens, CPUs compute attention by plain matrix products.

PyTorch's fused kernel is not faster for so few tokens, and its backward pass in bfloat16 takes six
times as long (measured with 64 tokens, 8 heads of width 32). GPUs always use the fused kernel,
except in forward-mode differentiation, which it does not support.
"""


class TokenBlock(nn.Module):
    """Base of the blocks of a transformer: compiled, recomputed and divided one by one.

    A subclass implements ``forward``. It may need timm, which this module does not import.
    """


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1).

    Args:
        query: [..., L, E].
        key: [..., S, E].
        value: [..., S, E].

    Returns:
        [..., L, E].
    """
    fused = key.is_cuda or key.shape[-2] > FEW_TOKENS
    if fused and not has_tangent(query):
        return F.scaled_dot_product_attention(query, key, value)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    return torch.softmax(scores, dim=-1) @ value


def _heads(channels: int, heads: int | None, head: int) -> int:
    """The number of attention heads.

    Args:
        channels: of all heads together.
        heads: the number; None for the largest with heads of at least width ``head``.
        head: the minimum width of a head, if the channels allow it.

    Raises:
        ValueError: ``heads`` does not divide the channels.
    """
    if heads is None:
        return divisor_near(channels, max(1, channels // head))
    if channels % heads:
        raise ValueError(f"{heads} attention heads do not divide {channels} channels")
    return heads


class SelfAttention(nn.Module):
    """Multi-head self-attention over all positions, added to the input.

    The output layer starts at zero, so a new layer is the identity.

    Args:
        channels: of input and output.
        head: the minimum width of a head, if the channels allow it.
        heads: number of heads; None for as many as ``head`` allows.

    Raises:
        ValueError: ``heads`` does not divide the channels.
    """

    def __init__(self, channels: int, head: int = 32, heads: int | None = None) -> None:
        super().__init__()
        self.heads = _heads(channels, heads, head)
        self.norm = Norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = zero(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the same shape."""
        n, c, h, w = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        qkv = self.qkv(tokens).view(n, h * w, 3, self.heads, c // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attend(query, key, value).transpose(1, 2).reshape(n, h * w, c)
        out: Tensor = x + self.out(mixed).transpose(1, 2).reshape(n, c, h, w)
        return out


class CrossAttention(nn.Module):
    """Multi-head attention from all positions to tokens, added to the input (Rombach et al. 2022).

    The output layer starts at zero, so a new layer is the identity.

    Args:
        channels: of input and output.
        context: width of a token.
        head: the minimum width of a head, if the channels allow it.
        heads: number of heads; None for as many as ``head`` allows.

    Raises:
        ValueError: ``heads`` does not divide the channels.
    """

    def __init__(
        self, channels: int, context: int, head: int = 32, heads: int | None = None
    ) -> None:
        super().__init__()
        self.heads = _heads(channels, heads, head)
        self.norm = Norm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(context, 2 * channels)
        self.out = zero(nn.Linear(channels, channels))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Map [N, C, H, W] and tokens [N, S, context] to [N, C, H, W]."""
        n, c, h, w = x.shape
        width = c // self.heads
        positions = self.norm(x).flatten(2).transpose(1, 2)
        query = self.query(positions).view(n, h * w, self.heads, width).transpose(1, 2)
        pair = self.key_value(tokens).view(n, tokens.shape[1], 2, self.heads, width)
        key, value = pair.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attend(query, key, value).transpose(1, 2).reshape(n, h * w, c)
        out: Tensor = x + self.out(mixed).transpose(1, 2).reshape(n, c, h, w)
        return out
