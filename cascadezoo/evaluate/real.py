"""Features of real images: made once for each data, extractor and count, then read from disk."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cascadezoo.data.base import ImageData
from cascadezoo.draws import derive_seed
from cascadezoo.errors import InputError
from cascadezoo.evaluate.features import FeatureExtractor, Precision
from cascadezoo.hub import verified

__all__ = ["cache_folder", "choose_real", "real_features"]

_LOG = logging.getLogger("cascadezoo")
_BATCH = 256


def cache_folder() -> Path:
    """``$CASCADEZOO_CACHE/features``, or ``~/.cache/cascadezoo/features``."""
    return verified.cache_folder() / "features"


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

    Args:
        real: the data.
        extractor: what turns images into features.
        count: how many images; None takes all of them.
        precision: the extractor's arithmetic.
        cache: the folder where features are kept; None is :func:`cache_folder`. They are found
            again by the data's digest and split, the extractor's weights and version, the
            resolution, the count and the precision.

    Returns:
        float32 [count, D], on the extractor's device.

    Raises:
        InputError: the data have fewer images than ``count``.
    """
    count = len(real) if count is None else count
    rows = choose_real(len(real), count)
    key = {
        "data": real.digest,
        "split": real.split,
        "shape": list(real.images.shape[1:]),
        "extractor": extractor.describe(),
        "count": count,
        "precision": precision,
        "device": extractor.device.type,
    }
    folder = cache_folder() if cache is None else cache
    text = json.dumps(key, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    path = folder / f"{extractor.name}-{digest[:32]}.safetensors"
    found = _read(path, (count, extractor.num_features))
    if found is not None:
        return found.to(extractor.device)
    parts = [
        extractor(torch.from_numpy(real.images[rows[first : first + _BATCH]]), precision=precision)
        for first in range(0, count, _BATCH)
    ]
    features = torch.cat(parts)
    _write(path, features, {"key": text})
    return features


def _read(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """Cached features; None where there are none, or a file that is not whole."""
    try:
        features = load_file(path).get("features")
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        _LOG.warning("cached features in %s cannot be read and are made anew: %s", path, error)
        return None
    if features is None or features.shape != shape or features.dtype != torch.float32:
        _LOG.warning("cached features in %s are not what they should be and are made anew", path)
        return None
    return features


def _write(path: Path, features: Tensor, metadata: dict[str, str]) -> None:
    """Keep features for the next time. A cache that cannot be written costs time, no more."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            part = Path(folder) / path.name
            save_file({"features": features.cpu()}, part, metadata=metadata)
            part.replace(path)
    except (OSError, SafetensorError) as error:
        _LOG.warning("features of the real images cannot be kept in %s: %s", path.parent, error)
