"""The noise schedule of sampling is chosen after the training (Ho et al. 2021, section 4.4)."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import get_args

import pytest
import torch
from errors_help import raises
from stage_cases import SMALL, Case, request

from cascadezoo.diffusion.schedules import SamplingSchedule
from cascadezoo.errors import SampleError
from cascadezoo.spec.configs import ImageShape

SHAPE = ImageShape(3, 12)
CONTINUOUS = Case(
    "unet-diffusion.v1",
    {
        "channels": 8,
        "timesteps": 1000,
        "prediction": "v",
        "noise_conditioning": "continuous",
        "steps": 4,
    },
)
SCHEDULES = get_args(SamplingSchedule)


def config(kind: str = "unet-diffusion.v1", **settings):
    case = dataclasses.replace(SMALL[kind], settings={**SMALL[kind].settings, **settings})
    return case.config()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("zero", [False, True])
def test_a_network_of_timesteps_visits_trained_ones_once(schedule, zero):
    fitted = config(timesteps=200, schedule="cosine", prediction="v", zero_terminal_snr=zero)
    signal = fitted.signal()
    for steps in (1, 5, 50, 200):
        path = fitted.sampling_path(SHAPE, steps, schedule=schedule)
        visited = [level.time for level in path[:-1]]
        assert visited[0] == 199
        assert all(before > after for before, after in pairwise(visited))
        assert [level.signal for level in path[:-1]] == [signal[int(time)] for time in visited]
        assert path[-1].signal == 1
        assert len(visited) <= steps
    assert len(fitted.sampling_path(SHAPE, 5, schedule=schedule)) == 6


def test_the_config_is_the_default():
    fitted = config(timesteps=200, sampling_schedule="karras", steps=10)
    requested = config(timesteps=200).sampling_path(SHAPE, 10, schedule="karras")
    assert fitted.sampling_path(SHAPE) == requested
    assert fitted.sampling_path(SHAPE) != fitted.sampling_path(SHAPE, schedule="trained")
    assert fitted.first_signal(SHAPE) == fitted.signal()[-1]


@torch.no_grad()
def test_samples_follow_the_schedule():
    stage = CONTINUOUS.stage().eval()
    images = {
        name: stage.sample(None, request(CONTINUOUS, 0, 2, options={"sampling_schedule": name}))
        for name in SCHEDULES
    }
    default = stage.sample(None, request(CONTINUOUS, 0, 2))
    assert torch.equal(images["trained"], default)
    # Trained on DDPM's linear schedule, whose levels these are.
    assert torch.allclose(images["linear"], default, atol=1e-4)
    for name in ("cosine", "karras", "log-snr"):
        assert not torch.allclose(images[name], default, atol=1e-2), name

    tuned = dataclasses.replace(
        CONTINUOUS, settings={**CONTINUOUS.settings, "sampling_schedule": "karras"}
    )
    assert torch.equal(
        tuned.stage().eval().sample(None, request(CONTINUOUS, 0, 2)), images["karras"]
    )


def test_the_cost_counts_the_visited_timesteps():
    settings = {**SMALL["unet-diffusion.v1"].settings, "sampling_schedule": "karras"}
    stage = dataclasses.replace(SMALL["unet-diffusion.v1"], settings=settings).stage()
    path = stage.config.sampling_path(stage.geometry.output)
    assert stage.network_evaluations() == len(path) - 1 < stage.config.timesteps


def test_unknown_schedules_are_refused():
    stage = CONTINUOUS.stage().eval()
    for name in ("magic", 3):
        with raises(SampleError, "sample-schedule-unknown", name=name):
            stage.sample(None, request(CONTINUOUS, 0, 1, options={"sampling_schedule": name}))
