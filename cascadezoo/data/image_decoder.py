"""Decodes an image file, or its bytes, into a square uint8 array, within limits."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cascadezoo.data.files import open_data
from cascadezoo.data.memory import DATA_VARIABLE, largest_data, physical_memory
from cascadezoo.errors import DataError
from cascadezoo.util.limits import LARGEST_PICTURE, LARGEST_PICTURE_FILE

__all__ = ["bombs_are_errors", "decode_image", "decode_share", "square_size"]

_FORMATS = ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM"]
_MODES = "1 L LA La P PA RGB RGBA RGBa RGBX CMYK YCbCr"
_DAMAGE = (
    # Exceptions of Pillow's decoders for damaged bytes.
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)
_IN_FLIGHT = 512 << 20
"""Bytes that all threads together may decode at the same time, on a small machine."""

# Pillow stores a pixel of most modes in 4 bytes. At the peak there are two images (before and
# after a conversion) or an image and two arrays.
_BYTES_PER_PIXEL = 12


def square_size(source: Path | bytes, name: object = None) -> int:
    """The side of an image's centre square in pixels, from its header.

    Args:
        source: the file, or its bytes.
        name: the image in messages; None is the file.

    Raises:
        DataError: it is not a readable image, or is too large.
    """
    with bombs_are_errors(), _opened(source, name) as image:
        return min(image.size)


def decode_share(workers: int) -> int:
    """Bytes that each of ``workers`` may decode at once; all share a fixed amount."""
    return max(_IN_FLIGHT, (physical_memory() or 0) // 8) // workers


def decode_image(
    source: Path | bytes,
    channels: int,
    resize: int | None,
    most: int | None = None,
    *,
    name: object = None,
) -> NDArray[np.uint8] | None:
    """Decode one image; call it under :func:`bombs_are_errors`.

    Args:
        source: the file, or its bytes.
        channels: 1 for grey, 3 for RGB.
        resize: the side of the result; None keeps that of the centre square.
        most: bytes that the decoder may take; None is no limit.
        name: the image in messages; None is the file.

    Returns:
        uint8 [channels, side, side]; None if it takes more than ``most`` bytes.

    Raises:
        DataError: it is not a readable image, or is too large.
    """
    mode = "L" if channels == 1 else "RGB"
    with _opened(source, name) as image:
        if resize is not None:
            # JPEG can be decoded at 1/2, 1/4, 1/8; twice the final size loses nothing visible.
            image.draft(mode, (2 * resize, 2 * resize))
        area = image.width * image.height + (resize or 0) ** 2
        if most is not None and _BYTES_PER_PIXEL * area > most:
            return None
        pixels = np.asarray(_square(image, mode, resize))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _square(image: Image.Image, mode: str, resize: int | None) -> Image.Image:
    """The upright centre square. The image and each former step are released early."""
    ImageOps.exif_transpose(image, in_place=True)
    side = min(image.size)
    square: Image.Image = image
    if image.width != image.height:
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        image.close()
    if square.has_transparency_data:
        square = square.convert("RGBA")
        image.close()
        square = Image.alpha_composite(Image.new("RGBA", square.size, "white"), square)
    if square.mode != mode:
        square = square.convert(mode)
        image.close()
    if resize is not None and side != resize:
        square = square.resize((resize, resize), Image.Resampling.LANCZOS)
    return square


@contextmanager
def _opened(source: Path | bytes, name: object) -> Iterator[Image.Image]:
    """Open an image and check its mode; errors of later decoding become a DataError, too."""
    path = source if name is None and isinstance(source, Path) else name
    try:
        with _file(source, path) as file, Image.open(file, formats=_FORMATS) as image:
            if image.mode not in _MODES.split():
                raise DataError(
                    f"{path} has pixels of type {image.mode}, not 8 bits a channel",
                    hint="convert it to 8 bits",
                    code="data-pixel-type",
                    path=path,
                    mode=image.mode,
                )
            yield image
    except FileNotFoundError as error:
        raise DataError(
            f"{path} not found: it is a broken link, or was removed",
            code="data-file-missing",
            path=path,
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{path} is too large: {error}",
            hint=f"make it smaller, or remove it; or set {DATA_VARIABLE} to a larger limit",
            code="data-image-too-large",
            path=path,
        ) from error
    except _DAMAGE as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        if isinstance(source, bytes) and isinstance(error, UnidentifiedImageError):
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
