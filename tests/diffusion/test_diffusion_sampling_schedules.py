"""Schedules that are chosen for sampling, after the training."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest

from cascadezoo.diffusion.schedules import (
    FAINTEST_DETERMINED,
    SamplingSchedule,
    alphas_cumprod,
    cosine_betas,
    interpolated_signal,
    linear_betas,
    rescale_zero_terminal_snr,
    sampling_signal,
)

LINEAR = alphas_cumprod(linear_betas(1000))
COSINE = alphas_cumprod(cosine_betas(1000))
TRAINED = {
    "linear": LINEAR,
    "cosine": COSINE,
    "zero terminal": alphas_cumprod(rescale_zero_terminal_snr(cosine_betas(50))),
    "the study's": alphas_cumprod(linear_betas(25)),
}
SCHEDULES = get_args(SamplingSchedule)


def ratios(signal):
    return np.sqrt((1 - np.array(signal)) / np.array(signal))


@pytest.mark.parametrize("trained", TRAINED)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 20, 300])
def test_levels_are_trained_ones_in_order(schedule, trained, steps):
    signal = TRAINED[trained]
    rows = sampling_signal(schedule, steps, signal)
    assert 1 <= len(rows) <= steps
    assert all(before > after for before, after in pairwise(rows))
    assert rows[-1] == pytest.approx(signal[-1], abs=1e-15)
    if schedule == "trained":
        # As continuous conditioning trains them, down to the clean image.
        assert rows == interpolated_signal(signal, steps)
        return
    assert rows[-1] == signal[-1]
    assert rows[0] <= max(signal[0], rows[-1])
    if schedule in ("karras", "log-snr"):
        assert len(rows) == steps


def test_karras_is_equation_5():
    """sigma_i = (smax^(1/rho) + i / (n - 1) (smin^(1/rho) - smax^(1/rho)))^rho, with rho 7."""
    low, high = ratios([LINEAR[0], LINEAR[-1]])
    places = np.linspace(0, 1, 18)
    expected = (high ** (1 / 7) + places * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    ours = ratios(sampling_signal("karras", 18, LINEAR))[::-1]
    assert ours == pytest.approx(expected, rel=1e-9)


def test_log_snr_has_even_steps():
    rows = sampling_signal("log-snr", 12, LINEAR)
    gaps = np.diff(np.log(ratios(rows)))
    assert gaps == pytest.approx(np.full(11, gaps.mean()))


def test_a_ratio_beyond_the_limit_is_only_that_of_the_first_step():
    for name in ("cosine", "zero terminal"):
        for schedule in ("karras", "log-snr"):
            rows = sampling_signal(schedule, 10, TRAINED[name])
            assert rows[-1] == TRAINED[name][-1] < FAINTEST_DETERMINED
            assert rows[-2] == pytest.approx(FAINTEST_DETERMINED)


def test_linear_and_cosine_are_those_of_a_training_on_them():
    for name, signal in (("linear", LINEAR), ("cosine", COSINE)):
        for steps in (1, 7, 100):
            ours = sampling_signal(name, steps, signal)
            assert ours == pytest.approx(sampling_signal("trained", steps, signal), abs=1e-12)
    # The levels of the other schedule, at the same times.
    crossed = sampling_signal("cosine", 10, LINEAR)
    assert crossed[4] == pytest.approx(COSINE[499])
    assert crossed[-1] == LINEAR[-1]


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="at least one step"):
        sampling_signal("karras", 0, LINEAR)
    assert math.isfinite(sum(ratios(sampling_signal("karras", 4, COSINE))))
