"""Shared by tests of devices: a small cascade around every kind, trainings, guards, figures.

On a machine without a GPU the same code runs on the CPU, with fewer steps.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.base import ImageData
from cascadezoo.data.loader import DeviceLoader
from cascadezoo.plugins.manager import BUILTIN_DISTRIBUTION, get_registry
from cascadezoo.stages.base import SampleRequest, Stage, TrainContext
from cascadezoo.train.checkpoint import CheckpointStore
from cascadezoo.train.engine import make_accelerator
from cascadezoo.train.progress import QuietProgress
from cascadezoo.train.trainer import Trainer
from cascadezoo.util.rng import Draw, ImageDraw

SIZE = 16
CLASSES = 8
BATCH = 8

UNET = {"channels": 8, "multipliers": [1, 2]}
KINDS: dict[str, dict[str, Any]] = {
    "flow.v1": {**UNET, "steps": 3, "middle_attention": True},
    "mean-flow.v1": {**UNET, "steps": 2, "flow_ratio": 0.5, "middle_attention": True},
    "diffusion.v1": {"channels": 8, "latent": 8, "layers": 2, "timesteps": 4},
    "diffusion.v2": {"channels": 8, "latent": 8, "layers": 2, "timesteps": 4},
    "unet-diffusion.v1": {**UNET, "timesteps": 8, "steps": 4, "loss": "hybrid"},
    "dae.v1": {"channels": 8, "multipliers": [1], "levels": 3},
    "resnet.v1": {"channels": 8, "blocks": 1, "candidates": 2},
    "diffusion-sr.v1": {**UNET, "timesteps": 8, "steps": 4, "s": 0.2},
    "flow-sr.v1": {**UNET, "steps": 3, "s": 0.2},
    "flow-sr.v2": {**UNET, "steps": 3, "s": 0.2},
    "dit.v1": {"features": 16, "blocks": 1, "heads": 2, "steps": 3},
    "dit-sr.v1": {"features": 16, "blocks": 1, "heads": 2, "steps": 3, "s": 0.2},
    "autoencoder.v1": {"channels": 8, "multipliers": [1, 2]},
    "pixelshuffle.v1": {"hidden": 8, "blocks": 1},
    "resnet-upsampler.v1": {"hidden": 8, "blocks": 1},
    "transposed.v1": {"hidden": 8, "blocks": 1},
    "interpolate.v1": {},
    "vit.v1": {"features": 16, "heads": 2, "blocks": 1},
    "conv-refiner.v1": {"hidden": 8, "layers": 2},
    "resnet-refiner.v1": {"hidden": 8, "blocks": 1},
    "identity.v1": {},
}
"""The built-in kinds with their smallest complete configs."""

COARSE = {
    "name": "coarse",
    "kind": "flow.v1",
    "config": {"channels": 8, "multipliers": [1], "steps": 2},
}

HAS_COMPILE = "compile" in vars(Cascade)
"""Whether ``Cascade`` has its own ``compile``, not the one of ``nn.Module``."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def built_in_kinds() -> set[str]:
    """The stage kinds of the package."""
    return {
        row.entry.name
        for row in get_registry().stages
        if row.origin.distribution == BUILTIN_DISTRIBUTION
    }


def spec_of(kind: str, steps: int, **training: Any) -> dict[str, Any]:
    """A spec of a cascade around one kind: alone, or after a small flow.

    The only phase trains the stage of that kind, or the flow if the kind has no trainable
    weights.
    """
    entry = get_registry().stages.get(kind).entry
    settings = KINDS[kind]
    config = entry.load_config().model_validate(settings)
    own = {"name": "own", "kind": kind, "config": settings}
    stages = [own] if entry.role == "generator" else [COARSE, own]
    learns = not (config.frozen or config.parameterless)
    phase = {
        "name": "only",
        "train": ["own" if learns else "coarse"],
        "steps": steps,
        # A refiner that gets only true images has nothing to learn.
        "teacher_forcing": {"start": 0.5, "end": 0.5},
    }
    return _spec(stages, [phase], training)


def joint_spec(steps: int, **training: Any) -> dict[str, Any]:
    """Three jointly trained stages with teacher forcing per image."""
    stages = [
        {"name": "coarse", "kind": "flow.v1", "config": KINDS["flow.v1"]},
        {"name": "up", "kind": "pixelshuffle.v1", "config": KINDS["pixelshuffle.v1"]},
        {"name": "refine", "kind": "vit.v1", "config": KINDS["vit.v1"]},
    ]
    phase = {
        "name": "joint",
        "train": ["coarse", "up", "refine"],
        "steps": steps,
        "joint": True,
        "teacher_forcing": {"start": 0.5, "end": 0.5},
    }
    return _spec(stages, [phase], training)


def reflow_spec(steps: int, **training: Any) -> dict[str, Any]:
    """A flow with a reflow phase."""
    own = {"name": "own", "kind": "flow.v1", "config": KINDS["flow.v1"]}
    first = {"name": "first", "train": ["own"], "steps": 2}
    phase = {"name": "straight", "train": ["own"], "steps": steps, "reflow": {"pairs": 40 * BATCH}}
    return _spec([own], [first, phase], training)


