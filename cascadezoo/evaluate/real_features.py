"""Features of real images and their statistics: made once, then read from disk."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from cascadezoo.data.base import ImageData
from cascadezoo.errors import InputError
from cascadezoo.evaluate.features.base import FeatureExtractor, Precision
from cascadezoo.evaluate.features.moments import Moments, Statistics
from cascadezoo.util.files import cache_folder, write_atomically
from cascadezoo.util.rng import derive_seed

__all__ = ["choose_real", "features_folder", "real_features", "real_statistics"]

_LOG = logging.getLogger("cascadezoo")

BLOCK = 1000
"""How many images' features are in one file."""

KEPT_BYTES = 1 << 30
"""Features that take more than this are not kept when only their statistics are asked for."""


def features_folder() -> Path:
    """``$CASCADEZOO_CACHE/features``, or ``~/.cache/cascadezoo/features``."""
    return cache_folder() / "features"


def choose_real(total: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Which of ``total`` real images are measured against: the same for every seed.

    A smaller count chooses a part of what a larger one chooses.

    Returns:
        int64 [count], indices in [0, total).

    Raises:
        InputError: there are fewer than ``count``.
    """
    if not 0 < count <= total:
        raise InputError(
            f"{count} real images were asked for, and the data have {total}",
            hint=f"set n_real to a number from 1 to {total}, or leave it out",
            code="input-too-few-images",
            count=total,
            needed=count,
        )
    generator = torch.Generator().manual_seed(derive_seed("real images"))
    chosen: np.ndarray[tuple[int], np.dtype[np.int64]] = torch.randperm(total, generator=generator)[
        :count
    ].numpy()
    return chosen


def real_features(
    real: ImageData,
    extractor: FeatureExtractor,
    *,
    count: int | None = None,
    precision: Precision = "fp32",
    cache: Path | None = None,
) -> Tensor:
    """Features of real images, streamed: no copy of the images is made.

    They are kept on disk in blocks, as soon as each is made, so that whatever count is asked for
    later, and after an interruption, only what is missing is made.

    Args:
        real: the data.
        extractor: what turns images into features.
        count: how many images; None takes all of them.
        precision: the extractor's arithmetic.
        cache: the folder where features are kept; None is :func:`features_folder`. They are found
            again by the data's digest and split, the extractor's weights and version, the
            resolution and the precision.

    Returns:
        float32 [count, D], on the extractor's device.

    Raises:
        InputError: the data have fewer images than ``count``.
    """
    count = len(real) if count is None else count
    kept = _Kept(real, extractor, precision, cache)
    features = torch.empty(count, extractor.num_features, device=extractor.device)
    first = 0
    for block in kept.blocks(count):
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

    The features are never held all at once.

    Raises:
        InputError: there is one image only.
    """
    kept = _Kept(real, extractor, precision, cache)
    width = extractor.num_features
    path = kept.folder / "statistics.safetensors"
    found = _read(path, {"mean": (width,), "covariance": (width, width)}, torch.float64)
    if found is not None:
        return Statistics(len(real), found["mean"], found["covariance"])
    moments = Moments(width)
    for block in kept.blocks(len(real), keep=4 * width * len(real) <= KEPT_BYTES):
        moments.add(block)
    made = moments.statistics()
    _write(path, {"mean": made.mean, "covariance": made.covariance}, kept.key)
    return made


class _Kept:
    """The files of one extractor's features of one data, in the order of :func:`choose_real`."""

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
        # Names of extractors may hold what no name of a file may.
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", extractor.name)[:64]
        self.folder = (features_folder() if cache is None else cache) / f"{name}-{digest[:32]}"

    def blocks(self, count: int, *, keep: bool = True) -> Iterator[Tensor]:
        """Features of the first ``count`` images, float32 [up to BLOCK, D] on any device."""
        rows = choose_real(len(self.real), count)
        for first in range(0, count, BLOCK):
            wanted = rows[first : first + BLOCK]
            path = self.folder / f"{first // BLOCK:06d}.safetensors"
            found = _read(path, {"features": (None, self.extractor.num_features)}, torch.float32)
            known = torch.empty(0) if found is None else found["features"]
            if len(known) < len(wanted):
                made = self._extract(wanted[len(known) :]).cpu()
                known = torch.cat([known, made]) if len(known) else made
                if keep:
                    _write(path, {"features": known}, self.key)
            yield known[: len(wanted)]

    def _extract(self, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Tensor:
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
    """Cached tensors; None where there are none, or a file that is not whole."""
    try:
        # Copied, as they are the file itself otherwise.
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        _LOG.warning("cached features in %s cannot be read and are made anew: %s", path, error)
        return None
    sound = tensors.keys() == shapes.keys() and all(
        tensor.dtype == dtype
        and tensor.dim() == len(shapes[name])
        and all(want in (None, size) for want, size in zip(shapes[name], tensor.shape, strict=True))
        and bool(torch.isfinite(tensor).all())
        for name, tensor in tensors.items()
    )
    if not sound:
        _LOG.warning("cached features in %s are not what they should be and are made anew", path)
        return None
    return tensors


def _write(path: Path, tensors: Mapping[str, Tensor], key: str) -> None:
    """Keep tensors for the next time. A cache that cannot be written costs time, no more."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save(dict(tensors), {"key": key}))
    except (OSError, SafetensorError) as error:
        _LOG.warning("features of the real images cannot be kept in %s: %s", path.parent, error)
