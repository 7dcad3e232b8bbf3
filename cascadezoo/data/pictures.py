"""Pictures of users: files, PIL images, arrays and tensors of any size, and back.

A :class:`Picture` keeps the mode and the transparency, so that the result of a model can have those
of the original.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from cascadezoo.data.files import data_path
from cascadezoo.data.picture_files import MODES, bombs_are_errors, opened_picture
from cascadezoo.data.pixels import check_images, to_float, to_uint8
from cascadezoo.errors import DataError, InputError, SampleError

__all__ = [
    "NEAR",
    "OutputType",
    "Picture",
    "PictureInput",
    "converted",
    "fitted",
    "read_picture",
    "read_pictures",
    "require_output_type",
    "to_pil",
    "with_channels",
]

PictureInput: TypeAlias = Image.Image | str | os.PathLike[str] | NDArray[Any] | Tensor
"""A picture: a PIL image, a path, an array [H, W] or [H, W, C], or a tensor [C, H, W]. Arrays and
tensors are uint8, or floating in [-1, 1]."""

OutputType: TypeAlias = Literal["pil", "pt", "np"]
"""The type of results: PIL images; float tensors in [-1, 1]; uint8 arrays."""

NEAR = 2.0
"""Pictures whose sides differ from a stage's size by at most this factor are resized to it."""

_SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")
_MODES = " ".join((MODES, *_SIXTEEN))
_GREY = (0.299, 0.587, 0.114)
"""ITU-R BT.601."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture.

    Args:
        pixels: float32 [C, H, W] in [-1, 1], with 1 or 3 channels.
        alpha: uint8 [H, W]; None for an opaque picture.
        name: its file name or number, for messages.
    """

    pixels: Tensor
    alpha: Tensor | None = None
    name: str = "picture"

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[1])

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[2])

    def flat(self) -> Tensor:
        """The pixels on white, [C, H, W]."""
        if self.alpha is None:
            return self.pixels
        share = self.alpha.float() / 255
        return self.pixels * share + (1 - share)


def read_pictures(
    images: PictureInput | Sequence[PictureInput], *, n: int | None = None
) -> list[Picture]:
    """Decode pictures.

    Args:
        images: one picture, a list of pictures, or a batch: a tensor [N, C, H, W] or an array
            [N, H, W, C].
        n: the expected number of pictures; a single picture is repeated. None accepts any.

    Raises:
        InputError: not a picture, no pictures, or not ``n`` pictures.
        DataError: a file is missing, damaged, too large, or of an unsupported type.
    """
    if isinstance(images, (Tensor, np.ndarray)):
        rows: list[Any] = list(images) if images.ndim == 4 else [images]
    elif isinstance(images, (str, os.PathLike, Image.Image)):
        rows = [images]
    elif isinstance(images, Sequence):
        rows = list(images)
    else:
        raise _no_picture(images, "picture")
    pictures = [read_picture(row, f"picture {number}") for number, row in enumerate(rows)]
    if not pictures:
        raise InputError("no pictures", hint="give at least one", code="input-no-pictures")
    if n is not None and len(pictures) == 1:
        pictures *= n
    if n is not None and len(pictures) != n:
        raise InputError(
            f"{len(pictures)} pictures do not match {n}",
            hint=f"give one, or {n}",
            code="input-picture-count",
            count=len(pictures),
            n=n,
        )
    return pictures


def read_picture(image: PictureInput, name: str = "picture") -> Picture:
    """Decode a picture: upright by its EXIF orientation, grey or RGB, with its transparency.

    Palettes, CMYK and 16-bit grey pictures are converted to 8 bits a channel. Of an animation, the
    first frame is read.

    Args:
        image: see :data:`PictureInput`.
        name: for messages; a file has its own.

    Raises:
        InputError: not a picture.
        DataError: the file is missing, damaged, too large, or of an unsupported type.
    """
    if isinstance(image, Image.Image):
        if image.mode not in _MODES.split():
            raise InputError(
                f"{name} has pixels of type {image.mode}, not 8 bits a channel",
                hint='convert it: image.convert("RGB")',
                code="input-picture-mode",
                mode=image.mode,
            )
        return _decoded(image, name)
    if isinstance(image, (str, os.PathLike)):
        path = data_path(os.fspath(image))
        with bombs_are_errors(), opened_picture(path, modes=_MODES) as opened:
            return _decoded(opened, str(path))
    if isinstance(image, np.ndarray):
        if image.ndim not in (2, 3):
            raise _no_picture(image, name)
        rows = torch.from_numpy(image.copy())
        pixels = rows[None] if rows.ndim == 2 else rows.permute(2, 0, 1)
    elif isinstance(image, Tensor):
        pixels = image.detach().to("cpu")
    else:
        raise _no_picture(image, name)
    if pixels.ndim == 3 and pixels.dtype == torch.uint8 and pixels.shape[0] in (2, 4):
        return Picture(to_float(pixels[:-1]), pixels[-1], name)
    if pixels.ndim != 3:
        raise _no_picture(image, name)
    check_images(pixels[None])
    floats = to_float(pixels).float()
    if float(floats.abs().max()) > 1.0 + 1e-3:
        raise InputError(
            f"{name} has floats outside [-1, 1]",
            hint="pass bytes as uint8, or x * 2 - 1 for floats in [0, 1]",
            code="input-picture-range",
            low=float(floats.min()),
            high=float(floats.max()),
        )
    return Picture(floats.clamp(-1, 1), None, name)


