"""Opens image files of users and datasets: checked before they are decoded."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from cascadezoo.data.files import open_data
from cascadezoo.data.memory import DATA_VARIABLE, largest_data
from cascadezoo.errors import DataError
from cascadezoo.util.limits import LARGEST_PICTURE, LARGEST_PICTURE_FILE

__all__ = ["DAMAGE", "MODES", "bombs_are_errors", "opened_picture"]

_FORMATS = ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM"]
MODES = "1 L LA La P PA RGB RGBA RGBa RGBX CMYK YCbCr"
DAMAGE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders raise for damaged bytes."""


@contextmanager
def opened_picture(
    source: Path | bytes, name: object = None, modes: str = MODES
) -> Iterator[Image.Image]:
    """Open an image and check its mode; errors of later decoding become a DataError, too.

    Args:
        source: the file, or its bytes.
        name: the image in messages; None is the file.
        modes: Pillow's modes that are accepted, separated by spaces.

    Raises:
        DataError: the file is missing, damaged, too large, or has another mode.
    """
    path = source if name is None and isinstance(source, Path) else name
    try:
        with _file(source, path) as file, Image.open(file, formats=_FORMATS) as image:
            if image.mode not in modes.split():
                raise DataError(
                    f"{path} has pixels of type {image.mode}, not 8 bits a channel",
                    hint="convert it to 8 bits",
                    code="data-pixel-type",
                    path=path,
                    mode=image.mode,
                )
            if image.mode in ("P", "PA") and image.palette is None:
                raise SyntaxError("its palette is missing")
            yield image
    except FileNotFoundError as error:
        link = isinstance(source, Path) and source.is_symlink()
        raise DataError(
            f"{path} not found{': it is a broken link' if link else ''}",
            hint="remove the link" if link else "check the spelling of the path",
            code="data-file-missing",
            path=path,
        ) from error
    except IsADirectoryError as error:
        raise DataError(
            f"{path} is a folder, not a picture",
            hint=f"name the files in it: {path}/*.png",
            code="data-image-folder",
            path=path,
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{path} is too large: {error}",
            hint=f"make it smaller, or remove it; or set {DATA_VARIABLE} to a larger limit",
            code="data-image-too-large",
            path=path,
        ) from error
    except DAMAGE as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "its format is unknown"  # Pillow's message is about an object in memory
        raise DataError(
            f"{path} is not a readable image: {reason}",
            hint="replace or remove it",
            code="data-image-unreadable",
            path=path,
        ) from error


def _file(source: Path | bytes, path: object) -> BinaryIO:
    """Open the bytes of an image file that is not too large."""
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    most = largest_data(LARGEST_PICTURE_FILE)
    if size > most:
        raise DataError(
            f"{path} is too large: it has {size:,} bytes, more than the limit of {most:,}",
            hint=f"make it smaller, or remove it; or set {DATA_VARIABLE} to a larger limit",
            code="data-image-too-large",
            path=path,
        )
    return io.BytesIO(source) if isinstance(source, bytes) else open_data(source)


@contextmanager
def bombs_are_errors() -> Iterator[None]:
    """Set Pillow's limit and the warning filters, which threads share, around all threads."""
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        # Unusual metadata causes warnings, but only the pixels matter.
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        Image.MAX_IMAGE_PIXELS = largest_data(4 * LARGEST_PICTURE) // 4
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before
