"""The checks of a stage kind: one function for each, which raises a fault."""

from __future__ import annotations

import functools
import random
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cascadezoo.cascade.weights import load_state, save_state
from cascadezoo.plugins.registry import StageEntry
from cascadezoo.spec.configs import ImageShape
from cascadezoo.stages.base import GROUP, Loss, Stage, StageOutput
from cascadezoo.testing.check_report import (
    CheckError,
    CheckSkippedError,
    Report,
    raise_fault,
    run_checks,
)
from cascadezoo.testing.import_checks import Imported, check_docs, check_light, import_apart
from cascadezoo.testing.joint_training import joint_training
from cascadezoo.testing.stage_place import COUNT, Place, find_place
from cascadezoo.testing.state_checks import processes, resume, round_trip

__all__ = ["NAMES", "run"]

NAMES = (
    "config",
    "config-without-torch",
    "import-cost",
    "docs",
    "shapes",
    "no-labels",
    "plan",
    "gradients",
    "determinism",
    "global-rng",
    "batch-split",
    "save-load",
    "joint-training",
    "resume",
    "round-trip",
    "processes",
    "bf16",
    "compile",
)
"""The checks, in the order in which they run."""

ROUNDING = 1e-4
"""Tolerance for images that differ only in the order of sums."""


def run(
    entry: StageEntry,
    settings: Mapping[str, Any],
    *,
    size: int | None,
    channels: int,
    num_classes: int | None,
    skip: Collection[str],
    output: ImageShape | None = None,
    neighbour: Mapping[str, Any] | None = None,
) -> Report:
    """Run all checks; see :func:`cascadezoo.testing.check_stage`."""

    @functools.cache
    def place() -> Place:
        return find_place(
            entry,
            settings,
            size=size,
            channels=channels,
            num_classes=num_classes,
            output=output,
            neighbour=neighbour,
        )

    @functools.cache
    def imported() -> Imported:
        return import_apart(entry.config)

    def placed(check: Callable[[Place], None]) -> Callable[[], None]:
        def checked() -> None:
            with torch.random.fork_rng(devices=[]):
                check(_known(place))

        return checked

    checks: tuple[Callable[[], None], ...] = (
        lambda: _exists(place()),
        lambda: _without_torch(imported()),
        lambda: raise_fault(check_light(imported())),
        lambda: raise_fault(check_docs(entry)),
        placed(shapes),
        placed(no_labels),
        placed(plan),
        placed(gradients),
        placed(determinism),
        placed(global_rng),
        placed(batch_split),
        placed(save_load),
        placed(joint_training),
        placed(resume),
        placed(round_trip),
        placed(processes),
        placed(bf16),
        placed(compiles),
    )
    return run_checks(f"{entry.what} {entry.name}", dict(zip(NAMES, checks, strict=True)), skip)


def shapes(place: Place) -> None:
    """Images and losses have the size, type and range of the place."""
    stage, expected = place.stage(), place.geometry.output
    shape = (COUNT, expected.channels, expected.size, expected.size)
    target = place.target()
    upstream = stage.upstream_target(target)
    taken = place.geometry.input
    if taken is not None and upstream.shape != (COUNT, taken.channels, taken.size, taken.size):
        raise CheckError(
            f"upstream_target returns {tuple(upstream.shape)}, but the stage takes {taken}"
        )
    output = place.train(stage)
    _tensor("the estimate", output.estimate, shape)
    _tokens("the estimate", output.estimate, expected)
    if taken is not None:
        _tokens("upstream_target", upstream, taken)
    groups = set(stage.parameter_groups())
    for name, loss in _losses(output).items():
        if loss.group not in groups:
            known = ", ".join(sorted(groups))
            raise CheckError(f"the loss {name!r} has the unknown group {loss.group!r}; use {known}")
        _tensor(f"the loss {name!r}", loss.value, ())
    if not output.losses and not place.config.frozen:
        raise CheckError("forward returns no losses, but the config is not frozen")
    images = place.sample(stage)
    _tensor("sample()", images, shape)
    _tokens("sample()", images, expected)
    if not expected.latent and images.abs().max() > 1:
        raise CheckError(f"sample() exceeds [-1, 1]: {images.min():.3g} to {images.max():.3g}")


def no_labels(place: Place) -> None:
    """The stage works on data without labels."""
    bare = place.unlabelled()
    stage = bare.stage()
    bare.train(stage)
    bare.sample(stage)


