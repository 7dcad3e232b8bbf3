"""Advice on which stage to improve. Does not import torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from cascadezoo.model_folder.figures import Figure
from cascadezoo.plugins.manager import get_registry

__all__ = ["AttributedStage", "QualityLoss", "advice", "largest_losses"]


class AttributedStage(Protocol):
    """A row of the attribution, either just measured or read from metrics.json."""

    @property
    def stage(self) -> str:
        """The stage's name."""

    @property
    def role(self) -> str:
        """The stage's role."""

    @property
    def real(self) -> Figure | None:
        """The figure on real input; None for a generator."""

    @property
    def generated(self) -> Figure:
        """The figure on generated input."""


@dataclass(frozen=True, slots=True)
class QualityLoss:
    """A cause of lost quality.

    Args:
        stage: the stage to work on; for ``latents`` the decoder.
        kind: ``generator`` and ``stage`` are errors of the stage itself; ``input`` is its
            additional error on generated input; ``latents`` is that of a decoder.
        value: the size, as a distance.
        std: its spread.
    """

    stage: str
    kind: Literal["generator", "stage", "input", "latents"]
    value: float
    std: float

    @property
    def text(self) -> str:
        """The recommendation as a sentence without a full stop."""
        return _TEXTS[self.kind].format(stage=self.stage)


_TEXTS = {
    "generator": "Work on the generator {stage}: its images are far from real images",
    "stage": "Work on {stage} itself: even on real input it is far from its targets",
    "input": (
        "Work on the training of {stage}: generated input harms it more than the error of that "
        "input; lower its teacher forcing, train it jointly, or augment its input"
    ),
    # The quality of latents is only visible in the decoded images.
    "latents": "Work on the stage that makes the latents of {stage}: real ones decode better",
}


def advice(rows: Sequence[AttributedStage]) -> str:
    """Name the stage to improve and what to improve, in one or two sentences.

    Args:
        rows: the stages that make images, from the generator on.
    """
    if not rows:
        return "Nothing was measured."
    losses = largest_losses(rows)
    if not losses:
        return "No stage stands out: every distance is within its spread. Use more samples."
    first = rows[0].generated
    name = first.name.partition(f".{rows[0].stage}-")[0]
    text = f"{losses[0].text} ({_shown(losses[0].value, first)} of {name})."
    for loss in losses[1:]:
        shown = _shown(loss.value, first)
        text += f" Equally large within the spread: {_lowered(loss.text)} ({shown})."
    return text


def largest_losses(rows: Sequence[AttributedStage]) -> list[QualityLoss]:
    """The largest cause of lost quality, and the next one if it is as large within the spread.

    The causes are the generator's distance; a stage's distance on real input, which is its own
    error; and the increase of a stage's distance on generated input beyond the distance of that
    input, which training does not show.

    Args:
        rows: the stages that make images, from the generator on.

    Returns:
        At most two causes; none if no cause is larger than its spread.
    """
    losses = sorted(_losses(rows), key=lambda loss: -loss.value)
    if not losses or losses[0].value <= losses[0].std:
        return []
    worst = losses[0]
    close = [loss for loss in losses[1:] if loss.value > worst.value - worst.std - loss.std]
    return [worst, *(loss for loss in close[:1] if loss.value > loss.std)]


def _losses(rows: Sequence[AttributedStage]) -> Iterator[QualityLoss]:
    before: Figure | None = None
    for row in rows:
        generated, real = row.generated, row.real
        if real is None:
            yield QualityLoss(row.stage, "generator", generated.value, generated.std or 0.0)
        else:
            yield QualityLoss(row.stage, "stage", real.value, real.std or 0.0)
            yield _mismatch(row, real, before)
        before = generated


def _mismatch(row: AttributedStage, real: Figure, before: Figure | None) -> QualityLoss:
    generated = row.generated
    value, spreads = generated.value - real.value, [generated.std, real.std]
    decoder = row.role == "decoder"
    if before is not None and not decoder:
        value -= max(0.0, before.value)
        spreads.append(before.std)
    std = math.hypot(*(spread or 0.0 for spread in spreads))
    return QualityLoss(row.stage, "latents" if decoder else "input", value, std)


def _shown(value: float, figure: Figure) -> str:
    row = get_registry().metrics.rows.get(figure.metric)
    scale = 1.0 if row is None else row.entry.scale
    unit = "" if scale == 1 else f" / {scale:g}"
    return f"{value * scale:.3g}{unit}"


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]
