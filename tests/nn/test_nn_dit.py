"""The diffusion transformer against the formulas of Peebles & Xie (2023), written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cascadezoo.nn.compiled import compile_network
from cascadezoo.nn.dit import DiT, DiTBlock
from cascadezoo.nn.recompute import recompute_blocks, recomputed_blocks

SIZES = {"size": 8, "patch": 2, "features": 16, "blocks": 2, "heads": 2}


def shaken(module: torch.nn.Module, scale: float = 0.2) -> torch.nn.Module:
    """Without weights of zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return module


def network(**settings: object) -> DiT:
    torch.manual_seed(0)
    return DiT(3, **{**SIZES, "num_classes": 5, **settings})  # type: ignore[arg-type]


def inputs(count: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(count, 3, 8, 8, generator=generator)
    return images, torch.linspace(100.0, 900.0, count), torch.arange(count) % 5


# --- the formulas


def linear(x: Tensor, layer: torch.nn.Linear) -> Tensor:
    return torch.einsum("...i,oi->...o", x, layer.weight) + layer.bias


def layer_norm(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def self_attention(x: Tensor, block: DiTBlock, heads: int) -> Tensor:
    """Each head in turn: softmax(q k / sqrt(width)) v."""
    features = x.shape[-1]
    width = features // heads
    q, k, v = linear(x, block.attention.qkv).split(features, dim=-1)
    mixed = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = torch.einsum("nle,nse->nls", q[..., part], k[..., part]) / math.sqrt(width)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        mixed.append(torch.einsum("nls,nse->nle", weights, v[..., part]))
    return linear(torch.cat(mixed, dim=-1), block.attention.proj)


def ada_ln_zero(x: Tensor, condition: Tensor, block: DiTBlock, heads: int) -> Tensor:
    """Section 3.2: x + alpha * layer((1 + gamma) * norm(x) + beta), twice."""
    features = x.shape[-1]
    rows = linear(condition, block.modulation)[:, None]
    beta1, gamma1, alpha1, beta2, gamma2, alpha2 = rows.split(features, dim=-1)
    x = x + alpha1 * self_attention((1 + gamma1) * layer_norm(x) + beta1, block, heads)
    hidden = gelu(linear((1 + gamma2) * layer_norm(x) + beta2, block.mlp.fc1))
    return x + alpha2 * linear(hidden, block.mlp.fc2)


@pytest.mark.parametrize("tokens", [9, 100])
def test_a_block_is_the_formula(tokens: int) -> None:
    torch.manual_seed(0)
    block = DiTBlock(16, 4, mlp_ratio=2.0, dropout=0.0, tokens=tokens)
    assert block.attention.fused_attn == (tokens > 64)
    shaken(block)
    x, condition = torch.randn(2, tokens, 16), torch.randn(2, 16)
    expected = ada_ln_zero(x, condition, block, 4)
    assert (expected - x).abs().max() > 0.1
    assert torch.allclose(block(x, condition), expected, rtol=1e-4, atol=1e-5)


def test_the_network_is_the_formula() -> None:
    dit = shaken(network())
    images, times, labels = inputs()
    condition = dit.embedding(times, labels)
    rows = []
    for row in range(4):
        for column in range(4):
            patch = images[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            token = torch.einsum("ncij,dcij->nd", patch, dit.embed.proj.weight)
            rows.append(token + dit.embed.proj.bias)
    x = torch.stack(rows, dim=1) + waves_of_places(4, 16)
    for block in dit.blocks:
        x = ada_ln_zero(x, condition, block, 2)
    beta, gamma = linear(condition, dit.modulation)[:, None].split(16, dim=-1)
    pixels = linear((1 + gamma) * layer_norm(x) + beta, dit.head)
    out = torch.empty_like(images)
    for place in range(16):
        row, column = divmod(place, 4)
        patch = pixels[:, place].view(-1, 3, 2, 2)
        out[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = patch
    assert torch.allclose(dit(images, times, labels), out, rtol=1e-4, atol=1e-5)


def waves_of_places(side: int, features: int) -> Tensor:
    """Sines and cosines of row and column, with wave lengths from 2 pi to nearly 2 pi * 10,000."""
    bands = [10_000 ** (-i / (features // 4)) for i in range(features // 4)]
    table = [
        [f(place * band) for f in (math.sin, math.cos) for place in (row, column) for band in bands]
        for row in range(side)
        for column in range(side)
    ]
    return torch.tensor(table)


# --- the start


def test_a_new_block_is_the_identity_and_a_new_network_predicts_zero() -> None:
    dit, (images, times, labels) = network(), inputs()
    x, condition = torch.randn(2, 16, 16), torch.randn(2, 16)
    for block in dit.blocks:
        assert torch.equal(block(x, condition), x)
    assert torch.equal(dit(images, times, labels), torch.zeros_like(images))
    assert not torch.equal(shaken(dit)(images, times, labels), torch.zeros_like(images))


# --- conditions


def test_time_label_image_and_level_change_the_prediction() -> None:
    dit = shaken(network(condition=3, levels=1))
    images, times, labels = inputs()
    small, level = torch.randn(2, 3, 8, 8), torch.tensor([0.1, 0.4])
    base = dit(images, times, labels, small, level)
    others = [
        dit(images, times + 50, labels, small, level),
        dit(images, times, labels + 1, small, level),
        dit(images, times, None, small, level),
        dit(images, times, labels, -small, level),
        dit(images, times, labels, small, level + 0.2),
    ]
    for other in others:
        assert (other - base).abs().max() > 1e-4
    null = torch.full_like(labels, 5)
    assert torch.equal(others[2], dit(images, times, null, small, level))


def test_places_are_distinguished() -> None:
    dit, (images, times, labels) = shaken(network()), inputs()
    moved = images.roll(2, dims=3)  # by one patch
    assert not torch.allclose(
        dit(moved, times, labels), dit(images, times, labels).roll(2, dims=3), atol=1e-3
    )


# --- errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch": 3}, "patches of 3 pixels do not tile an image of 8"),
        ({"heads": 3}, "3 attention heads do not divide 16 features"),
        ({"features": 18, "heads": 2}, "18 features are not a multiple of 4"),
    ],
)
def test_impossible_sizes_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(**settings)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="images of 8x6 for a network of 8 pixels"):
        network()(torch.zeros(1, 3, 8, 6), torch.zeros(1))
    with pytest.raises(ValueError, match="0 noise levels for a network with 1"):
        network(levels=1)(torch.zeros(1, 3, 8, 8), torch.zeros(1))


# --- compiled and recomputed by blocks


def test_blocks_share_compiled_code() -> None:
    dit = network(blocks=3)
    assert compile_network(dit, "dit-blocks") == 1
    assert [m._compiled_call_impl is not None for m in dit.blocks] == [True] * 3


def test_recomputed_blocks_have_the_same_gradients() -> None:
    images, times, labels = inputs()
    gradients = []
    for recomputes in (False, True):
        dit = shaken(network(dropout=0.2)).train()
        if recomputes:
            assert recompute_blocks(dit) == 2
        torch.manual_seed(3)
        dit(images, times, labels).square().sum().backward()
        gradients.append([p.grad for p in dit.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_the_units_of_a_division_are_the_blocks() -> None:
    dit = network()
    assert recomputed_blocks(dit) == list(dit.blocks)
