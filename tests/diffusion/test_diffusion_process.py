"""The forward process compared with diffusers, and inverse conversions."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from cascadezoo.diffusion.process import (
    Prediction,
    add_noise,
    dynamic_threshold,
    eps_from_v,
    eps_from_x0,
    noise_table,
    prediction_target,
    rates_at,
    v_from_x0_eps,
    x0_from_eps,
    x0_from_prediction,
    x0_from_v,
)
from cascadezoo.diffusion.schedules import (
    alphas_cumprod,
    cosine_betas,
    linear_betas,
    rescale_zero_terminal_snr,
)


def images(seed: int, count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 5, 5, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("zero_terminal", [False, True])
def test_noising_and_velocity_are_those_of_diffusers(zero_terminal: bool) -> None:
    reference = DDPMScheduler(100, rescale_betas_zero_snr=zero_terminal)
    betas = linear_betas(100)
    signal = alphas_cumprod(rescale_zero_terminal_snr(betas) if zero_terminal else betas)
    times = torch.tensor([0, 13, 60, 99])
    # diffusers keeps a last signal of 2**-24 where it rescales itself
    reference.alphas_cumprod = torch.tensor(signal, dtype=torch.float64)
    alpha, sigma = rates_at(noise_table(signal, torch.float64), times)
    x0, eps = images(1), images(2)
    ours = add_noise(x0, eps, alpha, sigma)
    assert torch.allclose(ours, reference.add_noise(x0, eps, times), rtol=0, atol=1e-12)
    velocity = v_from_x0_eps(x0, eps, alpha, sigma)
    assert torch.allclose(velocity, reference.get_velocity(x0, eps, times), rtol=0, atol=1e-12)


@given(angle=st.floats(0.01, math.pi / 2 - 0.01), seed=st.integers(0, 1000))
def test_conversions_are_inverse(angle: float, seed: int) -> None:
    alpha, sigma = math.cos(angle), math.sin(angle)
    x0, eps = images(seed), images(seed + 1)
    x_t = add_noise(x0, eps, alpha, sigma)
    v = v_from_x0_eps(x0, eps, alpha, sigma)
    for got, wanted in [
        (x0_from_eps(x_t, eps, alpha, sigma), x0),
        (eps_from_x0(x_t, x0, alpha, sigma), eps),
        (x0_from_v(x_t, v, alpha, sigma), x0),
        (eps_from_v(x_t, v, alpha, sigma), eps),
    ]:
        assert torch.allclose(got, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_a_perfect_prediction_gives_the_clean_image(prediction: Prediction) -> None:
    table = noise_table(alphas_cumprod(cosine_betas(20)), torch.float64)
    alpha, sigma = rates_at(table, torch.tensor([0, 5, 12, 18]))
    x0, eps = images(3), images(4)
    target = prediction_target(prediction, x0, eps, alpha, sigma)
    x_t = add_noise(x0, eps, alpha, sigma)
    got = x0_from_prediction(prediction, x_t, target, alpha, sigma)
    assert torch.allclose(got, x0, rtol=0, atol=1e-10)


def test_at_zero_terminal_snr_only_eps_is_lost() -> None:
    table = noise_table(alphas_cumprod(rescale_zero_terminal_snr(linear_betas(25))))
    alpha, sigma = rates_at(table, torch.tensor([24, 24, 24, 24]))
    assert alpha.flatten().tolist() == [0.0] * 4
    assert sigma.flatten().tolist() == [1.0] * 4
    x0, eps = images(5).float(), images(6).float()
    x_t = add_noise(x0, eps, alpha, sigma)
    assert torch.equal(x_t, eps)
    assert torch.allclose(x0_from_v(x_t, v_from_x0_eps(x0, eps, alpha, sigma), alpha, sigma), x0)
    assert not torch.isfinite(x0_from_eps(x_t, eps, alpha, sigma)).any()


def test_the_table_is_rounded_once_and_made_on_the_cpu() -> None:
    signal = alphas_cumprod(linear_betas(1000))
    with torch.device("meta"):
        table = noise_table(signal)
    assert table.device.type == "cpu"
    exact = noise_table(signal, torch.float64)
    assert torch.equal(table, exact.float())
    assert torch.allclose(exact.square().sum(1), torch.ones(1000, dtype=torch.float64))


@pytest.mark.parametrize("ratio", [0.9, 0.995, 1.0])
@pytest.mark.parametrize("scale", [0.3, 1.0, 20.0])
def test_dynamic_thresholding_is_that_of_diffusers(ratio: float, scale: float) -> None:
    reference = DDPMScheduler(
        100, thresholding=True, dynamic_thresholding_ratio=ratio, sample_max_value=1e9
    )
    x0 = (scale * images(3)).float()
    ours = dynamic_threshold(x0, ratio)
    assert torch.allclose(ours, reference._threshold_sample(x0), rtol=0, atol=1e-6)
    assert ours.abs().max() <= 1
    half = dynamic_threshold(x0.bfloat16(), ratio)
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), ours, atol=0.02)
