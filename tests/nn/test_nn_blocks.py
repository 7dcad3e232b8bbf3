"""Embeddings, residual blocks, attention and sub-pixel convolution."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding
from hypothesis import given
from hypothesis import strategies as st

from cascadezoo.nn.attention import FEW_TOKENS, CrossAttention, SelfAttention, attend
from cascadezoo.nn.embeddings import (
    ConditionEmbedding,
    FourierEmbedding,
    LabelTable,
    sinusoidal_embedding,
)
from cascadezoo.nn.resnet import BottleneckBlock, Norm, ResidualBlock
from cascadezoo.nn.sizes import divisor_near, factor_steps, multiple_of, unet_resolutions
from cascadezoo.nn.upsample import PixelShuffleUp
from cascadezoo.util.rng import Draw


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """The module without weights of zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


@pytest.mark.parametrize("width", [8, 32, 33])
def test_sinusoidal_embedding_is_that_of_diffusers(width: int) -> None:
    times = torch.tensor([0.0, 1.0, 17.0, 999.0])
    reference = get_timestep_embedding(
        times, width, flip_sin_to_cos=True, downscale_freq_shift=0, max_period=10_000
    )
    assert torch.allclose(sinusoidal_embedding(times, width), reference, rtol=0, atol=1e-6)


def test_fourier_frequencies_are_saved_and_bounded() -> None:
    embedding = FourierEmbedding(6)
    assert set(embedding.state_dict()) == {"frequencies"}
    out = embedding(torch.tensor([0.0, 0.5]))
    assert torch.equal(out[0], torch.tensor([1.0, 1, 1, 0, 0, 0]))
    assert torch.allclose(out[:, :3] ** 2 + out[:, 3:] ** 2, torch.ones(2, 3))
    with pytest.raises(ValueError, match="5"):
        FourierEmbedding(5)


def test_no_label_is_the_null_label() -> None:
    embedding = ConditionEmbedding(8, 16, num_classes=3)
    times = torch.tensor([0.0, 5.0])
    null = embedding(times, torch.tensor([3, 3]))
    assert torch.allclose(embedding(times), null, rtol=0, atol=1e-6)
    assert not torch.allclose(embedding(times, torch.tensor([0, 1])), null, atol=1e-3)


def test_a_label_table_has_a_row_for_no_label() -> None:
    table = LabelTable(3, 2, 5)
    out = table(torch.tensor([1, 3, 1]), 3)
    assert out.shape == (3, 2, 5)
    assert torch.equal(out[0], out[2])
    assert not torch.equal(out[0], out[1])
    assert torch.equal(table(None, 4), out[1].expand(4, 2, 5))


