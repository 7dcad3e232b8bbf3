"""Outputs of ``cascadezoo sample``: a grid, a strip of the stages, an .npz file, a folder.

An output is opened before sampling, which checks that it can be written. It takes one batch after
another, and appears complete or not at all (in a folder: each file). It stores bytes, not floats.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from cascadezoo.errors import InputError
from cascadezoo.model_folder.integrity import refuse_bundled
from cascadezoo.util.files import disk_full, writing_to

if TYPE_CHECKING:
    from torch import Tensor

    from cascadezoo.model_folder.recipe import Recipe
    from cascadezoo.spec.configs import ImageShape

Describe = Callable[[int, int, int | None], "Recipe"]
"""Maps the first image, the number of images, and the place of the only shown image (None: all) to
the recipe of a picture."""

Span = tuple[int, int, int, int | None]
"""The first image, the number of images, the batch size, and the place of the only image that is
kept; None keeps all."""

__all__ = ["Describe", "ImageFile", "Span", "format_of", "open_images", "replacing", "require_grid"]

LARGEST_GRID = 2**26
"""Maximum pixels of a grid; Pillow stores three bytes of each."""
LONGEST_STRIP = 256
_SPACE = "free space on that disk, or choose another path with -o"
CELL = 96


class ImageFile(Protocol):
    """An output that accepts batches of images."""

    def add(self, stages: Mapping[str, Tensor], labels: Sequence[int] | None) -> None:
        """Add a batch: uint8 [N, C, H, W] by stage; the last stage gives the final images."""


def format_of(path: str, strip: str | None) -> str:
    """The output format of a path: ``grid``, ``strip``, ``npz`` or ``folder``.

    Args:
        path: the path of a file or folder.
        strip: the option that requests a strip, ``stages`` or ``trajectory``; None for no strip.

    Raises:
        InputError: the suffix is unknown, or a strip is requested for another file than a .png.
    """
    suffix = Path(path).suffix.lower()
    if path.endswith(("/", os.sep)) or Path(path).is_dir() or not suffix:
        kind = "folder"
    elif suffix == ".png":
        return "strip" if strip else "grid"
    elif suffix == ".npz":
        kind = "npz"
    else:
        raise InputError(
            f"images cannot be written as {suffix} ({path})",
            hint="use a .png file (a grid), an .npz file, or a folder DIR/",
            code="input-image-suffix",
            path=path,
        )
    if strip:
        raise InputError(
            f"--{strip} needs a .png file, not {path}",
            hint=f"-o {strip}.png --{strip}",
            code="input-strip-suffix",
            path=path,
        )
    return kind


@contextmanager
def open_images(
    path: Path,
    what: str,
    *,
    n: int,
    image: ImageShape,
    labelled: bool,
    force: bool,
    class_names: Sequence[str] | None = None,
    described: Describe | None = None,
    span: Span = (0, 0, 1, None),
    captions: bool = False,
    columns: int | None = None,
) -> Iterator[ImageFile]:
    """Open an output for ``n`` images. It is complete when the block ends without an error.

    Args:
        path: a file, which is replaced, or a folder. Parent folders are created.
        what: see :func:`format_of`; or ``single``, an image as a file.
        n: the number of images.
        image: the shape of an image.
        labelled: whether the images have labels.
        force: replace files in a folder.
        class_names: the names of the labels, for a strip and an .npz file; None leaves them out.
        described: gives the recipe of a picture, which its file states; None for files that state
            nothing.
        span: which images are sampled, see :data:`Span`.
        captions: write the class of each image of a grid below it: its name, or its number.
        columns: images in a row of a grid; None makes it about square.

    Raises:
        InputError: the path cannot be written, the folder contains such files, or the picture would
            be too large.
        DiskFullError: the disk is full.
    """
    if what == "grid":
        require_grid(n, image.size)
    elif what == "strip" and n > LONGEST_STRIP:
        raise _too_large(n, "-o DIR/ or -o images.npz")
    if what == "folder":
        yield _Folder(path, n, force, described, span)
        return
    with replacing(path) as file:
        if what == "npz":
            shape = (n, image.size, image.size, image.channels)
            with _npz(file, shape, labelled, class_names) as npz:
                yield npz
        else:
            picture = _Picture(what, class_names, captions, columns)
            yield picture
            first, count, _, index = span
            recipe = None if described is None else described(first, count, index)
            picture.save(file, recipe)


def require_grid(n: int, size: int, hint: str = "-o DIR/ or -o images.npz") -> None:
    """Check before sampling that a grid of ``n`` images of height and width ``size`` is possible.

    Raises:
        InputError: the grid would be too large.
    """
    cell = size * max(1, CELL // size)
    if n * cell * cell > LARGEST_GRID:
        raise _too_large(n, hint)


def _too_large(n: int, hint: str) -> InputError:
    return InputError(
        f"a picture of {n} images is too large", hint=hint, code="input-picture-too-large", n=n
    )


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A temporary file that replaces ``path`` when the block ends without an error.

    Raises:
        InputError: the path cannot be written, or is inside a bundled model.
        DiskFullError: the disk is full; the former file is kept.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _writable(path):
        if path.is_dir():
            raise IsADirectoryError(21, os.strerror(21))
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = temporary.open("w+b")
    try:
        with writing_to(path, hint=_SPACE), opened as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    refuse_bundled(path)
    try:
        yield
    except OSError as error:
        raise disk_full(error, path, hint=_SPACE) or InputError(
            f"{path} cannot be written: {error.strerror}",
            hint="choose another path with -o",
            code="input-output-not-writable",
            path=path,
        ) from error


class _Picture:
    def __init__(
        self,
        what: str,
        class_names: Sequence[str] | None,
        captions: bool,
        columns: int | None,
    ) -> None:
        self.what = what
        self.class_names = class_names
        self.captions = captions
        self.columns = columns
        self.labels: list[int] = []
        self.rows: dict[str, list[Tensor]] = {}

    def add(self, stages: Mapping[str, Tensor], labels: Sequence[int] | None) -> None:
        for name, images in stages.items():
            self.rows.setdefault(name, []).append(images)
        self.labels += labels or []

    def save(self, file: IO[bytes], recipe: Recipe | None) -> None:
        import torch

        from cascadezoo.report.images import grid, stage_strip, to_pil

        stages = {name: torch.cat(rows) for name, rows in self.rows.items()}
        names = [self.class_names[i] for i in self.labels] if self.class_names else None
        if self.what == "strip":
            picture = stage_strip(stages, names=names or None)
        elif self.what == "single":
            (picture,) = to_pil(list(stages.values())[-1])
        else:
            captions = (names or list(map(str, self.labels))) if self.captions else None
            picture = grid(list(stages.values())[-1], self.columns, names=captions)
        info = None if recipe is None else recipe.png_info()
        picture.save(file, format="PNG", pnginfo=info)


class _Folder:
    def __init__(
        self, path: Path, n: int, force: bool, described: Describe | None, span: Span
    ) -> None:
        self.path = path
        self.done = 0
        self.described = described
        self.span = span
        with _writable(path):
            path.mkdir(parents=True, exist_ok=True)
            existing = {entry.name for entry in os.scandir(path)}
            probe = path / f".{os.getpid()}.tmp"
            probe.touch()
            probe.unlink()
        taken = next((name for i in range(n) if (name := _number(i)) in existing), None)
        if taken is not None and not force:
            raise InputError(
                f"{path} already contains {taken}",
                hint="choose another folder with -o, or replace the files with --force",
                code="input-output-exists",
                path=path,
            )

    def add(self, stages: Mapping[str, Tensor], labels: Sequence[int] | None) -> None:
        from cascadezoo.report.images import to_pil

        for image in to_pil(list(stages.values())[-1]):
            temporary = self.path / f".{os.getpid()}.tmp"
            try:
                with writing_to(self.path, hint=_SPACE):
                    recipe = self._recipe()
                    info = None if recipe is None else recipe.png_info()
                    image.save(temporary, format="PNG", pnginfo=info)
                    temporary.replace(self.path / _number(self.done))
            finally:
                temporary.unlink(missing_ok=True)
            self.done += 1

    def _recipe(self) -> Recipe | None:
        """The recipe of the next image: its batch, whose rounding it shares, and its place."""
        if self.described is None:
            return None
        first, n, batch_size, index = self.span
        if index is not None:
            return self.described(first, n, index)
        start = self.done // batch_size * batch_size
        return self.described(first + start, min(batch_size, n - start), self.done - start)


def _number(index: int) -> str:
    return f"{index:06}.png"


class _Npz:
    """``arr_0`` uint8 [N, H, W, C], ``arr_1`` int64 [N]: the format of evaluation suites."""

    def __init__(self, array: IO[bytes]) -> None:
        self.array = array
        self.labels: list[int] = []

    def add(self, stages: Mapping[str, Tensor], labels: Sequence[int] | None) -> None:
        images = list(stages.values())[-1]
        self.array.write(images.permute(0, 2, 3, 1).contiguous().numpy().tobytes())
        self.labels += labels or []


@contextmanager
def _npz(
    file: IO[bytes], shape: tuple[int, ...], labelled: bool, names: Sequence[str] | None
) -> Iterator[_Npz]:
    import numpy as np

    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as array:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(array, header)
            npz = _Npz(array)
            yield npz
        if labelled:
            with archive.open("arr_1.npy", "w", force_zip64=True) as array:
                np.lib.format.write_array(array, np.asarray(npz.labels, dtype=np.int64))
        if labelled and names:
            with archive.open("class_names.npy", "w") as array:
                np.lib.format.write_array(array, np.asarray(names))