def _decoded(image: Image.Image, name: str) -> Picture:
    upright = ImageOps.exif_transpose(image)
    if upright.mode in _SIXTEEN:
        grey = np.asarray(upright).astype(np.uint32)
        return Picture(to_float(torch.from_numpy((grey + 128) // 257).byte()[None]), None, name)
    grey_modes = ("1", "L", "LA", "La")
    mode = "L" if upright.mode in grey_modes else "RGB"
    alpha = None
    if upright.has_transparency_data:
        # "La" and "RGBa" have multiplied colours; conversion divides them.
        upright = upright.convert("RGBA")
        alpha = torch.from_numpy(np.asarray(upright.getchannel("A")).copy())
    pixels = np.array(upright.convert(mode))
    rows = pixels[None] if mode == "L" else pixels.transpose(2, 0, 1).copy()
    return Picture(to_float(torch.from_numpy(rows)), alpha, name)


def _no_picture(image: object, name: str) -> InputError:
    shape = f" of shape {tuple(image.shape)}" if isinstance(image, (Tensor, np.ndarray)) else ""
    return InputError(
        f"{name} is a {type(image).__name__}{shape}, not a picture",
        hint="pass a PIL image, a path, an array [H, W, C] or a tensor [C, H, W]",
        code="input-not-a-picture",
        type=type(image).__name__,
    )


def with_channels(pixels: Tensor, channels: int) -> Tensor:
    """Pixels [..., C, H, W] as grey (1) or RGB (3)."""
    present = pixels.shape[-3]
    if present == channels:
        return pixels
    if channels == 1:
        weights = torch.tensor(_GREY, device=pixels.device).view(3, 1, 1)
        return (pixels * weights).sum(-3, keepdim=True)
    repeats = [1] * (pixels.ndim - 3) + [channels, 1, 1]
    return pixels.repeat(*repeats)


def fitted(picture: Picture, size: int, channels: int, *, most: float | None = NEAR) -> Tensor:
    """A picture as the input of a stage: on white, cropped to its centre square and resized.

    A picture of the exact size keeps its pixels. Otherwise each side must be at least half of
    ``size``, and at most ``most`` times as large.

    Args:
        picture: any picture.
        size: height and width of the result in pixels.
        channels: 1 or 3.
        most: None accepts pictures of any larger size.

    Returns:
        float32 [channels, size, size] in [-1, 1].

    Raises:
        DataError: the picture is too small or too large.
    """
    low, high = min(picture.height, picture.width), max(picture.height, picture.width)
    if low * NEAR < size or (most is not None and high > most * size):
        limit = "or more" if most is None else f"to {int(most * size)}"
        raise DataError(
            f"{picture.name} is {picture.width}x{picture.height}, but the stage takes "
            f"{size}x{size}: each side may have {-(-size // int(NEAR))} {limit} pixels",
            hint="resize it first; cascade.upscale takes pictures of any size",
            code="data-picture-size",
            width=picture.width,
            height=picture.height,
            size=size,
        )
    pixels = with_channels(picture.flat(), channels)
    top, left = (picture.height - low) // 2, (picture.width - low) // 2
    square = pixels[:, top : top + low, left : left + low]
    if low == size:
        return square
    resized = F.interpolate(
        square[None], (size, size), mode="bicubic", antialias=True, align_corners=False
    )
    return resized[0].clamp(-1, 1)


def to_pil(images: Tensor) -> list[Image.Image]:
    """Convert images for PIL.

    Args:
        images: floating [N, C, H, W] in [-1, 1], or uint8; 1 or 3 channels.

    Returns:
        N pictures of mode ``L`` or ``RGB``.

    Raises:
        InputError: wrong shape or type, or values that are not finite.
    """
    rows = to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(row[:, :, 0] if row.shape[2] == 1 else row) for row in rows]


def require_output_type(name: object) -> None:
    """Check the name of a format.

    Raises:
        SampleError: it is unknown.
    """
    if name not in ("pt", "np", "pil"):
        raise SampleError(
            f"unknown output type {name!r}",
            hint="choose pt (a tensor), np (a uint8 array) or pil (a list of pictures)",
            code="sample-output-type-unknown",
            name=name,
        )


def converted(images: Tensor, output_type: OutputType) -> Tensor | NDArray[Any] | list[Image.Image]:
    """Images in the requested format.

    Args:
        images: floating [n, C, H, W] in [-1, 1], or latents if ``output_type`` is ``pt``.
        output_type: ``pt``: unchanged; ``np``: uint8 [n, H, W, C]; ``pil``: a list of n pictures of
            mode ``L`` or ``RGB``.

    Raises:
        SampleError: the type is unknown.
    """
    require_output_type(output_type)
    if output_type == "pt":
        return images
    if output_type == "pil":
        return to_pil(images)
    return np.ascontiguousarray(to_uint8(images).permute(0, 2, 3, 1).cpu().numpy())
