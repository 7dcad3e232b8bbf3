"""The picture of a cascade on the first page of the documentation.

``python tests/docs/cascade_picture.py`` writes docs/img/cascade.svg anew, with an image of
docs/img/stages-shapes-tiny.png after each stage.
"""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).parents[2] / "docs" / "img"
PICTURE = IMAGES / "cascade.svg"

WIDTH, HEIGHT = 830, 280
CELL, GAP, LEFT, TOP = 96, 10, 12, 12
"""The cells of a strip, as ``report/images.py`` draws them."""

ROW = 3
SIDE = 110
PLACES = (255, 465, 675)
STAGES = (
    ("generator", "coarse, flow.v1", "16x16"),
    ("upsampler", "up, pixelshuffle.v1", "32x32"),
    ("refiner", "refine, vit.v1", "32x32"),
)


def cells() -> list[Image.Image]:
    """The image of one row after each stage, one pixel for each pixel of the stage."""
    with Image.open(IMAGES / "stages-shapes-tiny.png") as opened:
        strip = opened.convert("RGB")
    rows = []
    bottom = strip.height - TOP - (3 - ROW) * (CELL + 2)
    for number in range(3):
        right = strip.width - LEFT - (2 - number) * (CELL + GAP)
        cell = strip.crop((right - CELL, bottom - CELL, right, bottom))
        size = 16 if number == 0 else 32
        rows.append(cell.resize((size, size), Image.Resampling.NEAREST))
    return rows


def noise() -> Image.Image:
    """The noise that a generator starts from; always the same."""
    state, values = 1, bytearray()
    for _ in range(16 * 16 * 3):
        state = (state * 1_103_515_245 + 12_345) % 2**31
        values.append(state >> 16 & 255)
    return Image.frombytes("RGB", (16, 16), bytes(values))


def drawn(image: Image.Image, x: int, y: int) -> str:
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    frame = f'<rect x="{x - 1}" y="{y - 1}" width="{SIDE + 2}" height="{SIDE + 2}" class="frame"/>'
    return frame + (
        f'<image x="{x}" y="{y}" width="{SIDE}" height="{SIDE}" '
        f'style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>'
    )


def text(x: float, y: float, words: str, kind: str, anchor: str = "middle") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def arrow(path: str) -> str:
    return f'<path d="{path}" class="arrow" marker-end="url(#head)"/>'


def picture() -> str:
    """The SVG."""
    top = 70
    middle = top + SIDE // 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>A cascade of three stages</title>",
        "<desc>Noise becomes a coarse image, an enlarged one, and a sharpened one. The targets of "
        "training go the other way.</desc>",
        "<style>text{font-family:sans-serif;fill:#1c2733}.name{font-size:17px;font-weight:600}"
        ".note{font-size:13px;fill:#44525f}.arrow{fill:none;stroke:#24577a;stroke-width:1.6}"
        ".frame{fill:none;stroke:#c3ced8}.back{stroke-dasharray:5 4}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" fill="#24577a"/>'
        "</marker></defs>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#ffffff"/>',
        text(45 + SIDE / 2, 34, "noise", "name"),
        text(45 + SIDE / 2, 54, "and a class: star", "note"),
        drawn(noise(), 45, top),
    ]
    ends = [45 + SIDE, *(x + SIDE for x in PLACES)]
    for number, (x, image) in enumerate(zip(PLACES, cells(), strict=True)):
        role, what, size = STAGES[number]
        parts += [
            arrow(f"M{ends[number] + 8} {middle}H{x - 8}"),
            text(x + SIDE / 2, 34, role, "name"),
            text(x + SIDE / 2, 54, what, "note"),
            drawn(image, x, top),
            text(x + SIDE / 2, top + SIDE + 20, size, "note"),
        ]
    low = top + SIDE + 60
    last, first = PLACES[2] + SIDE / 2, PLACES[0] + SIDE / 2
    parts += [
        f'<path d="M{last:g} {top + SIDE + 30}V{low}H{first:g}V{top + SIDE + 32}" '
        'class="arrow back" marker-end="url(#head)"/>',
        text(
            (first + last) / 2, low + 24,
            "training: each stage learns the image that the next one asks for", "note",
        ),
        "</svg>",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture())