def plan(place: Place) -> None:
    """The stage runs on the meta device for planning and loading: no branch on tensor values."""
    stage = place.build("meta")
    for name, parameter in stage.named_parameters():
        if not parameter.is_meta:
            raise CheckError(f"the parameter {name} is created on the CPU regardless of the device")
    stage.to("meta")
    output = place.train(stage, device="meta")
    images = place.sample(stage, device="meta")
    if not (output.estimate.is_meta and images.is_meta):
        raise CheckError("the estimate or the images are not on the device of the inputs")


def gradients(place: Place) -> None:
    """Each loss reaches its group, and the estimate reaches the upstream image."""
    stage = place.stage()
    if place.config.frozen:
        raise CheckSkippedError("the config is frozen")
    groups = place.groups(stage)
    names = {id(p): name for name, p in stage.named_parameters() if p.requires_grad}
    grouped = [id(p) for rows in groups.values() for p in rows]
    twice = [names[i] for i in set(grouped) if grouped.count(i) > 1]
    missing = [name for i, name in names.items() if i not in grouped]
    if twice or missing:
        what = f"{twice[0]} is in two groups" if twice else f"{missing[0]} is in no group"
        raise CheckError(
            f"parameter_groups(): {what}; each trainable parameter must be in exactly one"
        )
    if place.config.parameterless and names:
        first = next(iter(names.values()))
        raise CheckError(f"the config is parameterless, but the stage has the trainable {first}")
    for group, parameters in groups.items():
        if not parameters:
            continue
        reached: set[int] = set()
        for step in range(4):
            losses = [
                x.value for x in _losses(place.train(stage, step=step)).values() if x.group == group
            ]
            if not losses:
                continue
            grads = torch.autograd.grad(torch.stack(losses).sum(), parameters, allow_unused=True)
            rows = zip(parameters, grads, strict=True)
            reached |= {id(p) for p, g in rows if g is not None and bool(g.abs().max() > 0)}
        left = [names[id(p)] for p in parameters if id(p) not in reached]
        if left:
            listed = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
            raise CheckError(f"the losses of group {group!r} do not reach {listed}")
    _check_upstream_gradient(place, stage)


def _check_upstream_gradient(place: Place, stage: Stage) -> None:
    if place.geometry.output.tokens is not None:
        return  # gradients end at tokens
    taken = place.geometry.input
    upstream = place.upstream()
    if taken is not None and taken.tokens is not None:
        upstream = None
    if upstream is not None:
        upstream.requires_grad_()
    estimate = place.train(stage, upstream=upstream).estimate
    if not estimate.requires_grad:
        raise CheckError(
            "the estimate has no gradient: joint phases cannot train the stages before it"
        )
    if upstream is None:
        return
    (gradient,) = torch.autograd.grad(estimate.square().sum(), upstream, allow_unused=True)
    if gradient is None or not bool(gradient.abs().max() > 0):
        raise CheckError(
            "the estimate has no gradient with respect to the upstream image, as joint phases need"
        )


def determinism(place: Place) -> None:
    """Random numbers come only from ``context.draw`` and ``request.draw``."""

    def drawn(global_seed: int, *, training: bool = True) -> tuple[Tensor, Tensor]:
        # A new stage each time: a training step may move statistics, teachers and codebooks.
        stage = place.stage().train(training)
        with _seeded(global_seed):
            return place.train(stage, step=3).estimate.detach(), place.sample(stage)

    first, again = drawn(1), drawn(2)
    if not torch.equal(first[1], again[1]):
        raise CheckError("sample() draws other numbers each time; draw only from request.draw")
    if not torch.equal(first[0], again[0]):
        # Dropout draws from the global generator, which the trainer seeds in each step.
        rows = [drawn(seed, training=False)[0] for seed in (1, 2)]
        if not torch.equal(*rows):
            raise CheckError(
                "a training step draws other numbers each time; draw only from context.draw"
            )


def global_rng(place: Place) -> None:
    """The stage seeds no generator of the process, which all stages share."""
    for method, call in (
        ("a training step", lambda stage: place.train(stage)),
        ("sample()", lambda stage: place.sample(stage)),
    ):
        ends = []
        for seed in (1, 2):
            stage = place.stage()
            with _seeded(seed):
                call(stage)
                ends.append((torch.get_rng_state(), random.getstate(), _numpy_state()))
        for what, same in (
            ("torch", torch.equal(ends[0][0], ends[1][0])),
            ("Python", ends[0][1] == ends[1][1]),
            ("numpy", bool(np.array_equal(ends[0][2], ends[1][2]))),
        ):
            if same:
                raise CheckError(
                    f"{method} seeds the global generator of {what}, which other stages use; draw "
                    "from context.draw and request.draw"
                )


