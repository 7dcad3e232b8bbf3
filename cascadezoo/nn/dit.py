"""A diffusion transformer (DiT; Peebles & Xie 2023, "Scalable Diffusion Models with Transformers").

Attention, perceptrons and patches are timm's.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.activations import GELUTanh
from timm.layers.mlp import Mlp
from timm.layers.patch_embed import PatchEmbed
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from timm.models.vision_transformer import Attention  # type: ignore[attr-defined]
from torch import Tensor, nn

from cascadezoo.nn.attention import FEW_TOKENS, TokenBlock
from cascadezoo.nn.embeddings import ConditionEmbedding
from cascadezoo.nn.resnet import zero

__all__ = ["DiT", "DiTBlock"]

FREQUENCIES = 256
"""Width of the sinusoidal embedding of times and noise levels, as in the authors' code."""


def _norm(features: int) -> nn.LayerNorm:
    """Without parameters: the modulation has them."""
    return nn.LayerNorm(features, eps=1e-6, elementwise_affine=False)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Tokens [N, L, D], scaled and shifted by [N, D]."""
    return x * (1 + scale[:, None]) + shift[:, None]


class DiTBlock(TokenBlock):
    """A transformer block with adaLN-Zero (Peebles & Xie 2023, section 3.2).

    A linear layer maps the condition to shift, scale and gate of the attention, and of the
    perceptron: ``x + gate * layer(norm(x) * (1 + scale) + shift)``. The layer starts at zero, so a
    new block is the identity.

    Args:
        features: width of a token.
        heads: attention heads; divide ``features``.
        mlp_ratio: width of the perceptron as a multiple of ``features``.
        dropout: of attention and perceptron outputs.
        tokens: the number of tokens that the block will see, which selects the kernel.
    """

    def __init__(
        self, features: int, heads: int, *, mlp_ratio: float, dropout: float, tokens: int
    ) -> None:
        super().__init__()
        self.norm1 = _norm(features)
        attention: Any = Attention(features, heads, qkv_bias=True, proj_drop=dropout)
        attention.fused_attn = tokens > FEW_TOKENS
        self.attention = attention
        self.norm2 = _norm(features)
        hidden = int(features * mlp_ratio)
        self.mlp = Mlp(features, hidden, act_layer=GELUTanh, drop=dropout)
        self.modulation = nn.Linear(features, 6 * features)
        for layer in (attention.qkv, attention.proj, self.mlp.fc1, self.mlp.fc2):
            _start(layer)
        zero(self.modulation)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map tokens [N, L, features] and an activated embedding [N, features] to tokens."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(embedding).chunk(6, dim=1)
        x = x + gate1[:, None] * self.attention(_modulated(self.norm1(x), shift1, scale1))
        out: Tensor = x + gate2[:, None] * self.mlp(_modulated(self.norm2(x), shift2, scale2))
        return out


class DiT(nn.Module):
    """Patches to tokens, transformer blocks, tokens to pixels (Peebles & Xie 2023).

    It takes the arguments of :class:`~cascadezoo.nn.unet.UNet`. Positions are fixed cosines and
    sines of row and column. The last layer starts at zero, so a new network predicts zero.

    Args:
        image: channels of the noised image and of the prediction.
        size: height and width of the image in pixels.
        patch: height and width of a patch; divides ``size``.
        features: width of a token, a multiple of 4.
        blocks: number of transformer blocks.
        heads: attention heads; divide ``features``.
        mlp_ratio: width of the blocks' perceptrons as a multiple of ``features``.
        dropout: of attention and perceptron outputs.
        num_classes: number of labels; the label ``num_classes`` means no label. None for a network
            without labels.
        condition: channels of a further image as condition.
        levels: number of further noise levels, each with its own embedding.

    Raises:
        ValueError: ``patch`` does not divide ``size``, ``heads`` does not divide ``features``, or
            ``features`` is not a multiple of 4.
    """

    def __init__(
        self,
        image: int,
        *,
        size: int,
        patch: int = 2,
        features: int = 128,
        blocks: int = 4,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        num_classes: int | None = None,
        condition: int = 0,
        levels: int = 0,
    ) -> None:
        super().__init__()
        if size % patch:
            raise ValueError(f"patches of {patch} pixels do not tile an image of {size}")
        if features % heads:
            raise ValueError(f"{heads} attention heads do not divide {features} features")
        if features % 4:
            raise ValueError(f"{features} features are not a multiple of 4")
        self.size = size
        self.patch = patch
        self.features = features
        self.side = size // patch
        self.embed = PatchEmbed(size, patch, image + condition, features)
        self.embedding = ConditionEmbedding(FREQUENCIES, features, num_classes, levels)
        self.blocks = nn.ModuleList(
            DiTBlock(features, heads, mlp_ratio=mlp_ratio, dropout=dropout, tokens=self.side**2)
            for _ in range(blocks)
        )
        self.norm = _norm(features)
        self.modulation = zero(nn.Linear(features, 2 * features))
        self.head = zero(nn.Linear(features, image * patch**2))
        self._start_embeddings()

    def _start_embeddings(self) -> None:
        """The initialisation of the authors' code."""
        projection = self.embed.proj
        nn.init.xavier_uniform_(projection.weight.flatten(1))
        if projection.bias is not None:
            nn.init.zeros_(projection.bias)
        for perceptron in (self.embedding.time, *self.embedding.levels):
            for layer in perceptron.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=0.02)
                    nn.init.zeros_(layer.bias)
        if self.embedding.labels is not None:
            nn.init.normal_(self.embedding.labels.weight, std=0.02)

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
            x: noised images, [N, image, size, size].
            times: [N], on a scale where neighbours are about 1 apart.
            labels: int64 [N] in 0..num_classes, the last of which means no label; None for
                images without labels.
            condition: [N, condition, size, size].
            level: the further noise levels, [N, levels] (or [N] for one level), each from 0
                (clean) to 1 (pure noise).

        Returns:
            [N, image, size, size].

        Raises:
            ValueError: the images have another size, or the number of levels is not that of the
                network.
        """
        if tuple(x.shape[-2:]) != (self.size, self.size):
            height, width = x.shape[-2:]
            raise ValueError(f"images of {height}x{width} for a network of {self.size} pixels")
        if condition is not None:
            x = torch.cat([x, condition], dim=1)
        embedding = self.embedding(times, labels, level)
        # Computed on each call: a stored table would be as wide as the spec says.
        grid = [self.side, self.side]
        places = build_sincos2d_pos_embed(grid, self.features, device=x.device)
        tokens = self.embed(x) + places
        for block in self.blocks:
            tokens = block(tokens, embedding)
        shift, scale = self.modulation(embedding).chunk(2, dim=1)
        pixels = self.head(_modulated(self.norm(tokens), shift, scale))
        folded = pixels.transpose(1, 2).unflatten(2, (self.side, self.side))
        return F.pixel_shuffle(folded, self.patch)


def _start(layer: nn.Module) -> None:
    """Xavier's uniform distribution, and no bias."""
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
