"""Decodes image files into square uint8 arrays, in threads."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cascadezoo.data.memory import require_memory
from cascadezoo.errors import DataError

__all__ = ["read_images", "square_size"]

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
_BLOCK = 4096


def square_size(path: Path) -> int:
    """The side of an image's centre square in pixels, from its header.

    Raises:
        DataError: the file is not a readable image.
    """
    with _bombs_are_errors(), _opened(path) as image:
        return min(image.size)


def read_images(
    root: Path, files: Sequence[PurePath], *, channels: int, resize: int | None
) -> NDArray[np.uint8]:
    """Decode images.

    Args:
        root: the folder of the images.
        files: their paths relative to the folder; at least one.
        channels: 1 for grey, 3 for RGB.
        resize: the side of the results; None requires that all have the size of the first.

    Returns:
        uint8 [N, channels, side, side].

    Raises:
        DataError: a file is damaged, not an image, too large, or has another size than the first.
        ResourceError: the images are larger than the machine's memory.
    """
    with _bombs_are_errors():
        first = _decode(root / files[0], channels, resize)
        side = first.shape[-1]
        require_memory(
            len(files) * first.size,
            f"{root}: {len(files):,} images of {side}x{side}",
            hint="set data.config.resize to a smaller size",
        )
        images = np.empty((len(files), *first.shape), dtype=np.uint8)
        images[0] = first

        def read(number: int) -> None:
            path = root / files[number]
            image = _decode(path, channels, resize)
            if image.shape != first.shape:
                raise DataError(
                    f"images have different sizes: {path} is {_side(image)} after cropping, "
                    f"{root / files[0]} is {_side(first)}",
                    hint=f"set data.config.resize, e.g. to {min(side, image.shape[-1])}",
                    code="data-sizes-differ",
                    path=path,
                )
            images[number] = image

        with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
            for start in range(1, len(files), _BLOCK):
                # Raises the first failure in the order of the files and cancels the rest.
                for _ in pool.map(read, range(start, min(start + _BLOCK, len(files)))):
                    pass
    return images


def _side(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[-1]}x{image.shape[-1]}"


def _decode(path: Path, channels: int, resize: int | None) -> NDArray[np.uint8]:
    """One image, uint8 [channels, side, side]."""
    mode = "L" if channels == 1 else "RGB"
    with _opened(path) as image:
        if resize is not None:
            # JPEG can be decoded at 1/2, 1/4, 1/8; twice the final size loses nothing visible.
            image.draft(mode, (2 * resize, 2 * resize))
        upright = ImageOps.exif_transpose(image)
        side = min(upright.size)
        left, top = (upright.width - side) // 2, (upright.height - side) // 2
        square = upright.crop((left, top, left + side, top + side))
        if square.has_transparency_data:
            square = square.convert("RGBA")
            square = Image.alpha_composite(Image.new("RGBA", square.size, "white"), square)
        square = square.convert(mode)
        if resize is not None and side != resize:
            square = square.resize((resize, resize), Image.Resampling.LANCZOS)
        pixels = np.asarray(square)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image and check its mode; errors of later decoding become a DataError, too."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
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
            hint="make it smaller, or remove it",
            code="data-image-too-large",
            path=path,
        ) from error
    except _DAMAGE as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise DataError(
            f"{path} is not a readable image: {reason}",
            hint="replace or remove it",
            code="data-image-unreadable",
            path=path,
        ) from error


@contextmanager
def _bombs_are_errors() -> Iterator[None]:
    """Set the warning filters, which threads share, once around all threads."""
    with warnings.catch_warnings():
        # Unusual metadata causes warnings, but only the pixels matter.
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
