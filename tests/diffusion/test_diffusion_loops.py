"""Loops do not wait for the device, keep tensors, or need memory on the meta device."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from diffusion_reference import SCHEDULES
from torch.utils._python_dispatch import TorchDispatchMode

from cascadezoo.diffusion.augmentation import blur_augmentation, gaussian_augmentation
from cascadezoo.diffusion.flow import SOLVERS, even_times, preserved
from cascadezoo.diffusion.guidance import drop_labels, guided
from cascadezoo.diffusion.losses import min_snr_weights, posterior_table, vlb_term
from cascadezoo.diffusion.process import continuous_rates
from cascadezoo.diffusion.samplers import (
    SAMPLERS,
    Denoised,
    Level,
    SamplerOptions,
    Variance,
    final,
    reverse_path,
)
from cascadezoo.diffusion.schedules import spaced_timesteps
from cascadezoo.util.rng import Draw

SYNCHRONISING = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select"}
SHAPE = (4, 3, 8, 8)


class NoSynchronisation(TorchDispatchMode):
    """Raises for operations that make the host wait for a device."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func._schema.name.removeprefix("aten::") in SYNCHRONISING:
            raise RuntimeError(f"waited for the device: {func}")
        return func(*args, **(kwargs or {}))


def test_the_detector_detects() -> None:
    for wait in (lambda x: x.item(), lambda x: bool(x > 0), lambda x: float(x), torch.nonzero):
        with NoSynchronisation(), pytest.raises(RuntimeError, match="waited for the device"):
            wait(torch.ones(()))


def network(x: torch.Tensor, times: torch.Tensor, labels: torch.Tensor, *more: Any) -> torch.Tensor:
    """Twice as many channels as x: a prediction, and the spread of a learned variance."""
    output = torch.tanh(x) * times.view(-1, 1, 1, 1) + labels.view(-1, 1, 1, 1)
    return torch.cat([output, output.sin()], dim=1)


def trajectory(
    name: str,
    device: str,
    variance: Variance = "learned",
    eta: float = 0.5,
    outputs: list[weakref.ref[torch.Tensor]] | None = None,
) -> Iterator[torch.Tensor]:
    """A guided sampling of 12 steps from pure noise to a truncated end."""
    labels = torch.zeros(SHAPE[0], dtype=torch.int64, device=device)
    draw = Draw("loop", device=device)

    def denoise(x: torch.Tensor, level: Level) -> Denoised:
        times = torch.full((x.shape[0],), level.time, device=x.device)
        both = guided(network, x, times / 100, labels, labels + 1, 2.0, channels=3)
        x0, spread = both[:, :3].clone(), both[:, 3:].clone()
        if outputs is not None:
            outputs.append(weakref.ref(x0))
            outputs.append(weakref.ref(spread))
        return Denoised(x0, spread)

    signal = SCHEDULES["zero-terminal"]
    path = reverse_path(signal, spaced_timesteps(len(signal), 20), stop=0.5)
    assert len(path) > 10
    options = SamplerOptions(eta=eta, variance=variance)
    return SAMPLERS[name].run(denoise, draw.randn(*SHAPE), path, draw, options)


def flow(name: str, device: str) -> Iterator[torch.Tensor]:
    def velocity(x: torch.Tensor, time: float) -> torch.Tensor:
        return torch.tanh(x) * time

    start = Draw("flow", device=device).randn(*SHAPE)
    return SOLVERS[name].run(velocity, start, even_times(12, 0.2))


def losses(device: str) -> torch.Tensor:
    draw = Draw("loss", device=device)
    signal = SCHEDULES["zero-terminal"]
    table = posterior_table(signal).to(device)
    x, labels = draw.randn(*SHAPE), draw.randint(0, 5, SHAPE[0])
    alpha, sigma, level = continuous_rates(
        torch.tensor(signal, device=device), draw.rand(SHAPE[0]) * len(signal)
    )
    z = blur_augmentation(gaussian_augmentation(x, x, level), draw.rand(SHAPE[0], 2))
    weights = min_snr_weights(alpha, sigma, "v")
    term = vlb_term(x, z, z, x, table, draw.randint(0, len(signal), SHAPE[0]))
    dropped = drop_labels(labels, 5, 0.1, draw)
    return weights.flatten() * term + dropped + preserved(x, 0.5).sum()


RUNS: dict[str, Callable[[str], Iterator[torch.Tensor]]] = {
    **{f"sampler-{name}": lambda device, name=name: trajectory(name, device) for name in SAMPLERS},
    **{f"solver-{name}": lambda device, name=name: flow(name, device) for name in SOLVERS},
}


@pytest.mark.parametrize("run", sorted(RUNS))
def test_no_step_waits_for_the_device(run: str) -> None:
    with NoSynchronisation():
        assert final(RUNS[run]("cpu")).shape == SHAPE


@pytest.mark.parametrize("run", sorted(RUNS))
def test_a_sampling_can_be_traced_without_memory(run: str) -> None:
    end = final(RUNS[run]("meta"))
    assert end.is_meta
    assert end.shape == SHAPE


def test_losses_and_augmentations_neither_wait_nor_need_memory() -> None:
    with NoSynchronisation():
        assert torch.isfinite(losses("cpu")).all().shape == ()
    assert losses("meta").shape == (SHAPE[0],)


@pytest.mark.parametrize("run", sorted(RUNS))
def test_no_state_is_kept(run: str) -> None:
    states: list[weakref.ref[torch.Tensor]] = []
    alive = []

    def watch(state: torch.Tensor) -> None:
        states.append(weakref.ref(state))
        alive.append(sum(ref() is not None for ref in states))

    final(RUNS[run]("cpu"), watch)
    assert len(states) >= 11
    assert max(alive) == 1


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_no_estimate_is_kept(name: str) -> None:
    """Except for the estimate from which DPM-Solver++ extrapolates."""
    outputs: list[weakref.ref[torch.Tensor]] = []
    alive = []

    def watch(state: torch.Tensor) -> None:
        alive.append(sum(ref() is not None for ref in outputs))

    final(trajectory(name, "cpu", outputs=outputs), watch)
    assert len(outputs) >= 22
    assert max(alive) == (name == "dpmpp-2m")
