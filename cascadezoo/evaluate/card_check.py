"""Recomputes the figures of a card and compares them with the card."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cascadezoo.errors import CascadezooError
from cascadezoo.evaluate.bench import Bench
from cascadezoo.evaluate.metrics.base import load_metric
from cascadezoo.evaluate.options import EvaluationOptions
from cascadezoo.model_folder.figures import Figure
from cascadezoo.model_folder.metrics_file import AttributionRow
from cascadezoo.model_folder.reproduction import metric_argument, why_not_reproducible

__all__ = ["CheckReport", "CheckRow", "check_attribution", "check_figures", "compare"]

MAX_TOLERANCE_RATIO = 3.0
"""The largest accepted ratio of a stated tolerance to the recomputed one."""

DEFAULT_TOLERANCE = 1e-3
"""The relative tolerance of a figure without a stated or recomputed tolerance."""

_TUNED = ".tuned"


@dataclass(frozen=True, slots=True)
class CheckRow:
    """A figure of the card and its recomputed value.

    Args:
        name: the name of the figure.
        stated: the value on the card, in the metric's own unit.
        measured: the recomputed value; None if it was not measured.
        difference: measured minus stated.
        tolerance: the accepted difference.
        holds: whether the values agree; None for figures that cannot be checked.
        reason: why they do not agree; "" if they do.
    """

    name: str
    stated: float
    measured: float | None = None
    difference: float | None = None
    tolerance: float | None = None
    holds: bool | None = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The result of a check.

    Args:
        model: the model folder.
        name: the model's name.
        rows: one row per figure.
        faults: errors in files: a file that was changed after it was sealed, or a card that states
            something that metrics.json does not contain.
    """

    model: Path
    name: str
    rows: tuple[CheckRow, ...]
    faults: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[CheckRow, ...]:
        """The figures that were not reproduced."""
        return tuple(row for row in self.rows if row.holds is False)

    @property
    def ok(self) -> bool:
        """Whether every checkable figure was reproduced and no file was changed."""
        return not self.failed and not self.faults

    def to_dict(self) -> dict[str, Any]:
        """The report as ``--json`` prints it."""
        return {
            "model": str(self.model),
            "name": self.name,
            "ok": self.ok,
            "faults": list(self.faults),
            "figures": [asdict(row) for row in self.rows],
        }


def check_figures(
    bench: Bench, stated: Sequence[Figure], defaults: EvaluationOptions
) -> list[CheckRow]:
    """Measure figures again, each as its own record states, and compare.

    Args:
        bench: the model.
        stated: the figures in its metrics.json.
        defaults: the options for everything that a record does not state.
    """
    rows: dict[str, CheckRow] = {}
    open_figures: list[Figure] = []
    for figure in stated:
        row = figure.to_dict()
        why = why_not_reproducible(row)
        if why is not None:
            rows[figure.name] = CheckRow(figure.name, figure.value, holds=None, reason=why)
            continue
        try:
            load_metric(metric_argument(row))
            bench.extractor(_options_of(figure, defaults).extractor)
        except CascadezooError as error:
            rows[figure.name] = _not_measured(figure, error.what)
            continue
        open_figures.append(figure)
    for options, figures in _groups(open_figures, defaults):
        rows |= {row.name: row for row in _check_group(bench, options, figures)}
    return [rows[figure.name] for figure in stated]


def check_attribution(
    bench: Bench, stated: Sequence[AttributionRow], defaults: EvaluationOptions
) -> list[CheckRow]:
    """Measure the table of stages again and compare its figures."""
    figures = [f for row in stated for f in (row.real, row.generated) if f is not None]
    if not figures:
        return []
    first = stated[-1].generated
    options = replace(_options_of(first, defaults), subset_size=first.subset_size)
    try:
        rows, _ = bench.attribute(options, metric_argument(first.to_dict()))
    except CascadezooError as error:
        return [_not_measured(figure, error.what) for figure in figures]
    again = {f.name: f for row in rows for f in (row.real, row.generated) if f is not None}
    return [
        compare(figure, again[figure.name])
        if figure.name in again
        else _not_measured(figure, "the cascade does not have this stage")
        for figure in figures
    ]