def _numpy_state() -> Any:
    state: Any = np.random.get_state()
    return state[1]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed all global generators of the process; restore those of Python and numpy."""
    python, numpy = random.getstate(), np.random.get_state()
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def batch_split(place: Place) -> None:
    """Images do not depend on their batch."""
    stage = place.stage()
    whole = place.sample(stage, 0, 5)
    parts = [place.sample(stage, first, count) for first, count in ((0, 1), (1, 3), (4, 1))]
    distance = (whole - torch.cat(parts)).abs().max()
    if distance > ROUNDING * max(1.0, float(whole.abs().max())):
        raise CheckError(
            f"images differ by {distance:.2g} when a batch is split: draw from request.draw, which "
            "is keyed by image, and keep the images of a batch independent"
        )


def save_load(place: Place) -> None:
    """A stage on the meta device loads its saved weights and makes the same images."""
    original = place.stage()
    expected = place.sample(original)
    copy = place.build("meta")
    copy.drop_training_only()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_state(original.saved_state(), path)
        load_state(copy, path, "cpu")
    for name, buffer in copy.named_buffers():
        if buffer.is_meta:
            raise CheckError(
                f"the buffer {name} is not saved and has no values after loading: create it with "
                'device="cpu", or make it persistent'
            )
    distance = (place.sample(copy) - expected).abs().max()
    if not distance <= ROUNDING * max(1.0, float(expected.abs().max())):
        raise CheckError(f"the images of a loaded copy differ by {distance:.2g}")


def bf16(place: Place) -> None:
    """Under bf16 autocast, estimate and losses are float32 and close to those without it."""
    exact, stage = place.train(place.stage()), place.stage()
    with torch.autocast("cpu", torch.bfloat16):
        output = place.train(stage)
        images = place.sample(stage)
    for name, tensor in (("the estimate", output.estimate), ("sample()", images)):
        if tensor.dtype != torch.float32:
            raise CheckError(f"under bf16 autocast {name} is {tensor.dtype}; end with .float()")
    for name, loss in _losses(output).items():
        before, now = _losses(exact)[name].value.item(), loss.value.item()
        if loss.value.dtype != torch.float32:
            raise CheckError(
                f"under bf16 autocast the loss {name!r} is {loss.value.dtype}, not float32"
            )
        if not abs(now - before) <= 0.1 * abs(before) + 0.02:
            raise CheckError(
                f"under bf16 autocast the loss {name!r} is {now:.4g}, not {before:.4g}"
            )
    losses = [loss.value for loss in _losses(output).values() if loss.value.requires_grad]
    if losses:
        torch.autograd.backward(losses)


def compiles(place: Place) -> None:
    """``torch.compile`` accepts the stage and computes the same."""
    expected = place.train(place.stage().eval()).estimate.detach()
    stage = place.stage().eval()
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own warnings
        forward = torch.compile(stage.forward, backend="eager")
        original, stage.forward = stage.forward, forward  # type: ignore[method-assign]
        try:
            compiled = place.train(stage).estimate.detach()
        finally:
            stage.forward = original  # type: ignore[method-assign]
            torch.compiler.reset()
    distance = (compiled - expected).abs().max()
    if not distance <= ROUNDING * max(1.0, float(expected.abs().max())):
        raise CheckError(f"the estimate of the compiled stage differs by {distance:.2g}")


def _losses(output: StageOutput) -> dict[str, Loss]:
    return {
        name: loss if isinstance(loss, Loss) else Loss(loss, GROUP)
        for name, loss in output.losses.items()
    }


def _tensor(what: str, tensor: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(tensor, Tensor):
        raise CheckError(f"{what} is a {type(tensor).__name__}, not a tensor")
    if tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
        raise CheckError(
            f"{what} is {tensor.dtype} {tuple(tensor.shape)}, not torch.float32 {shape}"
        )
    if not bool(torch.isfinite(tensor).all()):
        raise CheckError(f"{what} is not finite")


def _tokens(what: str, tensor: Tensor, shape: ImageShape) -> None:
    if shape.tokens is None:
        return
    whole = bool((tensor == tensor.round()).all())
    low, high = float(tensor.detach().min()), float(tensor.detach().max())
    if not whole or low < 0 or high >= shape.tokens:
        found = f"{low:.3g} to {high:.3g}{'' if whole else ', not all whole'}"
        raise CheckError(f"{what} is {found}, not whole numbers from 0 to {shape.tokens - 1}")


def _without_torch(imported: Imported) -> None:
    if imported.fault is not None:
        raise CheckError(str(imported))


def _known(place: Callable[[], Place]) -> Place:
    try:
        return place()
    except Exception as error:
        raise CheckSkippedError("the config is invalid") from error


def _exists(place: Place) -> None:
    """The config is valid and fits a place."""
