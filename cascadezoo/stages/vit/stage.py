"""``vit.v1``: a refiner that corrects patches with attention over all patches."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from cascadezoo.nn.attention import FEW_TOKENS
from cascadezoo.nn.resnet import zero
from cascadezoo.stages.base import StageGeometry
from cascadezoo.stages.residual_stage import ResidualRefiner
from cascadezoo.stages.vit.config import ViTConfig

__all__ = ["ViTRefiner"]


class PatchTransformer(nn.Module):
    """Patches to tokens with learned positions, transformer blocks, tokens to pixels.

    The tokens become a few feature maps at full resolution, and a 3x3 convolution maps these to the
    output. It crosses the borders of patches, which a linear layer per patch cannot. The
    convolution starts at zero.

    Args:
        image: channels of the image.
        size: height and width of the image in pixels.
        patch: height and width of a patch; divides ``size``.
        features: width of a token.
        blocks: number of transformer blocks.
        heads: attention heads; divide ``features``.
        mlp_ratio: width of the blocks' perceptrons as a multiple of ``features``.
        dropout: of attention and perceptron outputs.
    """

    def __init__(
        self,
        image: int,
        *,
        size: int,
        patch: int = 4,
        features: int = 256,
        blocks: int = 2,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.patch = patch
        tokens = (size // patch) ** 2
        maps = min(max(features // patch**2, 8), 64)
        self.embed = nn.Conv2d(image, features, patch, stride=patch)
        self.positions = nn.Parameter(torch.empty(1, tokens, features))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.blocks = nn.ModuleList()
        for _ in range(blocks):
            block = Block(features, heads, mlp_ratio=mlp_ratio, qkv_bias=True, proj_drop=dropout)
            attention: Any = block.attn
            attention.fused_attn = tokens > FEW_TOKENS
            self.blocks.append(block)
        self.norm = nn.LayerNorm(features)
        self.unfold = nn.Linear(features, maps * patch**2)
        self.head = zero(nn.Conv2d(maps, image, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, size, size] to the correction, of the same shape."""
        patches = self.embed(x)
        rows, columns = patches.shape[-2:]
        tokens = patches.flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        folded = self.unfold(self.norm(tokens)).transpose(1, 2).unflatten(2, (rows, columns))
        out: Tensor = self.head(F.silu(F.pixel_shuffle(folded, self.patch)))
        return out


class ViTRefiner(ResidualRefiner):
    """Transformer blocks on patches (Dosovitskiy et al. 2021), added to the upstream image."""

    Config = ViTConfig
    config: ViTConfig

    @property
    def any_size(self) -> bool:
        """False: the positions of patches are learned."""
        return False

    def __init__(self, config: ViTConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        output = geometry.output
        self.network = PatchTransformer(
            output.channels,
            size=output.size,
            patch=config.patch_size,
            features=config.features,
            blocks=config.blocks,
            heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            dropout=config.dropout,
        )
