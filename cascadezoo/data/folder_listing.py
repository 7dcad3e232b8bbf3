"""Lists the image files of a folder and their classes. Opens no file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from cascadezoo.errors import DataError

__all__ = ["Listing", "list_images"]

_IMAGES = ".png .jpg .jpeg .jpe .jfif .webp .tif .tiff .bmp .gif .ppm .pgm .pbm .pnm"
_NOT_IMAGES = (
    ".txt .md .rst .json .jsonl .csv .tsv .xml .yaml .yml .toml .html .pdf .log .py .ini .db "
    ".sha256 .md5 .npy .npz .mat .parquet .zip .tar .gz .tgz .xz .bz2 .7z"
)
_NOT_IMAGE_NAMES = "readme license licence copying notice authors changelog md5sums sha256sums"
_SPLITS = "train training test testing val valid validation eval"


@dataclass(frozen=True, slots=True)
class Listing:
    """The images of a folder.

    Args:
        root: the folder.
        files: its images, relative to the folder, in the order of their names.
        classes: the subfolders that are classes, sorted; None without classes.
    """

    root: Path
    files: tuple[PurePath, ...]
    classes: tuple[str, ...] | None


def list_images(root: Path, *, labels: bool | None) -> Listing:
    """List the images under a folder.

    Args:
        root: the folder.
        labels: whether the first subfolder is the class; None decides by their locations.

    Raises:
        DataError: the folder is missing, not readable or has no images, contains a file of unknown
            type or links to one folder twice, or has images outside the subfolders although
            ``labels`` is set.
    """
    try:
        files = sorted(_walk(root), key=lambda file: file.parts)
    except FileNotFoundError as error:
        raise DataError(
            f"folder {error.filename} not found",
            hint="a relative path starts from the current directory",
            code="data-no-folder",
            path=error.filename,
        ) from error
    except NotADirectoryError as error:
        raise DataError(
            f"{root} is not a folder",
            hint="use the source npz for an .npz file",
            code="data-not-a-folder",
            path=root,
        ) from error
    except OSError as error:
        raise DataError(
            f"cannot read {root}: {error}", code="data-folder-unreadable", path=root
        ) from error
    if not files:
        raise DataError(
            f"{root} contains no images",
            hint=f"image files end in {', '.join(_IMAGES.split())}",
            code="data-no-images",
            path=root,
        )
    loose = next((file for file in files if len(file.parts) == 1), None)
    classes = tuple(sorted({file.parts[0] for file in files if len(file.parts) > 1}))
    if labels and loose is not None:
        raise DataError(
            f"{root / loose} is not in a subfolder, so it has no class",
            hint="move it into a subfolder, or set data.config.labels to false",
            code="data-no-class",
            path=root / loose,
        )
    if labels is None:
        labels = loose is None and len(classes) > 1
        if labels and {name.lower() for name in classes} <= set(_SPLITS.split()):
            raise DataError(
                f"the subfolders of {root} look like splits, not classes: {', '.join(classes)}",
                hint="set data.config.path and data.config.test_path to them; or set "
                "data.config.labels to true if they are classes",
                code="data-classes-are-splits",
                path=root,
                names=tuple(classes),
            )
    return Listing(root, tuple(files), classes if labels else None)


def _walk(root: Path) -> Iterator[PurePath]:
    """The images under a folder, without order. A link to a folder above it is not followed.

    Raises:
        DataError: two paths lead to one folder, or a file is of unknown type.
    """
    seen: dict[tuple[int, int], PurePath] = {}
    # Folders to list, with the folders above each of them.
    waiting: list[tuple[PurePath, frozenset[tuple[int, int]]]] = [(PurePath(), frozenset())]
    while waiting:
        inside, above = waiting.pop()
        state = (root / inside).stat()
        identity = (state.st_dev, state.st_ino)
        if identity in above:
            continue
        if identity in seen:
            pair = sorted((seen[identity], inside))
            raise DataError(
                f"{root / pair[0]} and {root / pair[1]} are one folder",
                hint="remove the link, or copy the folder",
                code="data-folder-twice",
                path=root / pair[1],
            )
        seen[identity] = inside
        above |= {identity}
        with os.scandir(root / inside) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    waiting.append((inside / entry.name, above))
                elif _is_image(root / inside / entry.name):
                    yield inside / entry.name


def _is_image(path: Path) -> bool:
    suffix, name = path.suffix.lower(), path.name.lower()
    if suffix in _IMAGES.split():
        return True
    if suffix in _NOT_IMAGES.split() or name in _NOT_IMAGE_NAMES.split():
        return False
    raise DataError(
        f"{path} is neither an image nor a file type to ignore",
        hint=f"convert, rename or remove it; images end in {', '.join(_IMAGES.split())}",
        code="data-file-strange",
        path=path,
    )
