"""How to reproduce a figure: the command on a card, and the metric's name on the command line."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cascadezoo.errors import PluginError
from cascadezoo.plugins.manager import get_registry
from cascadezoo.spec import CascadeSpec

__all__ = [
    "MetricTexts",
    "command_of",
    "metric_argument",
    "metric_texts",
    "why_not_reproducible",
]

TUNED_BEFORE = "measured before the sampling defaults were tuned"
"""The note of figures that were measured with other sampling settings than the model's."""

SPEED = "images-per-second"


@dataclass(frozen=True, slots=True)
class MetricTexts:
    """How a metric is shown.

    Args:
        title: its display name.
        scale: factor of the values that are shown.
        better: ``lower`` or ``higher``; None if neither.
    """

    title: str
    scale: float = 1.0
    better: str | None = None


def metric_texts(name: str) -> MetricTexts:
    """How a metric is shown; an unknown metric by its name and unscaled values."""
    if name == SPEED:
        return MetricTexts("Sampling speed", better="higher")
    row = get_registry().metrics.rows.get(name)
    if row is None:
        return MetricTexts(name)
    return MetricTexts(row.entry.title or name, row.entry.scale, row.entry.better)


def metric_argument(figure: Mapping[str, Any]) -> str:
    """The argument of ``--metrics`` for a figure: ``kid``, or ``lpips:alex`` with its setting.

    Args:
        figure: a row of metrics.json.
    """
    name = str(figure["metric"])
    row = get_registry().metrics.rows.get(name)
    if row is None:
        return name
    try:
        field = getattr(row.entry.load_config(), "argument", None)
    except PluginError:
        return name
    settings = figure.get("settings") or {}
    return f"{name}:{settings[field]}" if field is not None and field in settings else name


def why_not_reproducible(figure: Mapping[str, Any]) -> str | None:
    """Why another measurement may give another value; None if it must give the same."""
    if TUNED_BEFORE in (figure.get("note") or ""):
        return "the model's sampling settings have changed since this measurement"
    if figure.get("seed") is None:
        unit = figure.get("unit")
        what = "a speed" if unit == "images/s" else "a figure without a seed"
        return f"{what} depends on the machine and its load, and is not compared"
    return None


def command_of(figure: Mapping[str, Any], spec: CascadeSpec, model: str) -> str | None:
    """The command that reproduces a figure; None if it is not reproducible.

    Args:
        figure: a row of metrics.json.
        spec: the model's spec; the command omits settings that equal the spec's.
        model: the model's name in the command.
    """
    if why_not_reproducible(figure) is not None:
        return None
    words = ["cascadezoo", "evaluate", model, "--metrics", metric_argument(figure)]
    # A metric with its own network has no precision of an extractor.
    precision = figure.get("precision")
    if precision is not None:
        words += ["--extractor", str(figure.get("extractor"))]
    words += ["-n", str(figure["n"]), "--seed", str(figure["seed"])]
    if precision not in (None, spec.evaluation.precision):
        words += ["--precision", str(precision)]
    split = figure.get("split")
    if split not in (None, spec.evaluation.split):
        words += ["--split", str(split)]
    for key in ("subsets", "subset_size"):
        value = figure.get(key)
        if value not in (None, getattr(spec.evaluation, key)):
            words += ["--set", f"evaluation.{key}={value}"]
    return shlex.join(words)