def _spec(
    stages: list[dict[str, Any]], phases: list[dict[str, Any]], training: dict[str, Any]
) -> dict[str, Any]:
    return {
        "name": "device-test",
        "data": {"source": "shapes", "config": {"size": SIZE, "count": 32, "test_count": 8}},
        "stages": stages,
        "training": {
            "batch_size": BATCH,
            "losses": [],
            "phases": phases,
            "optimizer": {"lr": 1e-3},
            "schedule": {"kind": "cosine", "warmup_steps": 2},
            "log_steps": 1000,
            "checkpoint_seconds": 1e6,
            **training,
        },
        "evaluation": {"metrics": [], "extractor": "small"},
    }


def image_data(batches: int = 40, size: int = SIZE, batch: int = BATCH) -> ImageData:
    """Labelled noise for this number of batches."""
    count = batches * batch
    images = np.random.default_rng(0).integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    return ImageData(images, np.arange(count) % CLASSES, "train")


def train(
    cascade: Cascade,
    device: torch.device,
    precision: str = "fp32",
    *,
    folder: Path | None = None,
    data: ImageData | None = None,
    budget_bytes: int | None = None,
    **options: Any,
) -> Trainer:
    """Train a cascade on its device, with checkpoints in the folder."""
    data = image_data() if data is None else data
    loader = DeviceLoader(
        data,
        batch_size=cascade.spec.training.batch_size,
        seed=0,
        flip=True,
        device=device,
        budget_bytes=budget_bytes,
    )
    store = None if folder is None else CheckpointStore(folder)
    accelerator = make_accelerator(device, precision)  # type: ignore[arg-type]
    trainer = Trainer(cascade, loader, accelerator, data=data, store=store, **options)
    trainer.run()
    return trainer


def state(cascade: Cascade) -> dict[str, Tensor]:
    """A copy of all weights and saved buffers."""
    return {name: value.detach().clone() for name, value in cascade.stages.state_dict().items()}


def flat(tensors: Iterator[Tensor] | list[Tensor]) -> Tensor:
    """All values in one row, float32 on the CPU."""
    return torch.cat([t.detach().float().cpu().flatten() for t in tensors])


def distance(actual: Tensor, expected: Tensor) -> float:
    """The norm of the difference relative to the norm of the expected values."""
    actual, expected = actual.detach().double().cpu(), expected.detach().double().cpu()
    return float((actual - expected).norm() / expected.norm().clamp_min(1e-12))


class StopAfter:
    """Requests a stop at the n-th call."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self) -> str | None:
        self.left -= 1
        return "a test" if self.left == 0 else None


# --- the same numbers on every device


class HostDraw(Draw):
    """Draws on the CPU and moves to the device, because CPU and GPU draw other numbers."""

    def __init__(self, *key: str | int, home: torch.device) -> None:
        super().__init__(*key, device="cpu")
        self.home = home

    def randn(self, *shape: int) -> Tensor:
        return super().randn(*shape).to(self.home)

    def rand(self, *shape: int) -> Tensor:
        return super().rand(*shape).to(self.home)

    def randint(self, low: int, high: int, *shape: int) -> Tensor:
        return super().randint(low, high, *shape).to(self.home)


class HostImageDraw(ImageDraw):
    """Like :class:`HostDraw`, for sampling."""

    def __init__(self, count: int, home: torch.device) -> None:
        super().__init__(7, "own", 0, count, "cpu")
        self.home = home

    def randn(self, *shape: int) -> Tensor:
        return super().randn(*shape).to(self.home)

    def rand(self, *shape: int) -> Tensor:
        return super().rand(*shape).to(self.home)

    def randint(self, low: int, high: int, *shape: int) -> Tensor:
        return super().randint(low, high, *shape).to(self.home)


def stirred(spec: dict[str, Any]) -> Cascade:
    """An untrained cascade on the CPU without zero weights."""
    cascade = Cascade.from_spec(spec)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in cascade.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
    return cascade


def upstream_of(stage: Stage, count: int, device: torch.device) -> Tensor | None:
    """Upstream images of a stage, the same on every device."""
    shape = stage.geometry.input
    if shape is None:
        return None
    draw = HostDraw("upstream", home=device)
    return draw.rand(count, shape.channels, shape.size, shape.size) * 2 - 1


def labels_of(count: int, device: torch.device) -> Tensor:
    """Labels in turn."""
    return torch.arange(count).remainder(CLASSES).to(device)


def request_of(count: int, device: torch.device) -> SampleRequest:
    """A request with the same random numbers on every device."""
    return SampleRequest(count, HostImageDraw(count, device), labels_of(count, device))


def losses_and_gradients(
    stage: Stage, device: torch.device, precision: str = "fp32", count: int = BATCH
) -> tuple[dict[str, Tensor], Tensor, Tensor | None]:
    """One forward and backward pass on fixed inputs: losses, estimate and all gradients."""
    shape = stage.geometry.output
    target = HostDraw("target", home=device).rand(count, shape.channels, shape.size, shape.size)
    context = TrainContext(HostDraw("step", home=device), labels_of(count, device))
    stage.train()
    stage.zero_grad()
    with autocast(device, precision):
        output = stage(stage.preprocess(target * 2 - 1, upstream_of(stage, count, device), context))
    losses = {k: getattr(v, "value", v) for k, v in output.losses.items()}
    total = sum(losses.values(), output.estimate.float().square().mean())
    if not total.requires_grad:
        return losses, output.estimate.detach(), None
    total.backward()
    gradients = [p.grad for p in stage.parameters() if p.grad is not None]
    return losses, output.estimate.detach(), flat(gradients) if gradients else None


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The autocast context of a precision."""
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32")


