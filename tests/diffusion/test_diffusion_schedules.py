"""Schedules compared with diffusers and with their papers."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.schedulers.scheduling_ddpm import rescale_zero_terminal_snr as reference_rescale
from hypothesis import given
from hypothesis import strategies as st

from cascadezoo.diffusion.schedules import (
    alphas_cumprod,
    cosine_betas,
    linear_betas,
    rescale_zero_terminal_snr,
    spaced_timesteps,
    terminal_signal_variance,
)


@pytest.mark.parametrize("timesteps", [2, 25, 1000])
def test_linear_betas_are_those_of_diffusers(timesteps: int) -> None:
    reference = DDPMScheduler(timesteps, beta_start=1e-4, beta_end=0.02)
    ours = torch.tensor(linear_betas(timesteps), dtype=torch.float64)
    assert torch.allclose(ours, reference.betas.double(), rtol=0, atol=1e-8)
    signal = torch.tensor(alphas_cumprod(ours.tolist()), dtype=torch.float64)
    assert torch.allclose(signal, reference.alphas_cumprod.double(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("timesteps", [2, 25, 1000])
def test_cosine_betas_are_those_of_diffusers(timesteps: int) -> None:
    reference = DDPMScheduler(timesteps, beta_schedule="squaredcos_cap_v2")
    ours = torch.tensor(cosine_betas(timesteps), dtype=torch.float64)
    assert torch.allclose(ours, reference.betas.double(), rtol=0, atol=1e-7)
    assert max(ours) == 0.999
    signal = torch.tensor(alphas_cumprod(ours.tolist()), dtype=torch.float64)
    assert torch.allclose(signal, reference.alphas_cumprod.double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("betas", [linear_betas(25), linear_betas(1000), cosine_betas(50)])
def test_rescaling_is_that_of_diffusers(betas: list[float]) -> None:
    reference = reference_rescale(torch.tensor(betas, dtype=torch.float64))
    ours = torch.tensor(rescale_zero_terminal_snr(betas), dtype=torch.float64)
    assert torch.allclose(ours, reference, rtol=0, atol=1e-12)


@given(
    timesteps=st.integers(2, 400),
    start=st.floats(1e-5, 1e-3),
    end=st.floats(2e-3, 0.5),
    cosine=st.booleans(),
)
def test_rescaling_ends_in_pure_noise_and_keeps_the_start(
    timesteps: int, start: float, end: float, cosine: bool
) -> None:
    betas = cosine_betas(timesteps) if cosine else linear_betas(timesteps, start, end)
    before, after = alphas_cumprod(betas), alphas_cumprod(rescale_zero_terminal_snr(betas))
    assert after[-1] == 0.0
    assert after[0] == pytest.approx(before[0], rel=1e-12)
    assert all(high > low >= 0 for high, low in pairwise(after))


def test_the_study_keeps_78_percent_of_the_signal() -> None:
    assert terminal_signal_variance(linear_betas(25, 1e-4, 0.02)) == pytest.approx(0.7765, abs=1e-4)
    assert terminal_signal_variance(linear_betas(1000, 1e-4, 0.02)) < 1e-4


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize(("timesteps", "steps"), [(1000, 50), (1000, 1000), (25, 5), (100, 7)])
def test_spacing_is_that_of_diffusers(spacing: str, timesteps: int, steps: int) -> None:
    reference = DDIMScheduler(timesteps, timestep_spacing=spacing, steps_offset=0)
    reference.set_timesteps(steps)
    assert spaced_timesteps(timesteps, steps, spacing) == reference.timesteps.tolist()


@given(data=st.data(), timesteps=st.integers(1, 2000))
def test_spaced_timesteps_fall_within_the_schedule(data: st.DataObject, timesteps: int) -> None:
    steps = data.draw(st.integers(1, timesteps))
    for spacing in ("trailing", "leading", "linspace"):
        chosen = spaced_timesteps(timesteps, steps, spacing)
        assert len(chosen) == steps
        assert sorted(set(chosen), reverse=True) == chosen
        assert 0 <= chosen[-1] <= chosen[0] < timesteps
    assert spaced_timesteps(timesteps, steps, "trailing")[0] == timesteps - 1
    assert spaced_timesteps(timesteps, steps, "leading")[-1] == 0


@pytest.mark.parametrize("steps", [0, -1, 26])
def test_steps_out_of_range_are_rejected(steps: int) -> None:
    with pytest.raises(ValueError, match=rf"^{steps} .* 25"):
        spaced_timesteps(25, steps)


def test_impossible_schedules_are_rejected() -> None:
    with pytest.raises(ValueError, match="0"):
        linear_betas(0)
    with pytest.raises(ValueError, match="-3"):
        cosine_betas(-3)
    with pytest.raises(ValueError, match="1.5"):
        linear_betas(10, 0.1, 1.5)
    with pytest.raises(ValueError, match="two"):
        rescale_zero_terminal_snr([0.1])


def test_a_single_timestep_has_the_first_beta() -> None:
    assert linear_betas(1, 0.1, 0.2) == [0.1]


def test_schedules_and_configs_import_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "import cascadezoo.diffusion.levels, cascadezoo.nn.sizes\n"
        "import cascadezoo.stages.flow.config, cascadezoo.stages.diffusion.config\n"
        "import cascadezoo.stages.pixelshuffle.config, cascadezoo.stages.vit.config\n"
        "print(*sorted({'torch', 'torchvision', 'timm', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
