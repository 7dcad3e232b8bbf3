"""The picture of the architecture in docs/design.md.

``python tests/docs/architecture.py`` writes docs/img/architecture.svg anew.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

PICTURE = Path(__file__).parents[2] / "docs" / "img" / "architecture.svg"

WIDTH, HEIGHT = 900, 566
COLUMNS = (10, 240, 470, 700)
ROWS = (80, 184, 288, 392, 496)
BOX = (190, 60)

# Column, row, columns spanned, name, two lines of text.
BOXES = [
    (0, 0, 1, "plugins/", "entries of stages, datasets,", "metrics; no torch"),
    (1, 0, 1, "spec/", "JSON in,", "validated, resolved spec out"),
    (2, 0, 1, "build/", "plan, train, evaluate, write", "a run folder"),
    (3, 0, 1, "sweep/", "one build for each", "combination of specs"),
    (0, 1, 1, "nn/  diffusion/", "blocks; schedules, samplers,", "losses"),
    (1, 1, 1, "stages/", "the contract, and one folder", "for each kind"),
    (2, 1, 1, "cascade/", "stages in order:", "sample, save, load"),
    (3, 1, 1, "evaluate/", "metrics, feature extractors,", "check of a card"),
    (1, 2, 1, "data/", "datasets as uint8,", "batches on the device"),
    (2, 2, 1, "train/", "phases, steps, EMA,", "checkpoints, callbacks"),
    (3, 2, 1, "cards/", "the metric card:", "README.md of a model"),
    (0, 3, 1, "zoo/", "short names of models,", "pinned by sha256"),
    (1, 3, 1, "hub/", "references, publish, pull,", "cache"),
    (2, 3, 2, "model_folder/", "config.json, metrics.json, README.md, samples.png,", "weights"),
    (
        0,
        4,
        2,
        "util/  errors.py  _version.py",
        "files, safe text, keyed randomness;",
        "imported by all",
    ),
    (2, 4, 1, "tune/", "search for the best", "sampling settings"),
    (3, 4, 1, "report/  demo/", "pages about models, and", "one to play with them"),
]

# From, side it leaves by, to, side it arrives at, label.
ARROWS = [
    ("plugins/", "right", "spec/", "left", "kinds"),
    ("spec/", "right", "build/", "left", "spec"),
    ("sweep/", "left", "build/", "right", "cells"),
    ("spec/", "bottom", "stages/", "top", "config of each stage"),
    ("build/", "bottom", "cascade/", "top", "assembles"),
    ("nn/  diffusion/", "right", "stages/", "left", ""),
    ("stages/", "right", "cascade/", "left", ""),
    ("cascade/", "right", "evaluate/", "left", "images"),
    ("cascade/", "bottom", "train/", "top", "is trained"),
    ("data/", "right", "train/", "left", ""),
    ("evaluate/", "bottom", "cards/", "top", "figures"),
    ("train/", "bottom", "model_folder/", "top-left", "weights"),
    ("cards/", "bottom", "model_folder/", "top-right", "card"),
    ("zoo/", "right", "hub/", "left", "names"),
    ("model_folder/", "bottom-left", "tune/", "top", "model"),
    ("model_folder/", "bottom-right", "report/  demo/", "top", "model"),
]


def place(name: str) -> tuple[int, int, int, int]:
    """Left, top, width and height of a box."""
    (row,) = [box for box in BOXES if box[3] == name]
    left, span = COLUMNS[row[0]], row[2]
    right = COLUMNS[row[0] + span - 1] + BOX[0]
    return left, ROWS[row[1]], right - left, BOX[1]


def point(name: str, side: str) -> tuple[int, int]:
    """The middle of a box's side, or of the left or right half of that side."""
    left, top, width, height = place(name)
    half = BOX[0] // 2
    xs = {"top": left + width // 2, "bottom": left + width // 2}
    for edge in ("top", "bottom"):
        xs[f"{edge}-left"], xs[f"{edge}-right"] = left + half, left + width - half
    if side == "left":
        return left, top + height // 2
    if side == "right":
        return left + width, top + height // 2
    return xs[side], top if side.startswith("top") else top + height


def text(x: float, y: float, words: str, kind: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(words)}</text>'


def line(path: str, ends: str = 'marker-end="url(#head)"') -> str:
    return f'<path d="{path}" class="arrow" {ends}/>'


def picture() -> str:
    """The SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>The packages of cascadezoo</title>",
        "<desc>Boxes are packages; arrows show what one hands to the next.</desc>",
        "<style>text{font-family:sans-serif;fill:#1c2733}.name{font-size:15px;font-weight:600}"
        ".note{font-size:12px;fill:#44525f}.label{font-size:11.5px;fill:#24577a}"
        ".box{fill:#eef3f7;stroke:#8da2b3}.arrow{fill:none;stroke:#24577a;stroke-width:1.4}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" fill="#24577a"/>'
        "</marker></defs>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#ffffff"/>',
        f'<rect x="10" y="10" width="{WIDTH - 20}" height="40" rx="6" class="box"/>',
        text(22, 35, "cli/", "name"),
        text(60, 35, "commands: parse arguments, call the packages below, print results", "note"),
        text(520, 35, "testing/", "name"),
        text(588, 35, "checks plugins against the contract", "note"),
    ]
    for _, _, _, name, first, second in BOXES:
        left, top, width, height = place(name)
        parts += [
            f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="6" class="box"/>',
            text(left + 12, top + 20, name, "name"),
            text(left + 12, top + 37, first, "note"),
            text(left + 12, top + 52, second, "note"),
        ]
    for start, leaves, end, arrives, label in ARROWS:
        (x, y), (u, v) = point(start, leaves), point(end, arrives)
        parts.append(line(f"M{x} {y}L{u} {v}"))
        if label and x == u:
            parts.append(text(x + 6, (y + v) / 2 + 4, label, "label"))
        elif label:
            parts.append(text(min(x, u) + 3, y - 6, label, "label"))
    # A model goes to the Hub and comes back; a cascade loads its weights.
    left, top, _, height = place("model_folder/")
    hub = COLUMNS[1] + BOX[0]
    both = 'marker-start="url(#head)" marker-end="url(#head)"'
    parts += [
        line(f"M{hub} {top + 46}L{left} {top + 46}", both),
        text(hub - 4, top + height + 14, "publish, pull", "label"),
    ]
    room = ROWS[1] + 46
    parts += [
        line(f"M{left} {top + 14}H{left - 20}V{room}H{left}"),
        text(left - 50, ROWS[2] - 16, "load", "label"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture())
