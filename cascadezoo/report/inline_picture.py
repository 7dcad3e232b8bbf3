"""Pictures inside a page, as addresses that hold them. Free of torch and matplotlib."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from PIL import Image

from cascadezoo.errors import InputError

__all__ = ["InlinePicture", "inline_picture"]


@dataclass(frozen=True, slots=True)
class InlinePicture:
    """A picture inside a page.

    Args:
        uri: a ``data:`` address that holds it.
        width: in pixels.
        height: in pixels.
    """

    uri: Markup
    width: int
    height: int


def inline_picture(image: Image.Image | bytes | Path) -> InlinePicture:
    """A picture as an address that holds it.

    A PIL image is coded without loss as PNG or WebP, whichever is smaller. Files and bytes are
    kept as they are.

    Raises:
        InputError: the file or the bytes are no PNG, JPEG or WebP.
    """
    if isinstance(image, Image.Image):
        coded = {"png": io.BytesIO(), "webp": io.BytesIO()}
        image.save(coded["png"], format="PNG", optimize=True)
        image.save(coded["webp"], format="WEBP", lossless=True, exact=True, method=4)
        name, file = min(coded.items(), key=lambda row: row[1].tell())
        return InlinePicture(_uri(name, file.getvalue()), image.width, image.height)
    data = image.read_bytes() if isinstance(image, Path) else image
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as opened:
            opened.load()
            uri = _uri(str(opened.format).lower(), data)
            return InlinePicture(uri, opened.width, opened.height)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        source = image if isinstance(image, Path) else f"{len(data)} bytes"
        raise InputError(
            f"{source} cannot be shown as a picture: {error}", code="input-picture-unreadable"
        ) from error


def _uri(name: str, data: bytes) -> Markup:
    # Base64 holds nothing that could be escaped, and is longer than any text that pages show.
    return Markup(f"data:image/{name};base64,{base64.b64encode(data).decode()}")  # noqa: S704
