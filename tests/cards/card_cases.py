"""A spec, figures and their cards."""

from __future__ import annotations

import re
from typing import Any

from cascadezoo.cards.render_card import render_card
from cascadezoo.model_folder.figures import figure_name
from cascadezoo.spec import load_spec
from cascadezoo.spec.configs import DataInfo

SPEC = load_spec("shapes-tiny").spec
INFO = DataInfo(title="Shapes", license="Apache-2.0", hub_id="org/shapes")


def figure(**changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"metric": "kid", "value": 0.0149, "std": 0.002, "n": 1000}
    row |= {
        "extractor": "small",
        "precision": "fp32",
        "seed": 0,
        "split": "train",
        "resolution": 32,
    }
    row |= changes
    row = {key: value for key, value in row.items() if value is not None}
    name = figure_name(row["metric"], row["n"], row.get("extractor"), row.get("precision"))
    return {"name": name, **row}


def metrics(*figures: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "name": SPEC.name,
        "spec_digest": "0" * 64,
        "figures": list(figures),
        "stages": [
            {"name": "coarse", "kind": "flow.v1", "output": "3x16x16", "parameters": 472_251, "flops": 4_560_000_000},
            {"name": "up", "kind": "pixelshuffle.v1", "output": "3x32x32", "parameters": 3967, "flops": 7_000_000},
        ],
        "training": {"seconds": 246.0, "device": "cpu, 1 thread", "precision": "fp32",
                     "seconds_per_epoch": {"coarse": 10.73}, "process_peak_bytes": 3 << 29},
        "environment": {"cascadezoo": "0.1.0", "torch": "2.15"},
        **more,
    }  # fmt: skip


def card(*figures: dict[str, Any], **more: Any) -> str:
    return render_card(SPEC, metrics(*figures, **more), INFO)


def rows(text: str, first: str = "figure") -> list[list[str]]:
    """The cells of the table with this first column, split as GitHub does."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith(f"| {first} |"):
            next(lines)
            return [
                [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
                for row in iter(lambda: next(lines, ""), "")
                if row.startswith("|")
            ]
    return []