def compare(stated: Figure, measured: Figure) -> CheckRow:
    """Compare a figure of the card with its new measurement.

    Args:
        stated: the figure on the card.
        measured: the same figure, measured as the card states.
    """
    differs = [
        f"{what} {_short(here)} here and {_short(on_card)} on the card"
        for what, on_card, here in (
            ("the digest of the real images is", stated.data_digest, measured.data_digest),
            ("the extractor's version is", stated.extractor_version, measured.extractor_version),
            ("the extractor's digest is", stated.extractor_sha256, measured.extractor_sha256),
            ("the resolution is", stated.resolution, measured.resolution),
        )
        if on_card is not None and on_card != here
    ]
    if differs:
        return _not_measured(stated, f"not compared: {'; '.join(differs)}")
    recomputed = measured.std if measured.tolerance is None else measured.tolerance
    claimed = stated.std if stated.tolerance is None else stated.tolerance
    if recomputed is None:
        recomputed = max(DEFAULT_TOLERANCE * abs(measured.value), 1e-12)
    tolerance = recomputed if claimed is None else claimed
    difference = measured.value - stated.value
    # Rounding differs between machines, even if the spread is exactly 0.
    rounding = 1e-5 * max(abs(measured.value), abs(stated.value)) + 1e-9
    holds, reason = True, ""
    if tolerance > MAX_TOLERANCE_RATIO * recomputed + rounding:
        holds = False
        reason = f"the card's tolerance is {tolerance:.4g}, the recomputed one is {recomputed:.4g}"
    elif abs(difference) > tolerance + rounding:
        holds = False
        reason = f"differs by {abs(difference):.4g}, more than the tolerance of {tolerance:.4g}"
    elif stated.std is not None and measured.std is not None:
        low, high = sorted((stated.std, measured.std))
        if high > MAX_TOLERANCE_RATIO * low + rounding:
            holds = False
            reason = (
                f"the card's spread is {stated.std:.4g}, the recomputed one is {measured.std:.4g}"
            )
    return CheckRow(stated.name, stated.value, measured.value, difference, tolerance, holds, reason)


def _check_group(
    bench: Bench, options: EvaluationOptions, figures: Sequence[Figure]
) -> Iterator[CheckRow]:
    names = list(dict.fromkeys(metric_argument(figure.to_dict()) for figure in figures))
    results, problems = bench.measure(names, options)
    again = {figure.name: figure for figure in results}
    why = {problem.metric: problem.error.what for problem in problems}
    for figure in figures:
        name = figure.name.removesuffix(_TUNED)
        if name in again:
            yield compare(figure, again[name])
        else:
            metric = metric_argument(figure.to_dict())
            yield _not_measured(figure, why.get(metric, f"{metric} does not return it here"))


def _options_of(figure: Figure, defaults: EvaluationOptions) -> EvaluationOptions:
    return replace(
        defaults,
        # A metric with its own network, or without one, does not use this extractor.
        extractor=figure.extractor if _by_features(figure) and figure.extractor else "small",
        precision=figure.precision or "fp32",
        n=figure.n,
        seed=defaults.seed if figure.seed is None else figure.seed,
        subsets=figure.subsets or defaults.subsets,
        subset_size=figure.subset_size or defaults.subset_size,
        split="test" if figure.split == "test" else "train",
    )


def _by_features(figure: Figure) -> bool:
    """Whether the figure depends on the features of the requested extractor."""
    return figure.precision is not None


def _groups(
    figures: Iterable[Figure], defaults: EvaluationOptions
) -> list[tuple[EvaluationOptions, list[Figure]]]:
    """Group figures that share images and features, so that these are computed once."""
    groups: list[tuple[EvaluationOptions, list[Figure]]] = []
    # The most specific figures first; others join a group unless they contradict it.
    for figure in sorted(figures, key=lambda f: (f.subsets is None, not _by_features(f))):
        options = _options_of(figure, defaults)
        free = set()
        if figure.subsets is None:
            free |= {"subsets", "subset_size"}
        if not _by_features(figure):
            free |= {"extractor", "precision"}
        fixed = [key for key in asdict(options) if key not in free]
        for other, members in groups:
            if all(getattr(options, key) == getattr(other, key) for key in fixed):
                members.append(figure)
                break
        else:
            groups.append((options, [figure]))
    return groups


def _not_measured(figure: Figure, why: str) -> CheckRow:
    reason = why if why.startswith("not compared") else f"cannot be measured here: {why}"
    return CheckRow(figure.name, figure.value, reason=reason)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 20 else f"{text[:12]}…"
