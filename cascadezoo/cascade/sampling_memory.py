"""The memory that sampling needs, estimated on the meta device before anything is allocated.

A config.json can claim sizes for which its weights need no more bytes: a network of convolutions
accepts any image. So the estimate runs each stage for one image on the meta device and follows the
tensors that are alive at the same time.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cascadezoo.cascade.assemble import build_stage
from cascadezoo.cascade.free_memory import free_memory
from cascadezoo.errors import CascadezooError, ResourceError
from cascadezoo.spec import ResolvedStage
from cascadezoo.spec.configs import ImageShape
from cascadezoo.stages.base import SampleRequest, Stage
from cascadezoo.util.rng import ImageDraw

__all__ = ["fitting_batch", "sampling_bytes"]

_LOG = logging.getLogger("cascadezoo")

FLOAT = 4
SHARE = 0.9
"""Share of the free memory that sampling may use."""

WORK_SPACE = 1.7
"""Factor of the estimate for batches: fragmentation, and copies that convolutions make. The memory
of batches of 4 to 12 images on a CPU was 1.3 to 1.6 times the estimate."""

COPIES = 2
"""Copies of a finished image during its conversion to bytes."""

MAX_OPERATIONS = 20_000
"""Number of traced operations of a stage, so that tracing takes seconds at most."""

GUIDANCE = 2.0
"""A scale that evaluates the network with and without label."""

NEGLIGIBLE = 32 << 20
"""Bytes that are always available; the free memory is not looked up for fewer."""

UNKNOWN = 1 << 62
HEADS = 8
OWN = "cascadezoo"


def fitting_batch(
    model: str,
    stages: Mapping[str, tuple[ResolvedStage, Stage]],
    num_classes: int | None,
    device: torch.device,
    *,
    n: int,
    batch_size: int,
    keep: bool,
) -> int:
    """The largest batch that fits into the free memory.

    Args:
        model: the cascade's name, for messages.
        stages: the stages to run, in order, with their places.
        num_classes: number of labels; None without labels.
        device: the device of the stages.
        n: number of images of the whole call, which are kept until its end.
        batch_size: the requested batch; it is made smaller, with a log message, if it does not fit.
        keep: whether the output of the stages before the last is kept too.

    Returns:
        A number from 1 to ``batch_size``.

    Raises:
        ResourceError: not even a batch of one image fits.
    """
    outputs = [place.output for place, _ in stages.values()]
    results = n * sum(map(_bytes, outputs if keep else outputs[-1:]))
    converted = (1 + COPIES) * _bytes(outputs[-1])
    wanted = min(n, batch_size)
    bound = max(converted, *(_upper_bound(*row) for row in stages.values()))
    if results + wanted * bound <= NEGLIGIBLE:
        return batch_size
    available = free_memory(device)
    if available is None or results + wanted * bound <= available // 2:
        return batch_size
    each = {name: sampling_bytes(*row, num_classes) for name, row in stages.items()}
    # Tracing the stages may have imported PyTorch's compiler, which takes memory, too.
    rest = free_memory(device)
    available = available if rest is None else rest
    largest = max(each, key=lambda name: each[name])
    per_image = max(each[largest], converted)
    usable = int(SHARE * available) - results
    if wanted * per_image * WORK_SPACE <= usable:
        return batch_size
    if per_image > usable:
        raise _too_large(model, stages[largest][0], outputs[-1], n, results, per_image, available)
    fits = max(int(usable / (per_image * WORK_SPACE)), 1)
    if fits < wanted:
        _say_once(model, wanted, fits)
    return fits


def _too_large(
    model: str,
    place: ResolvedStage,
    image: ImageShape,
    n: int,
    results: int,
    per_image: int,
    available: int,
) -> ResourceError:
    needed = results + per_image
    many = n > 1 and results > per_image
    reason = f"{n} finished images" if many else f"one image of {image} (stage {place.name!r})"
    return ResourceError(
        f"sampling from {model} needs about {needed / 2**30:,.1f} GiB of memory, most of it for "
        f"{reason}; {max(available, 0) / 2**30:,.1f} GiB are available",
        hint="sample fewer images at once; first= continues where another call ended"
        if many
        else "sample on a machine or device with more memory",
        code="resources-sampling",
        name=model,
        stage=place.name,
        kind=place.kind,
        needed=needed,
        available=available,
        n=n,
    )


@lru_cache(maxsize=64)
def _say_once(model: str, wanted: int, fits: int) -> None:
    _LOG.warning(
        "%s: sampling in batches of %d images, because %d do not fit into memory",
        model,
        fits,
        wanted,
    )


def _upper_bound(place: ResolvedStage, stage: Stage) -> int:
    """A bound of :func:`sampling_bytes` without tracing; far too large for most stages.

    All outputs of all layers, and one attention over all pixels. Only for the built-in kinds:
    what a plugin's stage allocates need not follow from its weights.
    """
    if place.origin.distribution != OWN:
        return UNKNOWN
    if stage not in _BOUNDS:
        pixels = max(shape.size for shape in (place.output, place.input or place.output)) ** 2
        widths = sum(max(p.shape[:2]) for p in stage.parameters() if p.ndim > 1)
        _BOUNDS[stage] = (FLOAT * pixels * (widths + HEADS * pixels)) + 4 * _bytes(place.output)
    return _BOUNDS[stage]


def sampling_bytes(place: ResolvedStage, stage: Stage, num_classes: int | None) -> int:
    """Peak memory to sample one image from a stage, without its weights; an estimate.

    The result is kept as long as the stage.

    Args:
        place: the place of the stage in its cascade.
        stage: the stage.
        num_classes: number of labels; None without labels.
    """
    if stage not in _PEAKS:
        shapes = (place.output,) if place.input is None else (place.output, place.input)
        # A stage that cannot be traced holds its input and two copies of its output at least.
        least = sum(map(_bytes, shapes)) + _bytes(place.output)
        _PEAKS[stage] = max(_traced(place, num_classes), least)
    return _PEAKS[stage]


_PEAKS: weakref.WeakKeyDictionary[Stage, int] = weakref.WeakKeyDictionary()
_BOUNDS: weakref.WeakKeyDictionary[Stage, int] = weakref.WeakKeyDictionary()


def _bytes(shape: ImageShape) -> int:
    return shape.channels * shape.size**2 * FLOAT


class _EnoughError(Exception):
    """The traced part contains the peak."""


def _traced(place: ResolvedStage, num_classes: int | None) -> int:
    """The peak of the first step of a stage; what was traced before an error counts too."""
    try:
        stage = build_stage(place, num_classes, "meta", 0).to("meta").eval()
    except CascadezooError:
        return 0  # a stage of a class that only a caller's registry knows
    labels = None
    if num_classes is not None:
        labels = torch.zeros(1, dtype=torch.int64, device="meta")

    def stepped(_state: Tensor) -> None:
        raise _EnoughError

    guided = num_classes is not None and "guidance" in stage.sampling_options
    peak = 0
    for options in [{"guidance": GUIDANCE}, {}] if guided else [{}]:
        tracker = _LiveBytes()
        upstream = None if place.input is None else _image(place.input)
        draw = ImageDraw(0, place.name, 0, 1, "meta")
        request = SampleRequest(1, draw, labels, watch=stepped, **options)  # type: ignore[arg-type]
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad(), tracker:
                stage.sample(upstream, request)
        except CascadezooError:
            continue  # the stage was not trained for guidance
        except Exception as error:  # noqa: BLE001
            # A plugin's stage may raise anything for meta tensors. Sampling itself reports errors.
            _LOG.debug("stage %s was traced in part: %r", place.name, error)
        peak = tracker.peak + (0 if place.input is None else _bytes(place.input))
        break
    return peak


def _image(shape: ImageShape) -> Tensor:
    return torch.empty(1, shape.channels, shape.size, shape.size, device="meta")


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the bytes of the tensors that operations make and that are alive at the same time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._now = 0
        self._count = 0
        self._live: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (list, tuple)) else (result,):
            if isinstance(tensor, Tensor):
                self._follow(tensor, args)
        self._count += 1
        if self._count > MAX_OPERATIONS:
            raise _EnoughError
        return result

    def _follow(self, tensor: Tensor, args: Sequence[Any]) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live or any(
            isinstance(arg, Tensor) and arg.untyped_storage()._cdata == key for arg in args
        ):
            return  # a view, or an operation in place
        size = storage.nbytes()

        def freed(_: Any) -> None:
            self._now -= size
            self._live.pop(key, None)

        self._live[key] = weakref.ref(storage, freed)
        self._now += size
        self.peak = max(self.peak, self._now)