def test_further_noise_levels_have_embeddings_of_their_own() -> None:
    embedding = ConditionEmbedding(8, 16, levels=2)
    times, level = torch.tensor([0.0, 5.0]), torch.tensor([[0.5, 0.25], [1.0, 0.0]])
    waves = [sinusoidal_embedding(1000 * level[:, i], 8) for i in range(2)]
    expected = embedding.time(sinusoidal_embedding(times, 8)) + sum(
        perceptron(wave) for perceptron, wave in zip(embedding.levels, waves, strict=True)
    )
    assert torch.allclose(embedding(times, level=level), F.silu(expected), rtol=0, atol=1e-6)
    assert not torch.allclose(embedding(times, level=level.flip(1)), F.silu(expected), atol=1e-3)
    # bfloat16 cannot distinguish 1000 * 0.999 from 1000
    coarse = embedding(times, level=level.bfloat16())
    assert torch.allclose(coarse, F.silu(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("levels", "level"),
    [(0, torch.zeros(2)), (1, None), (1, torch.zeros(2, 2)), (2, torch.zeros(2))],
)
def test_a_wrong_number_of_noise_levels_is_rejected(
    levels: int, level: torch.Tensor | None
) -> None:
    embedding = ConditionEmbedding(8, 16, levels=levels)
    with pytest.raises(ValueError, match=f"with {levels}$"):
        embedding(torch.zeros(2), level=level)


@given(channels=st.integers(1, 2048))
def test_groups_always_divide_the_channels(channels: int) -> None:
    with torch.device("meta"):
        groups = Norm(channels).num_groups
    assert channels % groups == 0
    assert 1 <= groups <= 32
    assert groups == 1 or channels // groups >= 4


@given(number=st.integers(1, 5000), most=st.integers(1, 200))
def test_divisor_near_is_the_largest(number: int, most: int) -> None:
    divisors = [d for d in range(1, min(number, most) + 1) if number % d == 0]
    assert divisor_near(number, most) == divisors[-1]


@given(size=st.integers(1, 10_000), factor=st.integers(1, 128))
def test_multiple_of_is_the_next(size: int, factor: int) -> None:
    padded = multiple_of(size, factor)
    assert padded % factor == 0
    assert size <= padded < size + factor


def test_resolutions_are_those_of_the_padded_image() -> None:
    assert unet_resolutions(32, 4) == [32, 16, 8, 4]
    assert unet_resolutions(28, 4) == [32, 16, 8, 4]
    assert unet_resolutions(28, 3) == [28, 14, 7]
    assert unet_resolutions(1, 1) == [1]


def test_norm_is_float32_under_autocast() -> None:
    x = Draw(0).randn(2, 8, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        out = Norm(8)(x.bfloat16())
    assert out.dtype == torch.float32
    assert torch.allclose(out, F.group_norm(x.bfloat16().float(), 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "block",
    [
        lambda: ResidualBlock(8, 8),
        lambda: ResidualBlock(8, 8, time=16),
        lambda: ResidualBlock(8, 8, time=16, scale_shift=False, dropout=0.3),
        lambda: BottleneckBlock(8, 2),
        lambda: SelfAttention(8),
        lambda: CrossAttention(8, 16),
    ],
)
def test_fresh_blocks_pass_their_input_on(block: object) -> None:
    module = block()  # type: ignore[operator]
    x = Draw(0).randn(2, 8, 6, 6)
    result = [Draw(1).randn(2, 16)] if getattr(module, "time", None) is not None else []
    if isinstance(module, CrossAttention):
        result = [Draw(1).randn(2, 3, 16)]
    assert torch.equal(module(x, *result), x)
    assert not torch.allclose(shaken(module)(x, *result), x, atol=1e-2)


@pytest.mark.parametrize("scale_shift", [True, False])
def test_the_time_changes_the_output_of_a_residual_block(scale_shift: bool) -> None:
    block = shaken(ResidualBlock(8, 12, time=4, scale_shift=scale_shift))
    x, time = Draw(0).randn(2, 8, 6, 6), Draw(1).randn(2, 4)
    out = block(x, time)
    assert out.shape == (2, 12, 6, 6)
    assert (out - block(x, time + 1)).abs().max() > 1e-3


@pytest.mark.parametrize("tokens", [FEW_TOKENS, FEW_TOKENS + 1])
def test_attention_is_the_same_by_either_way(tokens: int) -> None:
    query, key, value = (Draw(i).randn(2, 3, tokens, 8).double() for i in range(3))
    reference = F.scaled_dot_product_attention(query, key, value)
    assert torch.allclose(attend(query, key, value), reference, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("channels", "heads"), [(16, 1), (64, 2), (96, 3), (67, 1)])
def test_heads_divide_the_channels(channels: int, heads: int) -> None:
    assert SelfAttention(channels).heads == CrossAttention(channels, 4).heads == heads


@pytest.mark.parametrize("make", [SelfAttention, lambda c, **kw: CrossAttention(c, 4, **kw)])
def test_heads_must_divide_the_channels(make: Callable[..., SelfAttention]) -> None:
    assert make(24, heads=6).heads == 6
    with pytest.raises(ValueError, match=r"5 .* 24"):
        make(24, heads=5)


@pytest.mark.parametrize("heads", [1, 3])
def test_cross_attention_is_that_of_torch(heads: int) -> None:
    ours = shaken(CrossAttention(12, 5, heads=heads))
    reference = torch.nn.MultiheadAttention(12, heads, kdim=5, vdim=5, batch_first=True)
    weight, bias = ours.key_value.weight, ours.key_value.bias
    with torch.no_grad():
        reference.q_proj_weight.copy_(ours.query.weight)
        reference.k_proj_weight.copy_(weight[:12])
        reference.v_proj_weight.copy_(weight[12:])
        reference.in_proj_bias.copy_(torch.cat([ours.query.bias, bias]))
        reference.out_proj.load_state_dict(ours.out.state_dict())
    x, tokens = Draw(0).randn(2, 12, 4, 3), Draw(1).randn(2, 7, 5)
    positions = ours.norm(x).flatten(2).transpose(1, 2)
    mixed, _ = reference(positions, tokens, tokens)
    expected = x + mixed.transpose(1, 2).reshape(x.shape)
    assert torch.allclose(ours(x, tokens), expected, rtol=0, atol=1e-5)


def test_attention_connects_all_positions() -> None:
    attention = shaken(SelfAttention(8))
    x = Draw(0).randn(1, 8, 10, 10).requires_grad_()
    attention(x)[0, :, 0, 0].sum().backward()
    assert x.grad is not None
    assert (x.grad[0, :, 9, 9] != 0).any()


@pytest.mark.parametrize("factor", [2, 3])
def test_pixel_shuffle_starts_as_nearest_neighbour(factor: int) -> None:
    up = PixelShuffleUp(4, 5, factor)
    x = Draw(0).randn(2, 4, 6, 6)
    out = up(x)
    assert out.shape == (2, 5, 6 * factor, 6 * factor)
    blocks = F.interpolate(out[..., ::factor, ::factor], scale_factor=factor, mode="nearest")
    assert torch.allclose(out, blocks, rtol=0, atol=1e-6)


@given(factor=st.integers(2, 64))
def test_factor_steps_multiply_to_the_factor(factor: int) -> None:
    steps = factor_steps(factor)
    product = 1
    for step in steps:
        product *= step
        assert all(step % smaller for smaller in range(2, step))
    assert product == factor
    assert steps == sorted(steps)
