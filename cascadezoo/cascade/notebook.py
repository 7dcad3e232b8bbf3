"""A cascade as HTML, which notebooks show: its spec, its sizes and samples."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from PIL import Image

from cascadezoo.errors import CascadezooError
from cascadezoo.model_folder.files import read_file
from cascadezoo.model_folder.layout import SAMPLES
from cascadezoo.util.numbers import human_count

if TYPE_CHECKING:
    from cascadezoo.cascade.cascade import Cascade

__all__ = ["cascade_html"]

_DRAWN = 4
_QUICK = 50_000_000
"""Largest number of parameters of a cascade that is sampled for its picture."""

_CELL = 96
_LARGEST_PICTURE = 4 << 20


def cascade_html(cascade: Cascade) -> str:
    """The HTML of a cascade. Text of its spec is escaped.

    The samples are those of its model folder; a small cascade without one draws its own.
    """
    spec = cascade.spec
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in row)}</tr>" for row in _rows(cascade)
    )
    head = "".join(f"<th>{name}</th>" for name in ("Stage", "Kind", "Image", "Parameters"))
    total = sum(p.numel() for p in cascade.parameters())
    about = [
        f"{cascade.resolved.image} images",
        f"{human_count(total)} parameters",
        str(cascade.device),
    ]
    names = cascade.class_names
    if cascade.resolved.num_classes:
        listed = f": {', '.join(names[:20])}" if names else ""
        about.insert(1, f"{cascade.resolved.num_classes} classes{listed}")
    description = f"<p>{escape(spec.description[:300])}</p>" if spec.description else ""
    return (
        f"<div><h4>{escape(spec.name)}</h4>{description}<p>{escape('; '.join(about))}</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"{_picture(cascade, total)}</div>"
    )


def _rows(cascade: Cascade) -> Iterator[tuple[str, str, str, str]]:
    for place, (name, stage) in zip(cascade.resolved.stages, cascade.named_stages(), strict=True):
        count = sum(p.numel() for p in stage.parameters())
        shapes = f"{place.input or 'noise'} → {place.output}"
        yield name, place.kind, shapes, human_count(count)


def _picture(cascade: Cascade, parameters: int) -> str:
    content = None
    if cascade.folder is not None:
        try:
            content = read_file(cascade.folder, SAMPLES)
        except (OSError, CascadezooError):
            content = None  # a model without samples
    if content is None and parameters <= _QUICK and cascade.device.type != "meta":
        content = _drawn(cascade)
    if content is None or len(content) > _LARGEST_PICTURE:
        return ""
    data = base64.b64encode(content).decode()
    return f'<img alt="samples of {escape(cascade.spec.name)}" src="data:image/png;base64,{data}">'


def _drawn(cascade: Cascade) -> bytes:
    pictures = cascade.sample(_DRAWN, output_type="pil")
    scale = max(1, _CELL // pictures[0].width)
    cell = pictures[0].width * scale
    sheet = Image.new("RGB", (cell * len(pictures), cell))
    for number, picture in enumerate(pictures):
        large = picture.convert("RGB").resize((cell, cell), Image.Resampling.NEAREST)
        sheet.paste(large, (number * cell, 0))
    file = io.BytesIO()
    sheet.save(file, format="PNG")
    return file.getvalue()
