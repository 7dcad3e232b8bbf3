"""Decodes images of a source to the form of a cascade, and replaces bad ones."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cascadezoo.data.base import ImageData
from cascadezoo.data.image_decoder import decode_image, decode_share
from cascadezoo.data.picture_files import bombs_are_errors
from cascadezoo.data.preparation import Fit, prepare
from cascadezoo.data.source import ImageSource, SequentialSource
from cascadezoo.errors import CascadezooError, DataError

__all__ = ["Decoded", "Decoder", "ImageForm"]

_TRIES = 1000
"""Number of images in a row that may be bad."""

Candidate = tuple[str, str, Callable[[], bytes | Path], int | None]
"""An image's key, its name in messages, its file or bytes, its label."""


@dataclass(frozen=True, slots=True)
class ImageForm:
    """The images that a cascade needs.

    Args:
        size: height and width in pixels.
        channels: 1 or 3.
        fit: how images of another size are converted.
        num_classes: number of labels; None without labels.
    """

    size: int
    channels: int
    fit: Fit = "resize"
    num_classes: int | None = None


@dataclass(slots=True)
class Decoded:
    """A decoded batch, or the error that it ends with.

    Args:
        images: uint8 [B, C, H, W].
        labels: int64 [B]; None without labels.
        skipped: the reason by the key of an image that was replaced.
        error: the first error. An exception would lose its hint between processes.
    """

    images: Tensor
    labels: Tensor | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    error: CascadezooError | None = None

    def pin_memory(self) -> Self:
        """Move the tensors to memory from which a GPU can copy them; torch calls it."""
        self.images = self.images.pin_memory()
        if self.labels is not None:
            self.labels = self.labels.pin_memory()
        return self


class Decoder:
    """Decodes images of a source. It may be used by several threads and processes at once.

    Args:
        source: the source.
        form: the form of the results.
        workers: number of threads or processes that decode at the same time; they share the
            memory for decoding. An image that takes more than their share is decoded alone.
        tolerant: replace a bad image by the next good one of the source.
    """

    def __init__(
        self,
        source: ImageSource | SequentialSource,
        form: ImageForm,
        *,
        workers: int,
        tolerant: bool,
    ) -> None:
        self.source = source
        self.form = form
        self.tolerant = tolerant
        self._share = decode_share(max(1, workers))
        self._alone = multiprocessing.get_context().Lock()

    def rows(self, rows: Iterable[int], pool: Executor | None = None) -> Decoded:
        """Decode images of a source that can be read in any order.

        Args:
            rows: numbers of the images.
            pool: threads that decode; None uses only this one.
        """
        source = self.source
        assert isinstance(source, ImageSource)  # noqa: S101 - for mypy
        return self.decode([self._from(source, int(row)) for row in rows], pool)

    def decode(
        self, places: Sequence[Iterable[Candidate]], pool: Executor | None = None
    ) -> Decoded:
        """Decode a batch.

        Args:
            places: for each place of the batch the image, followed by those that may replace it.
            pool: threads that decode; None uses only this one.
        """
        form, skipped = self.form, {}
        images = np.empty((len(places), form.channels, form.size, form.size), dtype=np.uint8)
        labels = np.zeros(len(places), dtype=np.int64)
        labelled = False
        one = self._first_good
        try:
            with bombs_are_errors():
                results = map(one, places) if pool is None else pool.map(one, places)
                for place, (pixels, label, bad) in enumerate(results):
                    images[place] = pixels
                    if label is not None:
                        labels[place], labelled = label, True
                    skipped.update(bad)
        except CascadezooError as error:
            return Decoded(torch.empty(0), error=error)
        return Decoded(
            torch.from_numpy(images), torch.from_numpy(labels) if labelled else None, skipped
        )

    def _from(self, source: ImageSource, row: int) -> Iterator[Candidate]:
        for offset in range(len(source)):
            other = (row + offset) % len(source)
            label = None if source.labels is None else int(source.labels[other])

            def read(number: int = other) -> bytes | Path:
                return source.encoded(number)

            yield source.key(other), source.title(other), read, label

    def _first_good(
        self, candidates: Iterable[Candidate]
    ) -> tuple[NDArray[np.uint8], int | None, dict[str, str]]:
        bad: dict[str, str] = {}
        error: DataError | None = None
        for key, title, read, label in candidates:
            if len(bad) >= _TRIES:
                break
            try:
                self._check_label(title, label)
                return self._pixels(read(), title), label, bad
            except DataError as caught:
                error = caught
                bad[key] = caught.what
                if not self.tolerant:
                    break
        if error is None:
            raise DataError(f"{self.source.name} contains no images", code="data-no-images")
        raise error

    def _pixels(self, encoded: bytes | Path, title: str) -> NDArray[np.uint8]:
        source, form = self.source, self.form
        resize = source.side if source.resize else None
        pixels = decode_image(encoded, source.channels, resize, self._share, name=title)
        if pixels is None:
            with self._alone:
                pixels = decode_image(encoded, source.channels, resize, name=title)
        assert pixels is not None  # noqa: S101 - for mypy: without a limit there is an image
        side = pixels.shape[-1]
        if side != source.side:
            raise DataError(
                f"images have different sizes: {title} is {side}x{side} after cropping, the first "
                f"image is {source.side}x{source.side}",
                hint=f"set data.config.resize, e.g. to {min(side, source.side)}",
                code="data-sizes-differ",
                path=title,
            )
        one = ImageData(pixels[None], None, source.split)
        ready = prepare(one, size=form.size, channels=form.channels, fit=form.fit)
        image: NDArray[np.uint8] = ready.images[0]
        return image

    def _check_label(self, title: str, label: int | None) -> None:
        classes = self.form.num_classes
        if classes is None or (label is not None and 0 <= label < classes):
            return
        reason = "no label" if label is None else f"the label {label}"
        raise DataError(
            f"{title} has {reason}, but the cascade has {classes} classes",
            hint="correct it, or set data.num_classes",
            code="data-label-invalid",
            path=title,
            label=label,
        )
