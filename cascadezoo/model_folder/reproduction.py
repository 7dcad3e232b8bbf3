"""How a figure is measured again: the command that a card tells, and the name to ask by."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cascadezoo.errors import PluginError
from cascadezoo.plugins.manager import get_registry
from cascadezoo.spec import CascadeSpec

__all__ = ["MetricTexts", "asked_name", "command_of", "metric_texts", "why_not_again"]

TUNED_BEFORE = "measured before the sampling defaults were tuned"
"""The note of figures whose sampling settings are not the model's any more."""

SPEED = "images-per-second"


@dataclass(frozen=True, slots=True)
class MetricTexts:
    """How people read a metric.

    Args:
        title: what they call it.
        scale: what its values are multiplied by for them.
        better: ``lower`` or ``higher``; None where neither is.
    """

    title: str
    scale: float = 1.0
    better: str | None = None


def metric_texts(name: str) -> MetricTexts:
    """How people read a metric; its name and its bare numbers where nothing is known of it."""
    if name == SPEED:
        return MetricTexts("Sampling speed", better="higher")
    found = get_registry().metrics.rows.get(name)
    if found is None:
        return MetricTexts(name)
    return MetricTexts(found.entry.title or name, found.entry.scale, found.entry.better)


def asked_name(figure: Mapping[str, Any]) -> str:
    """What to ask for to get a figure: ``kid``, or ``lpips:alex`` where a setting is in the name.

    Args:
        figure: a row of metrics.json.
    """
    name = str(figure["metric"])
    found = get_registry().metrics.rows.get(name)
    if found is None:
        return name
    try:
        field = getattr(found.entry.load_config(), "argument", None)
    except PluginError:
        return name
    settings = figure.get("settings") or {}
    return f"{name}:{settings[field]}" if field is not None and field in settings else name


def why_not_again(figure: Mapping[str, Any]) -> str | None:
    """Why a figure is not one that another measurement should give; None where it is."""
    if TUNED_BEFORE in (figure.get("note") or ""):
        return "the model's sampling settings were changed since it was measured"
    if figure.get("seed") is None:
        unit = figure.get("unit")
        what = "a speed" if unit == "images/s" else "a figure without a seed"
        return f"{what} follows from the machine and the moment, and is not compared"
    return None


def command_of(figure: Mapping[str, Any], spec: CascadeSpec, model: str) -> str | None:
    """The command that measures a figure again; None where there is none.

    Args:
        figure: a row of metrics.json.
        spec: the model's spec, whose settings are left out of the command.
        model: how the model is named.
    """
    if why_not_again(figure) is not None:
        return None
    words = ["cascadezoo", "evaluate", model, "--metrics", asked_name(figure)]
    # A metric that brings its own network says nothing of the extractor's arithmetic.
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