# --- settings of the process


@contextlib.contextmanager
def deterministic() -> Iterator[list[str]]:
    """Use deterministic algorithms; after the block, the list names operators without one."""
    uncertain: list[str] = []
    before = torch.are_deterministic_algorithms_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield uncertain
        uncertain += {str(w.message) for w in caught if "deterministic" in str(w.message)}
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark


def use_tf32(on: bool) -> None:
    """Allow or forbid TF32 in products and convolutions of float32."""
    torch.set_float32_matmul_precision("high" if on else "highest")
    torch.backends.cudnn.allow_tf32 = on


# --- waiting


aten = torch.ops.aten
WAITING = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.nonzero_numpy,
    aten.is_nonzero,
    aten.item,
    aten.equal,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class Waited(AssertionError):
    """An operator makes the host wait for the device."""


class NeverWaits(TorchDispatchMode):
    """Fails on operators that make the host wait for a GPU, also for tensors on a CPU.

    Args:
        reads: how many scalars may be read.
    """

    def __init__(self, reads: int = 0) -> None:
        super().__init__()
        self.reads = reads

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        packet = func.overloadpacket
        if packet is aten._local_scalar_dense and self.reads > 0:
            self.reads -= 1
            return func(*args, **(kwargs or {}))
        if packet in WAITING or (packet in INDEXING and _by_mask(args[1])):
            raise Waited(f"{func} reads a tensor on the host")
        if func is aten.repeat_interleave.Tensor and (kwargs or {}).get("output_size") is None:
            raise Waited(f"{func} reads a tensor on the host")
        return func(*args, **(kwargs or {}))


class NeverReads(TorchFunctionMode):
    """Fails on methods that read a tensor on a CPU without an operator."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.item):
            raise Waited(f"{func.__name__} reads a tensor on the host")
        return func(*args, **(kwargs or {}))


def _by_mask(indices: list[Tensor | None]) -> bool:
    return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)


class SyncErrors:
    """Lets CUDA fail on operations that synchronise."""

    def __enter__(self) -> Self:
        torch.cuda.set_sync_debug_mode("error")
        return self

    def __exit__(self, *error: object) -> None:
        torch.cuda.set_sync_debug_mode("default")


@contextlib.contextmanager
def never_waits(device: torch.device, *, compiled: bool = False, reads: int = 0) -> Iterator[None]:
    """A guard for a block that must not wait for the device.

    Args:
        device: on a GPU, CUDA fails on operations that synchronise.
        compiled: do not watch operators, because torch cannot compile then.
        reads: how many scalars may be read on a CPU.
    """
    with contextlib.ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(SyncErrors())
        if not compiled:
            stack.enter_context(NeverReads())
            stack.enter_context(NeverWaits(reads))
        yield


class GuardedSteps(QuietProgress):
    """The progress of a training whose steps, after the first ones, must not wait for the device.

    A context manager, which always ends the guard.

    Args:
        device: the training device.
        total: number of steps of the guarded phase; phases of other lengths are not guarded.
        first: number of steps that may wait.
        compiled: do not watch operators, because torch cannot compile then.
    """

    def __init__(
        self, device: torch.device, total: int, *, first: int = 2, compiled: bool = False
    ) -> None:
        self.device, self.total, self.first, self.compiled = device, total, first, compiled
        self.guarded = 0
        self._this = False
        self._guard = contextlib.ExitStack()

    def phase(self, name: str, number: int, count: int, total: int, done: int) -> None:
        self._this = total == self.total

    def step(self, done: int, epoch: int, epochs: int) -> None:
        if not self._this:
            return
        self.guarded += self.first < done < self.total
        if done == self.first:
            self._guard.enter_context(never_waits(self.device, compiled=self.compiled))
        elif done == self.total - 1:  # the last step reads its losses
            self._guard.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._guard.close()


# --- figures


def note(name: str, **figures: Any) -> None:
    """Print figures, and add them to ``$OUT/gpu-tests.jsonl`` if OUT is set."""
    row = json.dumps({"name": name, **figures})
    print(row)
    if out := os.environ.get("OUT"):
        # One short write, so that processes of pytest-xdist do not mix their lines.
        with (Path(out) / "gpu-tests.jsonl").open("a", encoding="utf-8") as file:
            file.write(row + "\n")
