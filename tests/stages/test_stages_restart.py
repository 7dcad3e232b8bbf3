"""Re-noising of finished samples and a second run of the sampler (Ho et al. 2021, section 4.2)."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from errors_help import raises
from stage_cases import SMALL, Case, request

from cascadezoo.diffusion.levels import restart_path, reverse_path
from cascadezoo.diffusion.schedules import alphas_cumprod, cosine_betas, level_of
from cascadezoo.errors import SampleError
from cascadezoo.spec.configs import ConfigError
from cascadezoo.stages.base import Edit
from cascadezoo.util.rng import ImageDraw

T = 8
SETTINGS = {"channels": 8, "timesteps": T, "schedule": "cosine", "prediction": "v"}
CASES = {
    "unet-diffusion.v1": Case("unet-diffusion.v1", SETTINGS),
    "diffusion-sr.v1": Case("diffusion-sr.v1", {**SETTINGS, "s": 0.0}),
}
kinds = pytest.mark.parametrize("case", CASES.values(), ids=str)
BETAS = cosine_betas(T)
SIGNAL = alphas_cumprod(BETAS)


def ancestral(network, x, steps, draw):
    """Ho et al. 2020, algorithm 2 with equation 7, from timestep ``steps[0]`` to the image."""
    for t in steps:
        kept = SIGNAL[t]
        before = SIGNAL[t - 1] if t else 1.0
        v = network(x, torch.full((len(x),), float(t)))
        x0 = (math.sqrt(kept) * x - math.sqrt(1 - kept) * v).clamp(-1, 1)
        beta = BETAS[t]
        x = math.sqrt(before) * beta / (1 - kept) * x0 + (
            math.sqrt(1 - beta) * (1 - before) / (1 - kept) * x
        )
        if t:
            x = x + math.sqrt((1 - before) / (1 - kept) * beta) * draw.randn(*x.shape)
    return x


@kinds
@torch.no_grad()
def test_equals_a_plain_loop(case: Case) -> None:
    stage = case.stage().eval()
    upstream, timestep = case.upstream(3), 4
    level = level_of(SIGNAL[timestep])
    ours = stage.sample(upstream, request(case, 0, 3, options={"restart": level}))

    draw, labels = ImageDraw(7, case.kind, 0, 3), case.labels(3)
    conditions = stage.sampling_conditions(upstream, request(case, 0, 3))

    def network(x, times):
        return stage.network(x, times, labels, *conditions)

    start = draw.randn(3, 3, case.size, case.size)
    image = ancestral(network, start, range(T - 1, -1, -1), draw).clamp(-1, 1)
    assert torch.allclose(stage.sample(upstream, request(case, 0, 3)), image, atol=1e-5)
    noise = draw.randn(*image.shape)
    noised = math.sqrt(SIGNAL[timestep]) * image + math.sqrt(1 - SIGNAL[timestep]) * noise
    again = ancestral(network, noised, range(timestep, -1, -1), draw).clamp(-1, 1)
    assert not torch.allclose(ours, image, atol=1e-2)
    assert torch.allclose(ours, again, atol=1e-5)


@torch.no_grad()
def test_the_config_sets_the_default_and_its_cost() -> None:
    case = CASES["unet-diffusion.v1"]
    restarted = dataclasses.replace(case, settings={**SETTINGS, "restart": 0.5})
    stage, plain = restarted.stage().eval(), case.stage().eval()
    requested = plain.sample(None, request(case, 0, 2, options={"restart": 0.5}))
    assert torch.equal(stage.sample(None, request(case, 0, 2)), requested)
    off = stage.sample(None, request(case, 0, 2, options={"restart": 0.0}))
    assert torch.equal(off, plain.sample(None, request(case, 0, 2)))

    seen: list[torch.Tensor] = []
    stage.sample(None, request(case, 0, 2, watch=lambda state: seen.append(state)))
    below = sum(level_of(kept) <= 0.5 for kept in SIGNAL)
    assert len(seen) == T + below
    assert stage.network_evaluations() == T + below
    assert plain.network_evaluations() == T


@torch.no_grad()
def test_a_truncated_stage_stops_in_the_second_run() -> None:
    case = CASES["unet-diffusion.v1"]
    stage = case.stage().eval()
    states: list[torch.Tensor] = []
    options = {"restart": 0.9, "stop": SIGNAL[2]}
    stage.sample(None, request(case, 0, 2, options=options, watch=states.append))
    again = sum(SIGNAL[2] > kept >= math.sin(0.1 * math.pi / 2) ** 2 for kept in SIGNAL)
    assert len(states) == T + again
    with raises(SampleError, "sample-restart-too-low", value=0.1):
        stage.sample(None, request(case, 0, 2, options={"restart": 0.1, "stop": SIGNAL[4]}))


def test_restarts_that_do_nothing_are_refused() -> None:
    case = CASES["unet-diffusion.v1"]
    with pytest.raises(ConfigError, match="the last step of sampling starts at noise level"):
        dataclasses.replace(case, settings={**SETTINGS, "restart": 0.01}).config()
    stage = case.stage().eval()
    with raises(SampleError, "sample-fraction-invalid", name="restart"):
        stage.sample(None, request(case, 0, 2, options={"restart": 1.5}))
    edit = Edit(torch.zeros(2, 3, case.size, case.size), strength=0.5)
    with raises(SampleError, "sample-restart-edit"):
        stage.sample(None, request(case, 0, 2, options={"restart": 0.5}, edit=edit))


def test_the_papers_level_is_its_timestep() -> None:
    """Level 0.504 restarts at timestep 2000 of 4000 of the cosine schedule."""
    signal = alphas_cumprod(cosine_betas(4000))
    path = reverse_path(signal, range(3999, -1, -1))
    again = restart_path(path, 0.504)
    assert (again[0].time, len(again)) == (1999.0, 2001)


def test_a_flow_does_not_support_it() -> None:
    for kind in ("flow.v1", "flow-sr.v1", "autoencoder.v1"):
        assert "restart" not in SMALL[kind].stage().sampling_options
