"""Checks before a training that its stages can be saved and loaded again."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from cascadezoo.cascade.assemble import build_stage
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.cascade.stage_calls import guard, sample, stage_fault
from cascadezoo.cascade.weights import storable
from cascadezoo.errors import PluginError, SampleError
from cascadezoo.spec import ResolvedStage
from cascadezoo.spec.configs import ImageShape
from cascadezoo.stages.base import SampleRequest, Stage
from cascadezoo.util.rng import Draw, ImageDraw, seed_global

__all__ = ["check_reload", "reload_stage"]

_ROUNDING = 1e-4


def check_reload(cascade: Cascade) -> None:
    """Save and load each stage of a plugin in memory, and compare one sampled image.

    The stages are built on the meta device and take their weights from what a model would contain,
    as :meth:`Cascade.from_pretrained` does. Built-in stages are not checked.

    Args:
        cascade: a cascade that is to be trained; unchanged.

    Raises:
        PluginError: a stage cannot be saved, loaded or sampled, or a loaded copy samples another
            image.
    """
    for place in cascade.resolved.stages:
        stage = cascade.stage(place.name)
        if stage._owner is not None and not stage._owner.builtin:
            reload_stage(cascade, place)


@torch.no_grad()
def reload_stage(cascade: Cascade, place: ResolvedStage) -> None:
    """Save and load one stage in memory, and compare one sampled image.

    Args:
        cascade: the cascade.
        place: the stage's config and place.

    Raises:
        PluginError: see :func:`check_reload`.
    """
    stage = cascade.stage(place.name)
    with guard(stage, "saved_state"):
        saved = stage.saved_state()
    for name, tensor in saved.items():
        if not storable(tensor):
            form = str(tensor.dtype) if isinstance(tensor, Tensor) else type(tensor).__name__
            what = f"returns {name!r} as {form}, which safetensors cannot store"
            raise stage_fault(stage, "saved_state", what, code="plugin-not-loadable", tensor=name)
    classes = cascade.resolved.num_classes
    copy = build_stage(place, classes, "meta", 0)
    with guard(stage, "drop_training_only"):
        copy.drop_training_only()
    _compare(stage, saved, copy.state_dict())
    copy.load_state_dict(saved, strict=True, assign=True)
    tensors = (*copy.named_parameters(), *copy.named_buffers())
    missing = [name for name, tensor in tensors if tensor.is_meta]
    if missing:
        what = f"makes {missing[0]!r} without values when it is loaded, because it is not saved"
        raise stage_fault(stage, "__init__", what, code="plugin-not-loadable", tensor=missing[0])
    copy.to(cascade.device)
    expected = _image(stage, place, classes, cascade.device)
    try:
        image = _image(copy, place, classes, cascade.device)
    except PluginError as error:
        what = f"samples, but not after saving and loading: {error.what}"
        raise stage_fault(stage, "sample", what, code="plugin-not-loadable") from error
    distance = float((image - expected).abs().max())
    if distance > _ROUNDING * max(1.0, float(expected.abs().max())):
        what = (
            f"samples another image after saving and loading (difference {distance:.2g}): keep "
            "every value that sampling needs in parameters and persistent buffers"
        )
        raise stage_fault(stage, "sample", what, code="plugin-not-loadable")


def _compare(stage: Stage, saved: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    faults = [f"{name} is missing" for name in expected if name not in saved]
    faults += [f"{name} is not part of a loaded stage" for name in saved if name not in expected]
    for name in saved.keys() & expected.keys():
        if (saved[name].shape, saved[name].dtype) != (expected[name].shape, expected[name].dtype):
            faults.append(f"{name} has another shape or type on the meta device")
    if faults:
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        what = f"cannot be loaded from what it saves: {'; '.join(sorted(faults)[:3])}{more}"
        raise stage_fault(
            stage, "saved_state", what, code="plugin-not-loadable", tensors=sorted(faults)
        )


def _image(stage: Stage, place: ResolvedStage, classes: int | None, device: torch.device) -> Tensor:
    """One image, in eval mode and with few steps; the generators of torch are unchanged."""
    request = SampleRequest(
        1,
        ImageDraw(0, place.name, 0, 1, device),
        None if classes is None else torch.zeros(1, dtype=torch.int64, device=device),
        steps=2 if "steps" in stage.sampling_options else None,
    )
    upstream = None if place.input is None else _upstream(place.input, device)
    training = stage.training
    stage.eval()
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            seed_global(0, device)
            try:
                return sample(stage, upstream, request)
            except SampleError:  # it does not sample in two steps
                return sample(stage, upstream, replace(request, steps=None))
    finally:
        stage.train(training)


def _upstream(shape: ImageShape, device: torch.device) -> Tensor:
    draw = Draw("reload", device=device)
    size = (1, shape.channels, shape.size, shape.size)
    if shape.tokens is not None:
        return draw.randint(0, shape.tokens, *size).float()
    return draw.randn(*size) if shape.latent else draw.rand(*size) * 2 - 1
