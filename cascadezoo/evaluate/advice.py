"""Which stage to work on, from what each makes of real and of generated images. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cascadezoo.model_folder.figures import Figure
from cascadezoo.plugins.manager import get_registry

__all__ = ["AttributedStage", "advice"]


class AttributedStage(Protocol):
    """A row of the attribution, as it was measured or as metrics.json holds it."""

    @property
    def stage(self) -> str:
        """The stage's name."""

    @property
    def role(self) -> str:
        """Its role."""

    @property
    def real(self) -> Figure | None:
        """Fed real images."""

    @property
    def generated(self) -> Figure:
        """Fed generated ones."""


@dataclass(frozen=True, slots=True)
class _Cause:
    value: float
    std: float
    text: str


def advice(rows: Sequence[AttributedStage]) -> str:
    """A sentence or two: which stage to work on, and at what.

    The largest of three sorts of causes: the generator's distance; a stage's distance when it is
    fed real images, its own fault; and how much worse it gets with generated ones than by what it
    is given already, which is what training hides.

    Args:
        rows: from the generator on.
    """
    causes = sorted(_causes(rows), key=lambda cause: -cause.value)
    if not causes:
        return "Nothing was measured."
    worst = causes[0]
    if worst.value <= worst.std:
        return "No stage stands out: every distance is within its spread. More samples tell more."
    name = rows[0].generated.name.partition(f".{rows[0].stage}-")[0]
    text = f"{worst.text} ({_shown(worst.value, rows[0].generated)} of {name})."
    close = [cause for cause in causes[1:] if cause.value > worst.value - worst.std - cause.std]
    if close and close[0].value > close[0].std:
        shown = _shown(close[0].value, rows[0].generated)
        text += f" As large within the spread: {_lowered(close[0].text)} ({shown})."
    return text


def _causes(rows: Sequence[AttributedStage]) -> list[_Cause]:
    causes = []
    before: Figure | None = None
    for row in rows:
        made, real = row.generated, row.real
        if real is None:
            text = f"Work on the generator {row.stage}: its own images are far from real ones"
            causes.append(_Cause(made.value, made.std or 0.0, text))
        else:
            text = f"Work on {row.stage} itself: even fed real images it is far from its targets"
            causes.append(_Cause(real.value, real.std or 0.0, text))
            causes.append(_excess(row, real, before))
        before = made
    return causes


def _excess(row: AttributedStage, real: Figure, before: Figure | None) -> _Cause:
    made = row.generated
    value, spreads = made.value - real.value, [made.std, real.std]
    if row.role == "decoder":
        # Nobody can say how good latents are but by what they are decoded to.
        text = f"Work on what makes the latents that {row.stage} decodes: real ones decode better"
    else:
        text = (
            f"Work on how {row.stage} is trained: generated images harm it beyond what they lack "
            "themselves; lower its teacher forcing, train it jointly, or augment its upstream"
        )
        if before is not None:
            value -= max(0.0, before.value)
            spreads.append(before.std)
    return _Cause(value, math.hypot(*(spread or 0.0 for spread in spreads)), text)


def _shown(value: float, figure: Figure) -> str:
    found = get_registry().metrics.rows.get(figure.metric)
    scale = 1.0 if found is None else found.entry.scale
    unit = "" if scale == 1 else f" / {scale:g}"
    return f"{value * scale:.3g}{unit}"


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]
