"""The images of a folder, decoded one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from cascadezoo.data.base import Split
from cascadezoo.data.image_decoder import square_size
from cascadezoo.data.names import Names
from cascadezoo.data.source import ImageSource

__all__ = ["FileSource"]


class FileSource(ImageSource):
    """Image files; any order is as fast.

    Args:
        root: the folder.
        files: their paths relative to the folder; at least one.
        labels: the class of each; None without labels.
        channels: 1 for grey, 3 for RGB.
        resize: the side of the images; None uses that of the first.
        split: the part of the dataset.

    Raises:
        DataError: the first image is not readable.
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[PurePath],
        labels: NDArray[np.int64] | None,
        *,
        channels: int,
        resize: int | None,
        split: Split,
    ) -> None:
        side = resize or square_size(root / files[0])
        super().__init__(str(root), split, channels=channels, side=side, resize=resize is not None)
        self.labels = labels
        self._root = root
        self._names = Names(file.as_posix() for file in files)

    def __len__(self) -> int:
        return len(self._names)

    def key(self, row: int) -> str:
        """The path relative to the folder."""
        return self._names[row]

    def title(self, row: int) -> str:
        """The path."""
        return str(self._root / self._names[row])

    def encoded(self, row: int) -> Path:
        """The file."""
        return self._root / self._names[row]

    def sizes(self) -> NDArray[np.int64]:
        """The bytes of each file; -1 if it is missing."""
        return np.array([_size(self.encoded(row)) for row in range(len(self))], dtype=np.int64)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # decoding reports it
        return -1
