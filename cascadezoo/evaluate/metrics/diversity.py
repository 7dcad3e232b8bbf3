"""How much samples differ from each other: mean LPIPS of random pairs, real images beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cascadezoo.errors import InputError
from cascadezoo.evaluate.configs import LpipsMetricConfig
from cascadezoo.evaluate.metrics.base import Measured, MetricCascade
from cascadezoo.evaluate.metrics.lpips_distance import LEAST_LPIPS, Lpips
from cascadezoo.evaluate.metrics.mean_scores import mean_of
from cascadezoo.evaluate.real_features import choose_real
from cascadezoo.util.rng import derive_seed

__all__ = ["disjoint_pairs", "measure"]

_WINDOW_BYTES = 1 << 28

Distance = Callable[[Tensor, Tensor], Tensor]


def measure(config: LpipsMetricConfig, given: MetricCascade) -> dict[str, Measured]:
    """Mean LPIPS of disjoint random pairs of samples, as in Zhu et al. 2017 (arXiv:1711.11586).

    Returns:
        By part: "" is of pairs among all samples, ``within-class`` of pairs of one label where the
        cascade knows labels; ``real`` and ``real-within-class`` the same of real images, where
        there are any.

    Raises:
        InputError: there are fewer than two samples, or they are too small for the backbone.
        WeightsUnavailableError: the backbone's weights are not to be had.
    """
    real, classes = given.real, given.cascade.resolved.num_classes
    count = min(given.n, len(real))
    if given.n < 2:
        raise InputError(
            "one image is no pair",
            hint="measure diversity on two at least",
            code="input-too-few-pairs",
        )
    network = Lpips(config, given.cascade.device)
    network.require(real.images.shape[-1])
    window = max(2, _WINDOW_BYTES // math.prod(real.images.shape[1:]))
    labels = None if classes is None else np.arange(given.n) % classes
    rows = choose_real(len(real), count) if count else np.empty(0, np.int64)

    def real_batches() -> Iterator[Tensor]:
        for first in range(0, count, given.batch_size):
            yield torch.from_numpy(real.images[rows[first : first + given.batch_size]])

    real_labels = None if classes is None or real.labels is None else real.labels[rows]
    found = {}
    for part, batches, known in (
        ("", given.samples.batches(given.n), labels),
        ("real", real_batches(), real_labels),
    ):
        alike = f"{part}-within-class" if part else "within-class"
        scores = _distances(network, batches, known, window, given.seed)
        for name, values in zip((part, alike), scores, strict=True):
            if len(values) == 0:
                continue
            pairs = len(values)
            found[name] = mean_of(
                values,
                least=LEAST_LPIPS,
                n=count if part else given.n,
                n_real=count if part else 0,
                note=f"{pairs} disjoint pairs",
                settings={"pairs": pairs},
                **network.described(),
            )
    return found


def disjoint_pairs(
    count: int, labels: NDArray[np.int64] | None, generator: torch.Generator
) -> Tensor:
    """Random pairs of which none shares an image with another; one image may be left over.

    Args:
        count: how many images there are.
        labels: int64 [count]; both images of a pair are then of one label, and one image of each
            label may be left over. None pairs any.
        generator: where the draws come from.

    Returns:
        int64 [P, 2], numbers of images.
    """
    order = torch.randperm(count, generator=generator)
    if labels is None or not count:
        return order[: count // 2 * 2].view(-1, 2)
    theirs = torch.from_numpy(labels)[order]
    parts = [order[theirs == int(label)] for label in np.unique(labels)]
    return torch.cat([part[: len(part) // 2 * 2].view(-1, 2) for part in parts])


def _distances(
    distance: Distance,
    batches: Iterable[Tensor],
    labels: NDArray[np.int64] | None,
    window: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Distances of random pairs, and of pairs of one label; pairs lie in one window."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "diversity"))
    overall, alike = [torch.empty(0)], [torch.empty(0)]
    first = 0
    for images in _windows(batches, window):
        stop = first + len(images)
        overall.append(_of_pairs(distance, images, disjoint_pairs(len(images), None, generator)))
        if labels is not None:
            pairs = disjoint_pairs(len(images), labels[first:stop], generator)
            alike.append(_of_pairs(distance, images, pairs))
        first = stop
    return torch.cat(overall), torch.cat(alike)


def _of_pairs(distance: Distance, images: Tensor, pairs: Tensor) -> Tensor:
    parts = [distance(images[part[:, 0]], images[part[:, 1]]) for part in torch.split(pairs, 256)]
    return torch.cat([torch.empty(0), *parts])


def _windows(batches: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The images in groups of ``size``, on the CPU: images that pairs are made of."""
    kept: list[Tensor] = []
    for batch in batches:
        rest = batch.cpu()
        while sum(map(len, kept)) + len(rest) > size:
            room = size - sum(map(len, kept))
            yield torch.cat([*kept, rest[:room]])
            kept, rest = [], rest[room:]
        kept.append(rest)
    if kept and any(map(len, kept)):
        yield torch.cat(kept)
