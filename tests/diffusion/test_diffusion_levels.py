"""Noise levels with and without a schedule, and the paths of samplers."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from diffusion_reference import SCHEDULES
from hypothesis import given
from hypothesis import strategies as st

from cascadezoo.diffusion.levels import CLEAN, Level, reverse_path
from cascadezoo.diffusion.process import continuous_rates, level_rates, noise_table
from cascadezoo.diffusion.schedules import level_of, signal_of, spaced_timesteps, timestep_of

LINEAR = SCHEDULES["linear"]


@given(st.floats(0, 1))
def test_level_and_signal_are_inverse(level: float) -> None:
    signal = signal_of(level)
    assert 0 <= signal <= 1
    # near the ends, the smaller variance is rounded
    assert level_of(signal) == pytest.approx(level, abs=1e-7)
    assert Level(0.0, signal).alpha == pytest.approx(math.cos(math.pi / 2 * level), abs=1e-12)
    assert Level(0.0, signal).sigma == pytest.approx(math.sin(math.pi / 2 * level), abs=1e-7)


def test_the_ends_of_the_scale_are_exact() -> None:
    assert [signal_of(level) for level in (0.0, 1.0)] == [1.0, 0.0]
    assert [level_of(signal) for signal in (1.0, 0.5, 0.0)] == [0.0, 0.5, 1.0]
    assert CLEAN.level == 0


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_levels_and_signals_lie_in_0_to_1(wrong: float) -> None:
    with pytest.raises(ValueError, match=f"{wrong:g}"):
        signal_of(wrong)
    with pytest.raises(ValueError, match=f"{wrong:g}"):
        level_of(wrong)


def test_a_path_visits_the_timesteps_and_ends_clean() -> None:
    path = reverse_path(LINEAR, [999, 500, 0])
    assert path == [
        Level(999.0, LINEAR[999]),
        Level(500.0, LINEAR[500]),
        Level(0.0, LINEAR[0]),
        CLEAN,
    ]


@given(
    schedule=st.sampled_from(sorted(SCHEDULES)),
    steps=st.integers(1, 60),
    stop=st.floats(1e-4, 1.0),
)
def test_a_truncated_path_stops_at_the_level(schedule: str, steps: int, stop: float) -> None:
    signal = SCHEDULES[schedule]
    visited = spaced_timesteps(len(signal), steps)
    path = reverse_path(signal, visited, stop)
    assert path[-1].signal == stop
    assert all(early.signal < late.signal for early, late in pairwise(path))
    assert all(early.time >= late.time for early, late in pairwise(path))
    left_out = visited[len(path) - 1 :]
    assert [level.time for level in path[:-1]] == visited[: len(path) - 1]
    assert all(signal[t] >= stop for t in left_out)


def test_a_stop_at_a_timestep_has_that_time() -> None:
    path = reverse_path(LINEAR, [999, 500, 200, 100], stop=LINEAR[200])
    assert [level.time for level in path] == [999.0, 500.0, 200.0]


def test_there_is_always_a_step_or_an_error() -> None:
    assert len(reverse_path(LINEAR, [999], stop=1e-4)) == 2
    with pytest.raises(ValueError, match="1e-05"):
        reverse_path(LINEAR, [999], stop=1e-5)
    with pytest.raises(ValueError, match="1$"):
        reverse_path(LINEAR, [])
    with pytest.raises(ValueError, match="1.5"):
        reverse_path(LINEAR, [999], stop=1.5)


@given(time=st.floats(0, 999))
def test_a_time_between_two_timesteps_is_recovered(time: float) -> None:
    before, share = int(time), time - int(time)
    after = min(before + 1, 999)
    kept = LINEAR[before] + share * (LINEAR[after] - LINEAR[before])
    assert timestep_of(LINEAR, kept) == pytest.approx(time, abs=1e-6)


def test_times_beyond_the_schedule_are_its_ends() -> None:
    assert timestep_of(LINEAR, 1.0) == 0.0
    assert timestep_of(LINEAR, 0.0) == 999.0


def test_continuous_rates_are_those_of_the_timesteps_where_they_meet() -> None:
    signal = torch.tensor(LINEAR, dtype=torch.float64)
    whole = torch.tensor([1.0, 14.0, 500.0, 999.0], dtype=torch.float64)
    alpha, sigma, level = continuous_rates(signal, whole)
    table = noise_table(LINEAR, torch.float64)[whole.long() - 1]
    assert alpha.shape == sigma.shape == (4, 1, 1, 1)
    assert torch.allclose(alpha.flatten(), table[:, 0], rtol=0, atol=1e-12)
    assert torch.allclose(sigma.flatten(), table[:, 1], rtol=0, atol=1e-12)
    wanted = [level_of(LINEAR[int(t) - 1]) for t in whole]
    assert level.tolist() == pytest.approx(wanted, abs=1e-12)


@given(position=st.floats(0, 99.99999))
def test_continuous_rates_lie_between_their_neighbours(position: float) -> None:
    signal = torch.tensor(SCHEDULES["zero-terminal"], dtype=torch.float64)
    alpha, sigma, level = continuous_rates(signal, torch.tensor([position], dtype=torch.float64))
    kept = [1.0, *SCHEDULES["zero-terminal"]]
    index, share = int(position), position - int(position)
    wanted = kept[index] + share * (kept[index + 1] - kept[index])
    assert alpha.item() ** 2 == pytest.approx(wanted, abs=1e-9)
    assert alpha.item() ** 2 + sigma.item() ** 2 == pytest.approx(1.0, abs=1e-12)
    again = level_rates(level)
    assert again[0].item() == pytest.approx(alpha.item(), abs=1e-9)
    assert again[1].item() == pytest.approx(sigma.item(), abs=1e-9)


def test_continuous_rates_reach_both_ends() -> None:
    signal = torch.tensor(SCHEDULES["zero-terminal"])
    # as a single-precision product of 100 and the largest uniform number may round
    alpha, sigma, level = continuous_rates(signal, torch.tensor([0.0, 100.0]))
    assert alpha.flatten().tolist() == [1.0, 0.0]
    assert sigma.flatten().tolist() == [0.0, 1.0]
    assert level.tolist() == [0.0, 1.0]
