"""Images of the first stages, cached for all settings that differ only in later stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.cascade.sampling import truncates
from cascadezoo.evaluate.options import EvaluationOptions
from cascadezoo.evaluate.partial_cascades import upto
from cascadezoo.tune.grid import Value, request_of

__all__ = ["Upstream"]

Options = Mapping[str, Mapping[str, Value]]


@dataclass(slots=True)
class _Level:
    """The output of one stage: its options, the images on the CPU, and their sampling time."""

    key: tuple[Any, ...]
    images: Tensor
    seconds: float


class Upstream:
    """Samples a cascade under changing options and reuses the images of earlier stages.

    A stage's images are reused for the next setting if its options are the same. A truncated stage
    requires images that stop at its own noise level, so they are sampled again for each setting.

    Args:
        cascade: the trained cascade.
        options: the evaluation's options, with ``n``, ``seed`` and ``batch_size`` of the images.
        kept_to: the number of the last stage with a changing parameter; images of this stage and
            of later ones are not kept.
        real: the number of a stage and the real images that it receives, [n, C, H, W].
        labels: one label per image; None uses all labels in turn.
        sampled: called with the number of images that the last stage has sampled.
    """

    def __init__(
        self,
        cascade: Cascade,
        options: EvaluationOptions,
        *,
        kept_to: int,
        real: tuple[int, Tensor] | None = None,
        labels: list[int] | None = None,
        sampled: Callable[[int], None] | None = None,
    ) -> None:
        self.cascade = cascade
        self.n = options.n
        self.seed = options.seed
        self.batch_size = options.batch_size
        self.kept_to = kept_to
        self.real = real
        self.labels = labels
        self.sampled = sampled
        self.levels_sampled = 0
        self.seconds = 0.0
        self._levels: dict[int, _Level] = {}

    def sample_fn(self, options: Options) -> Callable[[int, int], Tensor]:
        """Return ``sample(first, count)`` under these options, for ``evaluate_kid``.

        Sets :attr:`seconds` to the time of sampling all images from noise, including the time of
        cached images.
        """
        last = len(self.cascade.names) - 1
        start, base = self._base(last, options)
        self.seconds = 0.0 if base is None else base.seconds

        def sample(first: int, count: int) -> Tensor:
            began = time.perf_counter()
            images = self._run(start, last, base, options, first, count)
            self._wait()
            self.seconds += time.perf_counter() - began
            if self.sampled is not None:
                self.sampled(first + count)
            return images

        return sample

    def _base(self, place: int, options: Options) -> tuple[int, _Level | None]:
        """The first stage to run for the output of ``place``, and the images that it receives."""
        for start in range(place, 0, -1):
            if self.real is not None and start == self.real[0]:
                return start, _Level((), self.real[1], 0.0)
            if start <= self.kept_to and not self._truncates(start, options):
                return start, self._level(start - 1, options)
        return 0, None

    def _level(self, place: int, options: Options) -> _Level:
        names = self.cascade.names[: place + 1]
        key = tuple(tuple(sorted(options.get(name, {}).items())) for name in names)
        known = self._levels.get(place)
        if known is not None and known.key == key:
            return known
        self._levels.pop(place, None)  # before sampling, so that memory holds only one
        start, base = self._base(place, options)
        began = time.perf_counter()
        rows = []
        for first in range(0, self.n, self.batch_size):
            count = min(self.batch_size, self.n - first)
            rows.append(self._run(start, place, base, options, first, count).cpu())
        self._wait()
        seconds = time.perf_counter() - began + (0.0 if base is None else base.seconds)
        self.levels_sampled += 1
        level = _Level(key, torch.cat(rows), seconds)
        self._levels[place] = level
        return level

    def _run(
        self, start: int, place: int, base: _Level | None, options: Options, first: int, count: int
    ) -> Tensor:
        """Sample the stages from ``start`` to ``place`` for the images from ``first`` on."""
        names = self.cascade.names[start : place + 1]
        request = request_of({name: options[name] for name in names if name in options})
        request |= {"seed": self.seed, "first": first, "batch_size": count}
        if self.labels is not None:
            request["labels"] = self.labels[first : first + count]
        part = upto(self.cascade, self.cascade.names[place])
        images: Tensor
        if base is None:
            images = part.sample(count, **request)
        else:
            rows = base.images[first : first + count]
            images = part.sample_from(names[0], rows, **request)
        return images

    def _truncates(self, place: int, options: Options) -> bool:
        name = self.cascade.names[place]
        option = options.get(name, {}).get("truncated")
        return truncates(self.cascade.stage(name), None if option is None else bool(option))

    def _wait(self) -> None:
        if self.cascade.device.type == "cuda":
            torch.cuda.synchronize(self.cascade.device)
