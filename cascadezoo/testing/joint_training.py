"""Trains a stage with a neighbour, as a build does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from typing import Any

import numpy as np
import torch

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.base import ImageData
from cascadezoo.data.loader import DeviceLoader
from cascadezoo.errors import CascadezooError
from cascadezoo.plugins.manager import PluginHost, get_registry
from cascadezoo.plugins.registry import Origin, Registry, StageEntry
from cascadezoo.spec import resolve
from cascadezoo.spec.configs import ImageShape
from cascadezoo.testing.check_report import CheckError, CheckSkippedError
from cascadezoo.testing.stage_place import Place
from cascadezoo.train.checkpoint import CheckpointStore
from cascadezoo.train.engine import make_accelerator
from cascadezoo.train.trainer import Trainer

__all__ = ["NAME", "joint_training", "make_cascade", "make_data", "make_trainer"]

NAME = "checked"
_NEEDS_NEIGHBOUR = "no built-in kind is {}, so this check needs one: pass neighbour="
BATCH = 4
STEPS = 2


def joint_training(place: Place) -> None:
    """The stage trains alone and jointly with a built-in neighbour, and the cascade samples.

    Raises:
        CheckError: a weight is not finite, or a stage does not learn.
    """
    cascade = make_cascade(place)
    before = _weights(cascade)
    make_trainer(cascade).run()
    after = _weights(cascade)
    for name, weights in after.items():
        if not bool(torch.isfinite(weights).all()):
            raise CheckError(
                f"a weight of {_owner(name, place)} is not finite after {2 * STEPS} steps"
            )
        learns = any(p.requires_grad for p in cascade.stage(name).parameters())
        if learns and not cascade.stage(name).config.frozen and torch.equal(weights, before[name]):
            raise CheckError(
                f"{2 * STEPS} training steps change no weight of {_owner(name, place)}"
            )
    samples = cascade.sample(2)
    if not bool(torch.isfinite(samples).all()):
        raise CheckError("samples are not finite after a joint training")


def make_cascade(place: Place) -> Cascade:
    """A cascade of the stage and a neighbour, with its initial weights.

    Raises:
        CheckSkippedError: the weights of a frozen stage are not available.
    """
    spec = _spec(place)
    kinds = [stage["kind"] for stage in spec["stages"] if stage["name"] != NAME]
    resolved = resolve(spec, registry=_registry(place.entry, kinds))
    try:
        return Cascade.from_spec(resolved)
    except CascadezooError as error:
        if place.config.frozen:
            raise CheckSkippedError(f"the weights are not available: {error.what}") from None
        raise


def make_data(cascade: Cascade) -> ImageData:
    """Random images for a cascade."""
    shape, labels = cascade.resolved.image, cascade.resolved.num_classes
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4 * BATCH, shape.channels, shape.size, shape.size), np.uint8)
    numbers = None if labels is None else np.arange(len(images)) % labels
    return ImageData(images, numbers, "train")


def make_trainer(
    cascade: Cascade,
    *,
    store: CheckpointStore | None = None,
    stop: Callable[[], str | None] = lambda: None,
) -> Trainer:
    """A trainer of a cascade on random images, on the CPU.

    Args:
        cascade: the cascade.
        store: stores checkpoints.
        stop: as for :class:`~cascadezoo.train.trainer.Trainer`.
    """
    data = make_data(cascade)
    accelerator = make_accelerator(torch.device("cpu"), "fp32")
    loader = DeviceLoader(
        data,
        batch_size=BATCH,
        seed=0,
        device="cpu",
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    return Trainer(cascade, loader, accelerator, data=data, store=store, stop=stop)


def _spec(place: Place) -> dict[str, Any]:
    output, config = place.geometry.output, place.config.model_dump(mode="json")
    stage = {"name": NAME, "kind": place.entry.name, "config": config}
    size, channels = output.size, output.channels
    neighbour: dict[str, Any]
    if place.entry.role == "generator":
        neighbour = {"name": "after", **(place.neighbour or _after(output))}
        # A decoder doubles the size at least; the images of latents have any channels.
        size, channels = (place.image_size or 2 * output.size), 3 if output.latent else channels
        stages = [stage, neighbour]
    else:
        upstream = place.geometry.input
        if upstream is not None and upstream.tokens is not None and place.neighbour is None:
            raise CheckError(_NEEDS_NEIGHBOUR.format("a generator of tokens"))
        small = {"channels": 8, "multipliers": [1], "steps": 2}
        neighbour = {"name": "before", **(place.neighbour or {"kind": "flow.v1", "config": small})}
        stages = [neighbour, stage]
    classes = place.geometry.num_classes
    return {
        "name": "check",
        "data": {
            "source": "shapes",
            "config": {"size": max(size, 8), "classes": min(classes or 8, 8)},
            "size": size,
            "channels": channels,
            "num_classes": classes or 0,
        },
        "stages": stages,
        "training": {
            "losses": [],
            "batch_size": BATCH,
            "log_steps": 1,
            "ema": None,
            "optimizer": {"lr": 1e-3},
            "phases": _phases(place, neighbour["name"]),
        },
        "evaluation": {"metrics": [], "extractor": "small"},
    }


def _after(output: ImageShape) -> dict[str, Any]:
    """A built-in stage that follows a generator: an upsampler, or the decoder of its latents.

    Raises:
        CheckError: it makes tokens, which no built-in kind decodes.
    """
    if output.tokens is not None:
        raise CheckError(_NEEDS_NEIGHBOUR.format("a decoder of tokens"))
    if not output.latent:
        return {"kind": "pixelshuffle.v1", "config": {"hidden": 8}}
    config = {"latent_channels": output.channels, "channels": 8, "multipliers": [1, 1]}
    return {"kind": "autoencoder.v1", "config": config}


def _phases(place: Place, neighbour: str) -> list[dict[str, Any]]:
    learns = [] if place.config.frozen or place.config.parameterless else [NAME]
    truth = {"start": 1.0, "end": 1.0} if not place.config.paired else {"start": 0.5, "end": 0.5}
    joint = {
        "name": "joint",
        "train": [*learns, neighbour],
        "steps": STEPS,
        "joint": True,
        "teacher_forcing": truth,
    }
    if not learns:
        return [joint]
    if place.geometry.output.latent:  # first the decoder, whose latents the generator learns
        last = {"name": "latents", "train": learns, "steps": STEPS}
        return [{"name": "decoder", "train": [neighbour], "steps": STEPS}, last]
    return [{"name": "alone", "train": learns, "steps": STEPS}, joint]


def _registry(entry: StageEntry, neighbours: Iterable[str]) -> Registry:
    """A registry of the built-in kinds, this one, installed or not, and its neighbours.

    Raises:
        UnknownNameError: a neighbour is not installed.
    """
    points = [
        p for p in entry_points(group="cascadezoo") if p.value == "cascadezoo.plugins.builtin"
    ]
    registry = PluginHost(points).registry
    if entry.name not in registry.stages.rows:
        registry.stages.add(entry, Origin("unknown", "0", "unknown"))
    for kind in neighbours:
        if kind not in registry.stages.names():
            found = get_registry().stages.get(kind)
            if found.entry.name not in registry.stages.rows:
                registry.stages.add(found.entry, found.origin)
    return registry


def _weights(cascade: Cascade) -> dict[str, torch.Tensor]:
    return {
        name: torch.cat([p.detach().flatten().clone() for p in stage.parameters()])
        for name, stage in cascade.named_stages()
        if list(stage.parameters())
    }


def _owner(name: str, place: Place) -> str:
    return place.entry.name if name == NAME else f"its built-in neighbour {name!r}"
