"""The faults of a card: metadata that are not valid, and claims that metrics.json does not hold."""

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
"""Characters of front matter; a card's is far shorter."""
DEEPEST_FRONT = 20

_OPENING = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(.*?\n)??---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
"""The front matter of a card, with its lines of dashes."""

_CELLS = re.compile(r"(?<!\\)\|")
_VALUE = re.compile(
    r"(?P<value>-?\d[\d.]*(?:e[+-]\d+)?)(?: \+- (?P<std>\d[\d.]*(?:e[+-]\d+)?))?"
    r"(?P<power> x (?:10\^-?\d+|1/[\d.e+-]+))?(?:[, ].*)?"
)
MOST = 20

Row = Mapping[str, Any]


# --- metadata


def read_front(card: str) -> dict[str, Any] | str:
    """The front matter of a card, or what is wrong with it."""
    match = FRONT.match(card)
    if match is None:
        return "it has no front matter between two lines of ---"
    text = match[1] or ""
    if len(text) > LARGEST_FRONT:
        return f"its front matter has more than {LARGEST_FRONT} characters"
    try:
        if (fault := _bomb(text)) is not None:
            return fault
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 2}" if mark is not None else ""
        return f"its front matter is not YAML{place}"
    except ValueError:
        return "its front matter holds a value that is none, such as a date that does not exist"
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        return "its front matter is not a list of keys with values"
    return data


def _bomb(text: str) -> str | None:
    """What would make a short text costly to read."""
    depth = 0
    for token in yaml.scan(text):
        if isinstance(token, yaml.AliasToken):
            return "its front matter has aliases (*name), which cards do not need"
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        if depth > DEEPEST_FRONT:
            return "its front matter is nested too deeply"
    return None


def card_faults(card: str) -> list[str]:
    """What is wrong with a card's metadata, as far as it can be told without the Hub."""
    data = read_front(card)
    if isinstance(data, str):
        return [data]
    faults = []
    if data.get("library_name") != "cascadezoo":
        faults.append("library_name is not cascadezoo, by which the Hub knows how it is loaded")
    for key in ("license", "license_name", "license_link", "pipeline_tag", "model_name"):
        if key in data and not _is_text(data[key]):
            faults.append(f"{key} is not a text")
    for key in ("tags", "datasets", "metrics"):
        value = data.get(key, [])
        if not isinstance(value, list) or not all(_is_text(item) for item in value):
            faults.append(f"{key} is not a list of texts")
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
            faults.append(f"{here} is not a list of keys with values")
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
                faults.append(f"{here}.metrics.{place}.value is {value}, which is no figure")
    return faults


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


# --- claims


def claim_faults(card: str, metrics: Mapping[str, Any]) -> list[str]:
    """Figures that a card claims and metrics.json does not hold.

    Looked at are the results in the front matter, and in the body every table of figures and of
    what each stage makes, whoever wrote it.

    Args:
        card: the text of README.md.
        metrics: the content of metrics.json.

    Returns:
        What is wrong, one line each, at most 20; empty where every claim holds.
    """
    faults = [*_index_faults(card, metrics["figures"])]
    for head, cells in _tables(card):
        if head[:1] == ["figure"] and "value" in head:
            faults += _figure_fault(dict(zip(head, cells, strict=False)), metrics["figures"])
        elif head == ["phase", "epoch", "figure", "value"]:
            course = [row["figure"] for row in metrics.get("course") or ()]
            faults += _figure_fault(dict(zip(head, cells, strict=False)), course)
        elif head == ["stage", "role", "fed real images", "fed generated images", "mismatch"]:
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
            yield f"its model-index claims {shown}, which metrics.json does not hold"
            continue
        if not _is(value, figure["value"]):
            told = clean_remote(value, 40)
            yield f"its model-index claims {shown} = {told}; metrics.json holds {figure['value']}"
        found = metric.get("args")
        args: dict[str, Any] = found if isinstance(found, dict) else {}
        for key in ("extractor", "n", "resolution", "seed", "split"):
            held = figure.get(key)
            held = line(held) if isinstance(held, str) else held
            if key in args and args[key] != held:
                told, held = (clean_remote(text, 40) for text in (args[key], held))
                yield f"its model-index says {key} {told} of {shown}; metrics.json {held}"


def _results(index: Any) -> Iterator[dict[str, Any]]:
    for model in index if isinstance(index, list) else ():
        results = model.get("results") if isinstance(model, dict) else None
        for result in results if isinstance(results, list) else ():
            metrics = result.get("metrics") if isinstance(result, dict) else None
            for metric in metrics if isinstance(metrics, list) else ():
                if isinstance(metric, dict):
                    yield metric


def _tables(card: str) -> Iterator[tuple[list[str], list[str]]]:
    """The rows of every table, each with the table's head in lower case."""
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
    # A course holds many of one name.
    known = [figure for figure in figures if code(figure["name"]) == name]
    told = [_differs(row.get("value", ""), figure) for figure in known]
    if not known:
        yield f"its table claims {shown}, which metrics.json does not hold"
    elif None not in told:
        yield f"its table claims {shown} = {told[0]}; metrics.json holds {_held(known[0])}"


def _stage_faults(cells: list[str], rows: Any) -> Iterator[str]:
    known = {plain(row["stage"]): row for row in rows}
    row = known.get(cells[0])
    shown = clean_remote(cells[0], 80)
    if row is None:
        yield f"its table of stages claims {shown}, of which metrics.json holds nothing"
        return
    for cell, figure in zip(cells[2:4], (row.get("real"), row["generated"]), strict=False):
        if not cell and figure is None:
            continue
        if figure is None or (told := _differs(cell, figure)) is not None:
            held = "nothing" if figure is None else _held(figure)
            told = clean_remote(cell, 40) if figure is None else told
            yield f"its table of stages claims {told} of {shown}; metrics.json holds {held}"


def _differs(cell: str, figure: Row) -> str | None:
    """What a cell says, where that is not the figure rounded to the digits shown."""
    found = _VALUE.fullmatch(cell)
    scale = times(found["power"] or "") if found is not None else None
    told = clean_remote(cell, 60)
    if found is None or scale is None:
        return told
    for key in ("value", "std"):
        if (found[key] is None) != (figure.get(key) is None):
            return told
        if found[key] is not None and not _rounds_to(figure[key] / scale, found[key]):
            return told
    return None


def _rounds_to(value: float, text: str) -> bool:
    """Whether a number is what a text shows, to half a unit of the text's last digit."""
    digits, _, exponent = text.partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))
    try:
        shown = float(text)
    except ValueError:
        return False
    return abs(shown - value) <= 0.5000001 * unit + 1e-12 * abs(value)


def _held(figure: Row) -> str:
    return spread(figure["value"], figure.get("std"))


def _is(value: Any, true: float) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isclose(value, true, rel_tol=1e-9)
