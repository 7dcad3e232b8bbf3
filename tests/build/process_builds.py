"""Builds that run in several processes, and what they return."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cascadezoo import Callback, build_cascade
from cascadezoo.train.callbacks import FigureEvent, ModelEvent, PhaseEvent, SamplesEvent

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (48, 16, 16, 3), dtype=np.uint8)
LABELS = np.arange(48) % 4


class Recording(Callback):
    """Records what it receives."""

    samples = 3

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, Any]] = []

    def begin(self, run: Any) -> None:
        super().begin(run)
        self.rows.append(("begin", run.name))

    def on_phase(self, event: PhaseEvent) -> None:
        self.rows.append(("phase", (event.phase, event.state)))

    def on_figure(self, event: FigureEvent) -> None:
        self.rows.append(("figure", (event.phase, event.figure["name"], event.figure["value"])))

    def on_samples(self, event: SamplesEvent) -> None:
        self.rows.append(("samples", {name: rows.shape for name, rows in event.images.items()}))

    def on_model(self, event: ModelEvent) -> None:
        self.rows.append(("model", event.folder.name))

    def close(self) -> None:
        self.rows.append(("close", None))


def build(spec: dict[str, Any], out: str) -> list[tuple[str, Any]]:
    """Build on images and a callback that are objects; what the callback received."""
    recording = Recording()
    build_cascade(spec, Path(out), device="cpu", data=(IMAGES, LABELS), callbacks=[recording])
    return recording.rows
