"""The faults of a card: invalid metadata, and claims that differ from metrics.json."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from cascadezoo.util.numbers import spread, times
from cascadezoo.util.text import clean_remote
from cascadezoo.util.text import front_line as line
from cascadezoo.util.text import markdown_code as code
from cascadezoo.util.text import markdown_text as plain

__all__ = ["FRONT", "card_faults", "claim_faults", "read_front"]

LARGEST_FRONT = 64 << 10
"""Largest number of characters of front matter; that of a card is far shorter."""
DEEPEST_FRONT = 20
"""Deepest nesting of front matter."""

_OPENING = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(.*?\n)??---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
"""The front matter of a card, with its lines of dashes."""

_STAGES_HEADS = (
    ["stage", "role", "real input", "generated input", "mismatch"],
    ["stage", "role", "fed real images", "fed generated images", "mismatch"],  # up to 0.1
)
_CELLS = re.compile(r"(?<!\\)\|")
_VALUE = re.compile(
    r"(?P<value>-?\d[\d.]*(?:e[+-]\d+)?)(?: \+- (?P<std>\d[\d.]*(?:e[+-]\d+)?))?"
    r"(?P<power> x (?:10\^-?\d+|1/[\d.e+-]+))?(?:[, ].*)?"
)
MOST = 20
"""Number of faults that are reported."""

Row = Mapping[str, Any]


# --- metadata


def read_front(card: str) -> dict[str, Any] | str:
    """Return the front matter of a card, or a message about its fault."""
    match = FRONT.match(card)
    if match is None:
        return "the front matter between two lines of --- is missing"
    text = match[1] or ""
    if len(text) > LARGEST_FRONT:
        return f"the front matter has more than {LARGEST_FRONT} characters"
    try:
        if (fault := _bomb(text)) is not None:
            return fault
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 2}" if mark is not None else ""
        return f"the front matter is not valid YAML{place}"
    except ValueError:
        return "the front matter has an invalid value, such as a date that does not exist"
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        return "the front matter is not a mapping of keys to values"
    return data


def _bomb(text: str) -> str | None:
    """Return the fault of a short text that is expensive to parse, or None."""
    depth = 0
    for token in yaml.scan(text):
        if isinstance(token, yaml.AliasToken):
            return "the front matter has aliases (*name), which are not allowed"
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        if depth > DEEPEST_FRONT:
            return "the front matter is nested too deeply"
    return None


def card_faults(card: str) -> list[str]:
    """Return the faults of a card's metadata that can be detected without the Hub."""
    data = read_front(card)
    if isinstance(data, str):
        return [data]
    faults = []
    if data.get("library_name") != "cascadezoo":
        faults.append("library_name is not cascadezoo; the Hub needs it to load the model")
    for key in ("license", "license_name", "license_link", "pipeline_tag", "model_name"):
        if key in data and not _is_text(data[key]):
            faults.append(f"{key} is not a string")
    for key in ("tags", "datasets", "metrics"):
        value = data.get(key, [])
        if not isinstance(value, list) or not all(_is_text(item) for item in value):
            faults.append(f"{key} is not a list of strings")
    index = data.get("model-index", [])
    if not isinstance(index, list):
        return [*faults, "model-index is not a list"]
    for place, model in enumerate(index):
        faults += _metadata_index_faults(model, f"model-index.{place}")
    return faults


def _metadata_index_faults(model: Any, where: str) -> list[str]:
    if not isinstance(model, dict) or not _is_text(model.get("name")):
        return [f"{where}.name is missing"]
    results = model.get("results")
    if not isinstance(results, list):
        return [f"{where}.results is not a list"]
    faults = []
    for row, result in enumerate(results):
        here = f"{where}.results.{row}"
        if not isinstance(result, dict):
            faults.append(f"{here} is not a mapping of keys to values")
            continue
        for part, key in (("task", "type"), ("dataset", "type"), ("dataset", "name")):
            inner = result.get(part)
            if not isinstance(inner, dict) or not _is_text(inner.get(key)):
                faults.append(f"{here}.{part}.{key} is missing")
        metrics = result.get("metrics")
        if not isinstance(metrics, list) or not metrics:
            faults.append(f"{here}.metrics is empty")
            continue
        for place, metric in enumerate(metrics):
            value = metric.get("value") if isinstance(metric, dict) else None
            if value is None or not _is_text(metric.get("type")):
                faults.append(f"{here}.metrics.{place} lacks a type or a value")
            elif isinstance(value, float) and not math.isfinite(value):
                faults.append(f"{here}.metrics.{place}.value is {value}, which is not finite")
    return faults


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


# --- claims


