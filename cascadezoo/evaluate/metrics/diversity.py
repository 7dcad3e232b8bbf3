"""Diversity of samples: mean LPIPS of random pairs, compared with that of real images."""

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
from cascadezoo.evaluate.metrics.lpips_distance import MIN_TOLERANCE, Lpips
from cascadezoo.evaluate.metrics.mean_scores import mean_of
from cascadezoo.evaluate.real_features import choose_real
from cascadezoo.util.rng import derive_seed

__all__ = ["disjoint_pairs", "measure"]

_WINDOW_BYTES = 1 << 28

Distance = Callable[[Tensor, Tensor], Tensor]


def measure(config: LpipsMetricConfig, inputs: MetricCascade) -> dict[str, Measured]:
    """Mean LPIPS of disjoint random pairs of samples, as in Zhu et al. 2017 (arXiv:1711.11586).

    Returns:
        By part: "" is the mean over pairs of samples; ``within-class`` over pairs of equal label,
        if the cascade has labels; ``real`` and ``real-within-class`` are the same for real images,
        if available.

    Raises:
        InputError: there are fewer than two samples, or they are too small for the backbone.
        WeightsUnavailableError: the weights of the backbone are unavailable.
    """
    real, classes = inputs.real, inputs.cascade.resolved.num_classes
    count = min(inputs.n, len(real))
    if inputs.n < 2:
        raise InputError(
            f"diversity needs at least 2 images, not {inputs.n}",
            hint="set n to at least 2",
            code="input-too-few-pairs",
            n=inputs.n,
        )
    network = Lpips(config, inputs.cascade.device)
    network.require(real.images.shape[-1])
    window = max(2, _WINDOW_BYTES // math.prod(real.images.shape[1:]))
    labels = None if classes is None else np.arange(inputs.n) % classes
    rows = choose_real(len(real), count) if count else np.empty(0, np.int64)

    def real_batches() -> Iterator[Tensor]:
        for first in range(0, count, inputs.batch_size):
            yield torch.from_numpy(real.images[rows[first : first + inputs.batch_size]])

    real_labels = None if classes is None or real.labels is None else real.labels[rows]
    results = {}
    for part, batches, part_labels in (
        ("", inputs.samples.batches(inputs.n), labels),
        ("real", real_batches(), real_labels),
    ):
        within = f"{part}-within-class" if part else "within-class"
        scores = _distances(network, batches, part_labels, window, inputs.seed)
        for name, values in zip((part, within), scores, strict=True):
            if len(values) == 0:
                continue
            pairs = len(values)
            results[name] = mean_of(
                values,
                min_tolerance=MIN_TOLERANCE,
                n=count if part else inputs.n,
                n_real=count if part else 0,
                note=f"{pairs} disjoint pairs",
                settings={"pairs": pairs},
                **network.describe(),
            )
    return results


def disjoint_pairs(
    count: int, labels: NDArray[np.int64] | None, generator: torch.Generator
) -> Tensor:
    """Draw random pairs so that each image is in at most one pair.

    Args:
        count: number of images.
        labels: int64 [count]; both images of a pair then have the same label, and one image of each
            label may be left over. None pairs any images; one may be left over.
        generator: the source of randomness.

    Returns:
        int64 [P, 2], indices of images.
    """
    order = torch.randperm(count, generator=generator)
    if labels is None or not count:
        return order[: count // 2 * 2].view(-1, 2)
    shuffled = torch.from_numpy(labels)[order]
    parts = [order[shuffled == int(label)] for label in np.unique(labels)]
    return torch.cat([part[: len(part) // 2 * 2].view(-1, 2) for part in parts])


def _distances(
    distance: Distance,
    batches: Iterable[Tensor],
    labels: NDArray[np.int64] | None,
    window: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Distances of random pairs and of pairs of equal label, both within windows of images."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "diversity"))
    overall, within = [torch.empty(0)], [torch.empty(0)]
    first = 0
    for images in _windows(batches, window):
        stop = first + len(images)
        overall.append(_of_pairs(distance, images, disjoint_pairs(len(images), None, generator)))
        if labels is not None:
            pairs = disjoint_pairs(len(images), labels[first:stop], generator)
            within.append(_of_pairs(distance, images, pairs))
        first = stop
    return torch.cat(overall), torch.cat(within)


def _of_pairs(distance: Distance, images: Tensor, pairs: Tensor) -> Tensor:
    parts = [distance(images[part[:, 0]], images[part[:, 1]]) for part in torch.split(pairs, 256)]
    return torch.cat([torch.empty(0), *parts])


def _windows(batches: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Group the images into windows of ``size``, on the CPU."""
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
