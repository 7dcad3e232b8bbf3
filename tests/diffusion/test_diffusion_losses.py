"""Min-SNR weights and the variational bound against naive implementations."""

from __future__ import annotations

import math

import pytest
import torch
from diffusion_reference import NAMES, SCHEDULES
from torch.distributions import Normal, kl_divergence

from cascadezoo.diffusion.losses import (
    min_snr_weights,
    posterior_table,
    vlb_term,
)
from cascadezoo.diffusion.process import add_noise, noise_table, rates_at
from cascadezoo.diffusion.schedules import alphas_cumprod


@pytest.mark.parametrize("prediction", NAMES)
@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weights_are_the_papers(prediction: str, gamma: float) -> None:
    signal = torch.tensor(SCHEDULES["linear"], dtype=torch.float64).view(-1, 1, 1, 1)
    got = min_snr_weights(signal.sqrt(), (1 - signal).sqrt(), prediction, gamma)  # type: ignore[arg-type]
    snr = signal / (1 - signal)
    clamped = torch.minimum(snr, torch.full_like(snr, gamma))
    wanted = {"x0": clamped, "eps": clamped / snr, "v": clamped / (snr + 1)}[prediction]
    assert got.shape == snr.shape
    assert torch.allclose(got, wanted, rtol=1e-9, atol=0)


def test_min_snr_weights_give_one_loss_for_all_predictions() -> None:
    """At the same error of x0, the three weighted squared errors are equal."""
    alpha, sigma = rates_at(
        noise_table(SCHEDULES["linear"], torch.float64), torch.tensor([3, 300, 800])
    )
    error = 0.37
    eps_error, v_error = error * alpha / sigma, error / sigma
    weighted = [
        min_snr_weights(alpha, sigma, prediction) * wrong**2
        for prediction, wrong in (("x0", error), ("eps", eps_error), ("v", v_error))
    ]
    assert torch.allclose(weighted[0], weighted[1], rtol=1e-9, atol=0)
    assert torch.allclose(weighted[0], weighted[2], rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("prediction", "wanted"), [("eps", [0.0, 1.0]), ("x0", [5.0, 0.0]), ("v", [0.0, 0.0])]
)
def test_min_snr_weights_are_finite_at_both_ends(prediction: str, wanted: list[float]) -> None:
    alpha, sigma = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert min_snr_weights(alpha, sigma, prediction).tolist() == wanted  # type: ignore[arg-type]


def naive_term(
    signal: list[float],
    t: int,
    x0: torch.Tensor,
    x_t: torch.Tensor,
    estimate: torch.Tensor,
    spread: torch.Tensor,
) -> torch.Tensor:
    """A term of the bound for one timestep, from the papers' formulas."""
    betas = [1 - now / before for now, before in zip(signal, [1.0, *signal], strict=False)]
    before = signal[t - 1] if t else 1.0

    def posterior_mean(clean: torch.Tensor) -> torch.Tensor:
        return (
            math.sqrt(before) * betas[t] * clean + math.sqrt(1 - betas[t]) * (1 - before) * x_t
        ) / (1 - signal[t])

    def posterior_variance(t: int) -> float:
        return (1 - signal[t - 1]) / (1 - signal[t]) * betas[t]

    smallest = posterior_variance(max(t, 1))
    share = (spread + 1) / 2
    variance = betas[t] ** share * smallest ** (1 - share)
    model = Normal(posterior_mean(estimate), variance.sqrt())
    if t > 0:
        true = Normal(posterior_mean(x0), torch.tensor(smallest, dtype=x0.dtype).sqrt())
        nats = kl_divergence(true, model)
    else:
        above = model.cdf(x0 + 1 / 255)
        below = model.cdf(x0 - 1 / 255)
        above = torch.where(x0 >= 254.9 / 255, torch.ones_like(above), above)
        below = torch.where(x0 <= -254.9 / 255, torch.zeros_like(below), below)
        nats = -torch.log(above - below)
    return nats.mean(dim=(1, 2, 3)) / math.log(2)


