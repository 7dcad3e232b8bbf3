"""Builds diffusers' schedulers from a config and runs their steps."""

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
from cascadezoo_diffusers.reading import SourceScheduler
from cascadezoo_diffusers.samplers import SAMPLERS

__all__ = ["check_supported", "make_scheduler", "rates", "reverse"]

Predict = Callable[[Tensor, Tensor], Tensor]
"""Maps images [N, C, H, W] at the scale of the network and a timestep (a scalar on the CPU) to the
prediction of the network, float32."""


def make_scheduler(arguments: SchedulerArguments, name: str, steps: int | None = None) -> Any:
    """Build the scheduler of a sampler on the CPU.

    Args:
        arguments: its class uses the arguments that it supports.
        name: the sampler.
        steps: the number of steps; None does not set it.
    """
    sampler = SAMPLERS[name]
    cls = getattr(diffusers, sampler.scheduler)
    known = inspect.signature(cls.__init__).parameters
    settings = {k: v for k, v in arguments.model_dump().items() if k in known and v is not None}
    # The default device may be meta, whose tables have no numbers. On the CPU they also need no
    # synchronisation: scalars there work with tensors of any device.
    with torch.device("cpu"):
        scheduler = cls(**{**settings, **sampler.settings})
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

    The noise of stochastic schedulers comes from the generators of ``request.draw``, one per image:
    diffusers draws from them image by image, so the images do not depend on how a batch is split.

    Args:
        scheduler: from :func:`make_scheduler`, with its steps set.
        predict: the network.
        start: standard normal noise [N, C, H, W].
        request: provides ``draw`` and ``watch``.
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


def check_supported(source: SourceScheduler) -> None:
    """Check that no setting of a source's scheduler is lost.

    Raises:
        ModelError: ``SchedulerArguments`` has no field for a setting.
    """
    if source.sampler is None:
        return
    sampler = SAMPLERS[source.sampler]
    known = inspect.signature(getattr(diffusers, sampler.scheduler).__init__).parameters
    lost = dict(_lost(source.raw, known, sampler.settings))
    if lost:
        listed = ", ".join(f"{name} = {value!r}" for name, value in lost.items())
        raise ModelError(
            f"{source.where} has {listed}, which cascadezoo-diffusers does not support",
            hint='set another "sampler" in the spec',
            code="model-source-scheduler-setting",
            path=source.where,
            names=list(lost),
        )


def _lost(
    raw: Mapping[str, Any], known: Mapping[str, Any], settings: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    for name, value in raw.items():
        if name in SchedulerArguments.model_fields or name in settings or name not in known:
            continue
        default = known[name].default
        # JSON has no infinity; diffusers writes it as a number or as text.
        if value != default and str(value).lower() not in ("-inf", "-infinity"):
            yield name, value


def _exact(image: Tensor) -> AbstractContextManager[Any]:
    """Disable autocast: the small matrix products of the solvers use the image itself."""
    kind = image.device.type
    if not torch.amp.is_autocast_available(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def _shown(scheduler: Any, image: Tensor) -> Tensor:
    """Convert a state of sampling from the scale of the scheduler to that of images."""
    if float(scheduler.init_noise_sigma) == 1.0:
        return image
    sigma = float(scheduler.sigmas[scheduler.step_index])
    return image * (1 / math.sqrt(1 + sigma * sigma))
