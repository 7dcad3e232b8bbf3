"""diffusers' schedulers: made from a config, and stepped through."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import diffusers
import torch
from torch import Tensor

from cascadezoo import SampleRequest
from cascadezoo.errors import ModelError
from cascadezoo_diffusers.arguments import SchedulerArguments
from cascadezoo_diffusers.reading import FoundScheduler
from cascadezoo_diffusers.samplers import SAMPLERS

__all__ = ["check_known", "make_scheduler", "rates", "reverse"]

Predict = Callable[[Tensor, Tensor], Tensor]
"""From images [N, C, H, W], scaled as the network wants them, and a timestep (a scalar, on the
CPU) to what the network predicts, float32."""


def make_scheduler(arguments: SchedulerArguments, name: str, steps: int | None = None) -> Any:
    """The scheduler of diffusers that is a sampler, on the CPU.

    Args:
        arguments: those that its class knows are taken.
        name: the sampler.
        steps: how many steps it shall take; None leaves that open.
    """
    sampler = SAMPLERS[name]
    cls = getattr(diffusers, sampler.scheduler)
    known = inspect.signature(cls.__init__).parameters
    given = {k: v for k, v in arguments.model_dump().items() if k in known and v is not None}
    # A cascade may be in the making on the meta device, where tables have no numbers. On the CPU
    # they cost no synchronisation either: a scalar there goes with tensors of any device.
    with torch.device("cpu"):
        scheduler = cls(**{**given, **sampler.settings})
        if steps is not None:
            scheduler.set_timesteps(steps)
    return scheduler


def rates(arguments: SchedulerArguments) -> Tensor:
    """Signal and noise of each timestep, alpha and sigma with alpha^2 + sigma^2 = 1.

    Returns:
        float32 [T, 2], on the CPU.
    """
    kept = make_scheduler(arguments, "ddpm").alphas_cumprod.double()
    return torch.stack([kept.sqrt(), (1 - kept).sqrt()], 1).float()


def reverse(
    scheduler: Any, predict: Predict, start: Tensor, request: SampleRequest, eta: float
) -> Tensor:
    """Remove noise step by step.

    Noise of stochastic schedulers comes from the generators of ``request.draw``, one an image:
    diffusers draws from them image by image, so that the split of a batch changes nothing.

    Args:
        scheduler: of :func:`make_scheduler`, with its steps set.
        predict: the network.
        start: standard normal noise [N, C, H, W].
        request: whose draw and watch are used.
        eta: of ddim.

    Returns:
        The images, [N, C, H, W] float32, not limited.
    """
    known = inspect.signature(scheduler.step).parameters
    settings: dict[str, Any] = {"return_dict": False}
    if "generator" in known:
        settings["generator"] = request.draw.generators
    if "eta" in known:
        settings["eta"] = eta
    image = start * float(scheduler.init_noise_sigma)
    for time in scheduler.timesteps:
        output = predict(scheduler.scale_model_input(image, time), time)
        with _exact(image):
            image = scheduler.step(output, time, image, **settings)[0].float()
        if request.watch is not None:
            request.watch(_shown(scheduler, image))
    return image


def check_known(found: FoundScheduler) -> None:
    """See that a source's scheduler says nothing that would be lost here.

    Raises:
        ModelError: it is set in a way that its sampler here has no field for.
    """
    if found.sampler is None:
        return
    sampler = SAMPLERS[found.sampler]
    known = inspect.signature(getattr(diffusers, sampler.scheduler).__init__).parameters
    lost = dict(_lost(found.raw, known, sampler.settings))
    if lost:
        listed = ", ".join(f"{name} = {value!r}" for name, value in lost.items())
        raise ModelError(
            f"{found.where} has {listed}, which cascadezoo-diffusers has no field for",
            hint='name another "sampler" in the spec',
        )


def _lost(
    raw: Mapping[str, Any], known: Mapping[str, Any], settings: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    for name, value in raw.items():
        if name in SchedulerArguments.model_fields or name in settings or name not in known:
            continue
        default = known[name].default
        # JSON has no infinity of its own; diffusers writes it as a number or as text.
        if value != default and str(value).lower() not in ("-inf", "-infinity"):
            yield name, value


def _exact(image: Tensor) -> AbstractContextManager[Any]:
    """No autocast: the solvers' small matrix products are of the image itself."""
    kind = image.device.type
    if not torch.amp.is_autocast_available(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def _shown(scheduler: Any, image: Tensor) -> Tensor:
    """A state of sampling at the scale of images, where the scheduler keeps it at another."""
    if float(scheduler.init_noise_sigma) == 1.0:
        return image
    sigma = float(scheduler.sigmas[scheduler.step_index])
    return image * (1 / math.sqrt(1 + sigma * sigma))
