"""What a card claims, read back from its text and held against metrics.json."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cascadezoo.cards.merge import read_front
from cascadezoo.util.numbers import spread, times
from cascadezoo.util.text import clean_remote
from cascadezoo.util.text import front_line as line
from cascadezoo.util.text import markdown_code as code
from cascadezoo.util.text import markdown_text as plain

__all__ = ["claim_faults"]

_CELLS = re.compile(r"(?<!\\)\|")
_VALUE = re.compile(
    r"(?P<value>-?\d[\d.]*(?:e[+-]\d+)?)(?: \+- (?P<std>\d[\d.]*(?:e[+-]\d+)?))?"
    r"(?P<power> x (?:10\^-?\d+|1/[\d.e+-]+))?(?:[, ].*)?"
)
MOST = 20

Row = Mapping[str, Any]


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
