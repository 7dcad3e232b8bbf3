"""Features of real images and their statistics: computed once, then read from disk."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from cascadezoo.data.base import ImageData
from cascadezoo.data.stream_order import real_order
from cascadezoo.errors import InputError
from cascadezoo.evaluate.features.base import FeatureExtractor, Precision
from cascadezoo.evaluate.features.moments import Moments, Statistics
from cascadezoo.util.files import cache_folder, write_atomically

__all__ = ["choose_real", "features_folder", "real_features", "real_statistics"]

_LOG = logging.getLogger("cascadezoo")

BLOCK = 1000
"""Number of images whose features share one file."""

KEPT_BYTES = 1 << 30
"""Larger features are not cached if only their statistics are needed."""


def features_folder() -> Path:
    """``$CASCADEZOO_CACHE/features``, or ``~/.cache/cascadezoo/features``."""
    return cache_folder() / "features"


def choose_real(total: int, count: int) -> NDArray[np.int64]:
    """Choose the real images to compare with; the choice is the same for every seed.

    A smaller count chooses the first images of a larger one.

    Returns:
        int64 [count], indices in [0, total).

    Raises:
        InputError: ``count`` is not in [1, total].
    """
    if not 0 < count <= total:
        raise InputError(
            f"cannot choose {count} real images: the dataset has {total}",
            hint=f"set n_real to a number from 1 to {total}, or leave it out",
            code="input-too-few-images",
            count=total,
            needed=count,
        )
    return real_order(total)[:count]


def real_features(
    real: ImageData,
    extractor: FeatureExtractor,
    *,
    count: int | None = None,
    precision: Precision = "fp32",
    cache: Path | None = None,
) -> Tensor:
    """Extract the features of real images, without a copy of the images.

    Each finished block of features is cached on disk. Later calls, with any count, compute only
    the missing features; the same holds after an interruption.

    Args:
        real: the images.
        extractor: the feature extractor.
        count: number of images; None uses all.
        precision: the precision of the extractor.
        cache: the cache folder; None uses :func:`features_folder`. The key is the digest and split
            of the images, the weights and version of the extractor, the resolution and the
            precision.

    Returns:
        float32 [count, D], on the extractor's device.

    Raises:
        InputError: there are fewer images than ``count``.
    """
    count = len(real) if count is None else count
    cached = _FeatureCache(real, extractor, precision, cache)
    features = torch.empty(count, extractor.num_features, device=extractor.device)
    first = 0
    for block in cached.blocks(count):
        features[first : first + len(block)] = block
        first += len(block)
    return features


def real_statistics(
    real: ImageData,
    extractor: FeatureExtractor,
    *,
    precision: Precision = "fp32",
    cache: Path | None = None,
) -> Statistics:
    """Mean and covariance of the features of all real images; see :func:`real_features`.

    Only one block of features is in memory at a time.

    Raises:
        InputError: there is only one image.
    """
    cached = _FeatureCache(real, extractor, precision, cache)
    width = extractor.num_features
    path = cached.folder / "statistics.safetensors"
    tensors = _read(path, {"mean": (width,), "covariance": (width, width)}, torch.float64)
    if tensors is not None:
        return Statistics(len(real), tensors["mean"], tensors["covariance"])
    moments = Moments(width)
    for block in cached.blocks(len(real), keep=4 * width * len(real) <= KEPT_BYTES):
        moments.add(block)
    statistics = moments.statistics()
    _write(path, {"mean": statistics.mean, "covariance": statistics.covariance}, cached.key)
    return statistics


class _FeatureCache:
    """The cached features of one dataset by one extractor, in the order of :func:`choose_real`."""

    def __init__(
        self, real: ImageData, extractor: FeatureExtractor, precision: Precision, cache: Path | None
    ) -> None:
        self.real = real
        self.extractor = extractor
        self.precision: Precision = precision
        self.key = json.dumps(
            {
                "data": real.digest,
                "split": real.split,
                "shape": list(real.images.shape[1:]),
                "extractor": extractor.describe(),
                "precision": precision,
                "device": extractor.device.type,
            },
            sort_keys=True,
        )
        digest = hashlib.sha256(self.key.encode()).hexdigest()
        # The name of an extractor may contain characters that a file name may not.
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", extractor.name)[:64]
        self.folder = (features_folder() if cache is None else cache) / f"{name}-{digest[:32]}"

    def blocks(self, count: int, *, keep: bool = True) -> Iterator[Tensor]:
        """Features of the first ``count`` images, float32 [up to BLOCK, D] on any device."""
        rows = choose_real(len(self.real), count)
        for first in range(0, count, BLOCK):
            requested = rows[first : first + BLOCK]
            path = self.folder / f"{first // BLOCK:06d}.safetensors"
            tensors = _read(path, {"features": (None, self.extractor.num_features)}, torch.float32)
            block = torch.empty(0) if tensors is None else tensors["features"]
            if len(block) < len(requested):
                missing = self._extract(requested[len(block) :]).cpu()
                block = torch.cat([block, missing]) if len(block) else missing
                if keep:
                    _write(path, {"features": block}, self.key)
            yield block[: len(requested)]

    def _extract(self, rows: NDArray[np.int64]) -> Tensor:
        step = self.extractor.batch_size
        parts = [
            self.extractor(
                torch.from_numpy(self.real.images[rows[first : first + step]]),
                precision=self.precision,
            )
            for first in range(0, len(rows), step)
        ]
        return torch.cat(parts)


def _read(
    path: Path, shapes: Mapping[str, tuple[int | None, ...]], dtype: torch.dtype
) -> dict[str, Tensor] | None:
    """Read cached tensors; None if the file is missing or damaged."""
    try:
        # Copied, because the loaded tensors are a memory map of the file.
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        _LOG.warning(
            "recomputing the cached features in %s: the file cannot be read: %s", path, error
        )
        return None
    valid = tensors.keys() == shapes.keys() and all(
        tensor.dtype == dtype
        and tensor.dim() == len(shapes[name])
        and all(
            known in (None, size) for known, size in zip(shapes[name], tensor.shape, strict=True)
        )
        and bool(torch.isfinite(tensor).all())
        for name, tensor in tensors.items()
    )
    if not valid:
        _LOG.warning(
            "recomputing the cached features in %s: the file has unexpected contents", path
        )
        return None
    return tensors


def _write(path: Path, tensors: Mapping[str, Tensor], key: str) -> None:
    """Cache tensors. A failure is only logged."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save(dict(tensors), {"key": key}))
    except (OSError, SafetensorError) as error:
        _LOG.warning("cannot cache the features of the real images in %s: %s", path.parent, error)
