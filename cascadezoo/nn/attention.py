"""Self-attention over the positions of an image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cascadezoo.nn.resnet import Norm, zero
from cascadezoo.nn.sizes import divisor_near

__all__ = ["FEW_TOKENS", "SelfAttention", "attend"]

FEW_TOKENS = 64
"""Up to here, attention is done by plain matrix products.

PyTorch's fused kernel is no faster at so few tokens, and in bfloat16 on CPUs its backward takes six
times as long (measured with 64 tokens, 8 heads of width 32).
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
    if key.shape[-2] > FEW_TOKENS:
        return F.scaled_dot_product_attention(query, key, value)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    return torch.softmax(scores, dim=-1) @ value


class SelfAttention(nn.Module):
    """Multi-head self-attention over all positions, added to the input.

    The output layer starts at zero, so a fresh one passes its input on.

    Args:
        channels: of input and output.
        head: the width that a head has at least, where the channels allow it.
    """

    def __init__(self, channels: int, head: int = 32) -> None:
        super().__init__()
        self.heads = divisor_near(channels, max(1, channels // head))
        self.norm = Norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = zero(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """From [N, C, H, W] to the same."""
        n, c, h, w = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        qkv = self.qkv(tokens).view(n, h * w, 3, self.heads, c // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attend(query, key, value).transpose(1, 2).reshape(n, h * w, c)
        out: Tensor = x + self.out(mixed).transpose(1, 2).reshape(n, c, h, w)
        return out