def batch(
    signal: list[float], timesteps: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Byte-valued clean images, noised ones, near estimates of x0, and spreads."""
    generator = torch.Generator().manual_seed(0)
    shape = (len(timesteps), 3, 6, 6)
    x0 = torch.randint(0, 256, shape, generator=generator).double() / 127.5 - 1
    x0[:, :, 0] = -1.0
    x0[:, :, 1] = 1.0
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    x_t = add_noise(x0, noise, *rates_at(noise_table(signal, torch.float64), timesteps))
    estimate = x0 + 0.01 * torch.randn(shape, generator=generator, dtype=torch.float64)
    spread = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
    return x0, x_t, estimate, spread


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_the_bound_is_the_naive_one(schedule: str) -> None:
    signal = SCHEDULES[schedule]
    timesteps = torch.tensor([0, 1, 2, len(signal) // 2, len(signal) - 1, 0])
    images = batch(signal, timesteps)
    got = vlb_term(*images, posterior_table(signal, torch.float64), timesteps)
    wanted = torch.cat(
        [
            naive_term(signal, int(t), *(i[n : n + 1] for i in images))
            for n, t in enumerate(timesteps)
        ]
    )
    assert got.shape == (6,)
    assert torch.allclose(got, wanted, rtol=1e-6, atol=1e-9)
    single = vlb_term(*(i.float() for i in images), posterior_table(signal), timesteps)
    assert torch.allclose(single.double(), wanted, rtol=1e-3, atol=1e-3)


def test_a_perfect_model_pays_nothing_after_the_first_timestep() -> None:
    signal = SCHEDULES["linear"]
    timesteps = torch.tensor([1, 500, 999])
    x0, x_t, _, spread = batch(signal, timesteps)
    table = posterior_table(signal, torch.float64)
    perfect = vlb_term(x0, x_t, x0, torch.full_like(spread, -1.0), table, timesteps)
    assert perfect.tolist() == pytest.approx([0.0] * 3, abs=1e-10)
    assert (vlb_term(x0, x_t, x0, spread, table, timesteps) > 0).all()


def test_pixels_have_a_probability_that_adds_up_to_one() -> None:
    """The likelihoods of all 256 values of one pixel, under the same model."""
    signal = SCHEDULES["linear"]
    x0 = (torch.arange(256, dtype=torch.float64) / 127.5 - 1).view(256, 1, 1, 1)
    estimate, spread = torch.full_like(x0, 0.2), torch.zeros_like(x0)
    term = vlb_term(
        x0,
        torch.full_like(x0, 0.2),
        estimate,
        spread,
        posterior_table(signal, torch.float64),
        torch.zeros(256, dtype=torch.int64),
    )
    likely = term < 30  # the smallest distinguishable likelihood is 1e-12
    assert (2 ** -term[likely]).sum().item() == pytest.approx(1.0, abs=1e-9)


def test_the_bound_trains_the_variance_alone() -> None:
    signal = SCHEDULES["cosine"]
    timesteps = torch.tensor([0, 100, 199])
    x0, x_t, estimate, spread = batch(signal, timesteps)
    estimate.requires_grad_()
    spread.requires_grad_()
    vlb_term(
        x0, x_t, estimate, spread, posterior_table(signal, torch.float64), timesteps
    ).sum().backward()
    assert estimate.grad is None
    assert spread.grad is not None
    assert torch.isfinite(spread.grad).all()
    assert (spread.grad.abs().amax(dim=(1, 2, 3)) > 0).all()


def test_a_far_estimate_is_finite_in_single_precision() -> None:
    signal = SCHEDULES["linear"]
    timesteps = torch.tensor([0, 1, 999])
    x0, x_t, _, spread = (i.float() for i in batch(signal, timesteps))
    far = torch.full_like(x0, 50.0)
    spread = spread.clone().requires_grad_()
    term = vlb_term(x0, x_t, far, spread, posterior_table(signal), timesteps)
    term.sum().backward()
    assert torch.isfinite(term).all()
    assert torch.isfinite(spread.grad).all()


def test_a_schedule_of_one_timestep_has_a_table() -> None:
    table = posterior_table(alphas_cumprod([0.5]))
    assert torch.isfinite(table).all()
    assert table[0, 2] == table[0, 3] == pytest.approx(math.log(0.5))
