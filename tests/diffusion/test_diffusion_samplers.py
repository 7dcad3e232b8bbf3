"""DDPM and DDIM against diffusers, step by step, and against a case with a known answer."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusion_reference import (
    CASES,
    MEAN,
    NAMES,
    SCHEDULES,
    SHAPE,
    SPREAD,
    Refuses,
    Seeded,
    assert_close,
    even_path,
    float64_signal,
    gaussian,
    network,
    ours,
    spread_network,
    start,
)

from cascadezoo.diffusion.process import Prediction
from cascadezoo.diffusion.samplers import (
    CLEAN,
    SAMPLERS,
    Denoised,
    Level,
    SamplerOptions,
    ddim_coefficients,
    ddpm_coefficients,
    final,
    reverse_path,
)
from cascadezoo.diffusion.schedules import spaced_timesteps
from cascadezoo.stages.diffusion.config import DiffusionConfig


def reference(
    scheduler: Any, signal: list[float], *, learned: bool = False, **arguments: object
) -> tuple[list[int], list[torch.Tensor], list[torch.Tensor]]:
    """The timesteps that diffusers visits, its predictions and its states."""
    generator = torch.Generator().manual_seed(5)
    x, outputs, states = start(), [], []
    for timestep in scheduler.timesteps:
        time = int(timestep) / len(signal)
        output = network(x, time)
        outputs.append(output)
        if learned:
            output = torch.cat([output, spread_network(x, time)], dim=1)
        x = scheduler.step(output, timestep, x, generator=generator, **arguments).prev_sample
        states.append(x)
    return scheduler.timesteps.tolist(), outputs, states


@pytest.mark.parametrize(("schedule", "prediction"), CASES)
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("variance", ["small", "large", "learned"])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_ddpm_trajectories_are_those_of_diffusers(
    schedule: str, prediction: Prediction, clip: bool, variance: Any, spacing: Any
) -> None:
    signal = SCHEDULES[schedule]
    name = "learned_range" if variance == "learned" else f"fixed_{variance}"
    scheduler = DDPMScheduler(
        len(signal),
        prediction_type=NAMES[prediction],
        clip_sample=clip,
        variance_type=name,
        timestep_spacing=spacing,
    )
    float64_signal(scheduler, signal)
    scheduler.set_timesteps(20)
    visited, outputs, states = reference(scheduler, signal, learned=variance == "learned")
    assert visited == spaced_timesteps(len(signal), 20, spacing)
    options = SamplerOptions(variance=variance)
    # diffusers adds noise after the last step, other than the small, unless that starts at 0
    kept = 20 if variance == "small" or spacing == "leading" else 19
    mine = ours("ddpm", signal, visited, prediction, options=options, clip=clip)
    assert_close(mine[:kept], states[:kept], 1e-8)
    same = ours("ddpm", signal, visited, prediction, options=options, clip=clip, outputs=outputs)
    assert_close(same[:kept], states[:kept], 1e-8)


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_ddpm_supports_any_subset_of_timesteps(variance: Any) -> None:
    signal, chosen = SCHEDULES["linear"], [990, 800, 799, 321, 100, 7, 0]
    name = "learned_range" if variance == "learned" else f"fixed_{variance}"
    scheduler = DDPMScheduler(1000, variance_type=name, clip_sample=False)
    float64_signal(scheduler, signal)
    scheduler.set_timesteps(timesteps=chosen)
    _, _, states = reference(scheduler, signal, learned=variance == "learned")
    mine = ours("ddpm", signal, chosen, "eps", options=SamplerOptions(variance=variance))
    assert_close(mine, states, 1e-8)


@pytest.mark.parametrize(("schedule", "prediction"), CASES)
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_trajectories_are_those_of_diffusers(
    schedule: str, prediction: Prediction, clip: bool, eta: float
) -> None:
    signal = SCHEDULES[schedule]
    scheduler = DDIMScheduler(
        len(signal),
        prediction_type=NAMES[prediction],
        clip_sample=clip,
        timestep_spacing="trailing",
    )
    float64_signal(scheduler, signal)
    scheduler.set_timesteps(20)
    visited, outputs, states = reference(scheduler, signal, eta=eta, use_clipped_model_output=True)
    options = SamplerOptions(eta=eta)
    # diffusers leaves the root of a rounding error where eta is 1 and the signal 0
    assert_close(
        ours("ddim", signal, visited, prediction, options=options, clip=clip), states, 1e-7
    )
    same = ours("ddim", signal, visited, prediction, options=options, clip=clip, outputs=outputs)
    assert_close(same, states, 1e-7)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_single_precision_stays_within_1e_5_over_a_whole_trajectory(sampler: str) -> None:
    """Single precision compared with float64, which equals diffusers."""
    signal = SCHEDULES["zero-terminal"]
    path = reverse_path(signal, spaced_timesteps(100, 20))

    class Single(Seeded):
        def randn(self, *shape: int) -> torch.Tensor:
            return super().randn(*shape).float()

    def denoise(x: torch.Tensor, level: Level) -> Denoised:
        return Denoised(network(x, level.level).clamp(-1, 1))

    options = SamplerOptions(eta=0.5)
    run = SAMPLERS[sampler].run
    double = list(run(denoise, start(), path, Seeded(5), options))
    single = list(run(denoise, start().float(), path, Single(5), options))
    assert {state.dtype for state in single} == {torch.float32}
    assert_close([state.double() for state in single], double, 1e-5)


def test_ddim_with_eta_one_is_ddpm() -> None:
    for step in pairwise(reverse_path(SCHEDULES["linear"], spaced_timesteps(1000, 30))):
        assert ddim_coefficients(*step, 1.0) == pytest.approx(ddpm_coefficients(*step), abs=1e-12)


@pytest.mark.parametrize("coefficients", [ddpm_coefficients, ddim_coefficients])
def test_the_last_step_is_the_clean_image(coefficients: Any) -> None:
    last = Level(0.0, SCHEDULES["linear"][0])
    for option in {ddpm_coefficients: ["small", "large", "learned"], ddim_coefficients: [0, 1]}[
        coefficients
    ]:
        assert coefficients(last, CLEAN, option) == pytest.approx((1.0, 0.0, 0.0), abs=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "schedule"),
    [
        ("ddpm", SamplerOptions(), "linear"),
        ("ddpm", SamplerOptions(), "zero-terminal"),
        ("ddim", SamplerOptions(), "zero-terminal"),
        ("ddim", SamplerOptions(eta=0.7), "zero-terminal"),
        ("dpmpp-2m", SamplerOptions(), "zero-terminal"),
        ("heun", SamplerOptions(), "zero-terminal"),
        ("heun", SamplerOptions(), "cosine"),
    ],
)
@pytest.mark.parametrize("stop", [1.0, 0.6])
def test_gaussian_data_come_out_with_their_own_spread(
    name: str, options: SamplerOptions, schedule: str, stop: float
) -> None:
    """For x0 ~ N(0.3, 0.5**2) the best denoiser is known; sampling must give that back.

    Stopped early, it must give the same data with the noise of where it stopped.
    """
    signal = SCHEDULES[schedule]
    path = reverse_path(signal, list(reversed(range(len(signal)))), stop)
    noise = Seeded(1).randn(4000, 1, 1, 1)
    x = final(SAMPLERS[name].run(gaussian, noise, path, Seeded(2), options))
    assert x.mean().item() == pytest.approx(MEAN * stop**0.5, abs=0.03)
    wanted = (stop * SPREAD**2 + 1 - stop) ** 0.5
    assert x.std().item() == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize("fraction", [-1.0, 0.0, 1.0])
def test_a_learned_variance_lies_between_the_fixed_ones(fraction: float) -> None:
    def denoise(x: torch.Tensor, level: Level) -> Denoised:
        return Denoised(torch.zeros_like(x), torch.full_like(x, fraction))

    path = [Level(500.0, 0.2), Level(400.0, 0.4)]
    drawn = {}
    for variance in ("small", "large", "learned"):
        options = SamplerOptions(variance=variance)  # type: ignore[arg-type]
        zero = torch.zeros(SHAPE, dtype=torch.float64)
        drawn[variance] = final(SAMPLERS["ddpm"].run(denoise, zero, path, Seeded(1), options))
    # geometrically: the mean of the logarithms of the variances
    share = (fraction + 1) / 2
    wanted = (drawn["small"] / drawn["large"]) ** (1 - share) * drawn["large"]
    assert torch.allclose(drawn["learned"], wanted, rtol=1e-12, atol=0)


def test_a_learned_variance_needs_a_spread() -> None:
    run = SAMPLERS["ddpm"].run(
        gaussian, start(), even_path(3, 0.9, 0.1), Seeded(1), SamplerOptions(variance="learned")
    )
    with pytest.raises(ValueError, match="spread"):
        final(run)


def test_samplers_can_be_stopped() -> None:
    calls = []

    def denoise(x: torch.Tensor, level: Level) -> Denoised:
        calls.append(level.time)
        return Denoised(x)

    path = reverse_path(SCHEDULES["linear"], [999, 500, 0])
    states = SAMPLERS["ddim"].run(denoise, start(), path, Seeded(1), SamplerOptions())
    next(states)
    assert calls == [999]


def test_final_shows_every_state_and_gives_the_last() -> None:
    path = even_path(4, 0.9, 0.1)
    run = SAMPLERS["ddpm"].run
    wanted = list(run(gaussian, start(), path, Seeded(1), SamplerOptions()))
    seen: list[torch.Tensor] = []
    last = final(run(gaussian, start(), path, Seeded(1), SamplerOptions()), seen.append)
    assert len(seen) == 4
    assert all(torch.equal(got, want) for got, want in zip(seen, wanted, strict=True))
    assert torch.equal(last, wanted[-1])
    with pytest.raises(ValueError, match="steps"):
        final(iter(()))


@pytest.mark.parametrize("name", ["ddim", "dpmpp-2m", "heun"])
def test_deterministic_samplers_draw_no_noise(name: str) -> None:
    path = even_path(5, 0.9, 0.1)
    final(SAMPLERS[name].run(gaussian, start(), path, Refuses(), SamplerOptions()))


def test_ddim_with_eta_draws_noise() -> None:
    with pytest.raises(RuntimeError, match="drew noise"):
        final(
            SAMPLERS["ddim"].run(
                gaussian, start(), even_path(5, 0.9, 0.1), Refuses(), SamplerOptions(eta=0.1)
            )
        )


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("steps", [1, 7, 20])
def test_samplers_call_the_denoiser_as_often_as_stated(name: str, steps: int) -> None:
    calls = []

    def denoise(x: torch.Tensor, level: Level) -> Denoised:
        calls.append(level)
        return gaussian(x, level)

    path = reverse_path(SCHEDULES["linear"], spaced_timesteps(1000, steps, "trailing"))
    final(SAMPLERS[name].run(denoise, start(), path, Seeded(1), SamplerOptions()))
    assert len(calls) == SAMPLERS[name].evaluations(steps)


def test_the_config_names_every_sampler() -> None:
    assert set(get_args(DiffusionConfig.model_fields["sampler"].annotation)) == set(SAMPLERS)