def claim_faults(card: str, metrics: Mapping[str, Any]) -> list[str]:
    """Compare the figures of a card with metrics.json.

    Checks the results in the front matter and every table of figures or of stages in the body,
    whoever wrote it. Accepts the tables of cards of earlier versions.

    Args:
        card: the text of README.md.
        metrics: the content of metrics.json.

    Returns:
        The faults, one line each, at most 20; empty if every claim is true.
    """
    faults = [*_index_faults(card, metrics["figures"])]
    for head, cells in _tables(card):
        if head[:1] == ["figure"] and "value" in head:
            faults += _figure_fault(dict(zip(head, cells, strict=False)), metrics["figures"])
        elif head == ["phase", "epoch", "figure", "value"]:
            course = [row["figure"] for row in metrics.get("course") or ()]
            faults += _figure_fault(dict(zip(head, cells, strict=False)), course)
        elif head in _STAGES_HEADS:
            faults += _stage_faults(cells, metrics.get("attribution") or ())
    return faults[:MOST]


def _index_faults(card: str, figures: list[Row]) -> Iterator[str]:
    front = read_front(card)
    if isinstance(front, str):
        return
    known = {line(figure["name"]): figure for figure in figures}
    for metric in _results(front.get("model-index")):
        name, value = metric.get("name"), metric.get("value")
        figure = known.get(name) if isinstance(name, str) else None
        shown = clean_remote(name or metric.get("type"), 80)
        if figure is None:
            yield f"the model-index claims {shown}, which is not in metrics.json"
            continue
        if not _is(value, figure["value"]):
            claimed = clean_remote(value, 40)
            yield f"the model-index claims {shown} = {claimed}; metrics.json has {figure['value']}"
        args = metric.get("args")
        args = args if isinstance(args, dict) else {}
        for key in ("extractor", "n", "resolution", "seed", "split"):
            true = figure.get(key)
            true = line(true) if isinstance(true, str) else true
            if key in args and args[key] != true:
                claimed, true = (clean_remote(text, 40) for text in (args[key], true))
                yield f"the model-index claims {key} {claimed} for {shown}; metrics.json has {true}"


def _results(index: Any) -> Iterator[dict[str, Any]]:
    for model in index if isinstance(index, list) else ():
        results = model.get("results") if isinstance(model, dict) else None
        for result in results if isinstance(results, list) else ():
            metrics = result.get("metrics") if isinstance(result, dict) else None
            for metric in metrics if isinstance(metrics, list) else ():
                if isinstance(metric, dict):
                    yield metric


def _tables(card: str) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the rows of every table, each with the table's head in lower case."""
    head: list[str] | None = None
    body = False
    for row in card.splitlines():
        text = row.strip()
        if not text.startswith("|"):
            head, body = None, False
            continue
        cells = [cell.strip() for cell in _CELLS.split(text.strip("|"))]
        if head is None:
            head = [cell.lower() for cell in cells]
        elif not body:
            body = True  # the line of dashes
        else:
            yield head, cells


def _figure_fault(row: dict[str, str], figures: Sequence[Row]) -> Iterator[str]:
    name = row["figure"]
    shown = clean_remote(name.strip("` "), 80)
    # The course of a training has many figures of one name.
    known = [figure for figure in figures if code(figure["name"]) == name]
    claims = [_false_claim(row.get("value", ""), figure) for figure in known]
    if not known:
        yield f"the table claims {shown}, which is not in metrics.json"
    elif None not in claims:
        yield f"the table claims {shown} = {claims[0]}; metrics.json has {_value_of(known[0])}"


def _stage_faults(cells: list[str], rows: Any) -> Iterator[str]:
    known = {plain(row["stage"]): row for row in rows}
    row = known.get(cells[0])
    shown = clean_remote(cells[0], 80)
    if row is None:
        yield f"the table of stages claims {shown}, which is not in metrics.json"
        return
    for cell, figure in zip(cells[2:4], (row.get("real"), row["generated"]), strict=False):
        if not cell and figure is None:
            continue
        claim = clean_remote(cell, 40) if figure is None else _false_claim(cell, figure)
        true = "no value" if figure is None else _value_of(figure)
        if claim is not None:
            yield f"the table of stages claims {claim} for {shown}; metrics.json has {true}"


def _false_claim(cell: str, figure: Row) -> str | None:
    """Return the text of a cell that is not the figure rounded to the digits shown, or None."""
    match = _VALUE.fullmatch(cell)
    scale = times(match["power"] or "") if match is not None else None
    claim = clean_remote(cell, 60)
    if match is None or scale is None:
        return claim
    for key in ("value", "std"):
        if (match[key] is None) != (figure.get(key) is None):
            return claim
        if match[key] is not None and not _rounds_to(figure[key] / scale, match[key]):
            return claim
    return None


def _rounds_to(value: float, text: str) -> bool:
    """Whether a number rounds to a text, to half a unit of the text's last digit."""
    digits, _, exponent = text.partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))
    try:
        shown = float(text)
    except ValueError:
        return False
    return abs(shown - value) <= 0.5000001 * unit + 1e-12 * abs(value)


def _value_of(figure: Row) -> str:
    return spread(figure["value"], figure.get("std"))


def _is(value: Any, true: float) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isclose(value, true, rel_tol=1e-9)
