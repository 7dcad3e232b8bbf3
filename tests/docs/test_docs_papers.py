"""The page of the papers: every table and figure has a row, and what the rows name exists."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

import click
import pytest
from test_docs import ROOT

from cascadezoo.cli.main import main
from cascadezoo.plugins.manager import get_registry
from cascadezoo.spec import shipped_specs
from cascadezoo.spec.files import apply_settings, read_spec
from cascadezoo.sweep.spec import shipped_sweeps

PAGE = (ROOT / "docs" / "papers.md").read_text()
FIGURES = "".join(
    (ROOT / "docs" / name).read_text()
    for name in ("benchmarks.md", "ablation.md", "does-a-cascade-pay.md")
)
VERDICTS = {"reproduced", "not reproduced", "open"}
SCALES = {"test", "smaller", "cost", "hours"}
"""A scale of ``missing`` also names what is missing."""

SPECS = {
    *shipped_specs(),
    # The plugins need not be installed.
    *(path.stem for path in (ROOT / "plugins").glob("*/src/*/presets/*.json")),
}

ITEMS = {
    "S0": [
        *(f"figure {n}" for n in (1, 2)),
        *(f"section {n}" for n in ("5.1", "5.2", "5.3.1", "5.3.2", "5.3.3", "5.3.4")),
        *(f"section {n}" for n in ("6.1", "6.2", "6.3.1", "6.3.2", "6.3.3", "6.4", "7")),
    ],
    "S1": [
        *(f"figure {n}" for n in range(1, 11)),
        *(f"table {n}" for n in ("1a", "1b", "2a", "2b", "3a", "3b", "4a", "4b")),
        *(f"appendix B, {n}x{n}" for n in (32, 64, 128, 256)),
        *(f"section {n}" for n in ("2.1", "2.3", "3.1", "3.2", "3.3", "4")),
    ],
    "S2": [
        *(f"figure {n}" for n in range(1, 9)),
        *(f"table {n}" for n in ("I", "II", "III", "IV", "V", "VI")),
        *(f"listing {n}" for n in range(1, 6)),
        *(f"section VI-{letter}" for letter in "ABCD"),
        *("section VII-E, speed", "section VII-E, memory", "section VIII-A", "section VIII-D"),
    ],
    "S3": [
        *(f"figure {n}" for n in range(1, 28)),
        *(f"table {n}" for n in range(1, 14)),
        *(f"equation {n}" for n in range(1, 16)),
    ],
}
"""The numbered items of each text; a row may have a further word after a comma."""


@dataclass(frozen=True)
class Row:
    source: str
    items: tuple[str, ...]
    text: str
    way: str
    ours: str
    scale: str
    verdict: str

    @property
    def code(self) -> list[str]:
        """The texts in backticks of the column of specs and commands."""
        return re.findall(r"`([^`]+)`", self.way)


def rows() -> list[Row]:
    found = []
    for part in re.split(r"^## ", PAGE, flags=re.M)[1:]:
        source = part[:2]
        lines = [line for line in part.splitlines() if line.startswith("|")]
        for line in lines[2:]:
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) == 6, line
            items = tuple(item.strip() for item in cells[0].split(";"))
            found.append(Row(source, items, *cells[1:]))
    return found


ROWS = rows()


def names(row: Row) -> str:
    return f"{row.source}, {'; '.join(row.items)}"


@pytest.mark.parametrize("source", ITEMS)
def test_every_item_of_a_text_has_a_row(source: str) -> None:
    have = [item for row in ROWS if row.source == source for item in row.items]
    assert len(have) == len(set(have))
    plain = {item.partition(",")[0] for item in have} | set(have)
    assert [item for item in ITEMS[source] if item not in plain] == []


@pytest.mark.parametrize("row", ROWS, ids=names)
def test_a_row_has_a_scale_and_a_verdict_that_fit(row: Row) -> None:
    assert row.text
    assert row.verdict in VERDICTS
    scale, _, reason = row.scale.partition(": ")
    assert scale in SCALES or (scale == "missing" and reason)
    if scale == "test":
        tests = [code for code in row.code if code.startswith("tests/")]
        assert row.verdict == "reproduced"
        assert tests or row.code[0].startswith("cascadezoo plan")
    elif scale == "smaller":
        assert row.ours
        assert row.code
    else:
        assert row.verdict == "open"
    if scale in ("cost", "hours"):
        assert row.code


@pytest.mark.parametrize("row", ROWS, ids=names)
def test_figures_are_those_of_the_other_pages(row: Row) -> None:
    for figure in re.findall(r"[\d.]+ \+- [\d.]+", row.ours):
        assert figure in FIGURES, figure
    for share in re.findall(r"[\d.]+ %", row.ours):
        number = share.removesuffix(" %")
        assert re.search(rf"(?<![\d.]){re.escape(number)}(\.0)? %", FIGURES), share


@pytest.mark.parametrize("row", [row for row in ROWS if row.code], ids=names)
def test_what_a_row_names_exists(row: Row) -> None:
    for code in row.code:
        if code.startswith("cascadezoo "):
            check_command(shlex.split(code)[1:])
        elif code.startswith(("tests/", "python ")):
            assert (ROOT / code.removeprefix("python ")).is_file(), code
        else:
            assert code in SPECS, code


def check_command(words: list[str]) -> None:
    """Parse the words as the command does; specs, sweeps, runs and metrics must exist."""
    with click.Context(main) as context:
        command = main.get_command(context, words[0])
        assert command is not None, words[0]
        known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
        options = [word for word in words[1:] if re.match(r"--?[a-z]", word)]
        assert [word for word in options if word not in known] == []
    target = words[1]
    if words[0] == "sweep":
        assert target in shipped_sweeps()
        return
    name = target.removeprefix("runs/")
    assert (name == target) == (words[0] in ("build", "plan")), target
    for word in words[1:]:
        if word.startswith("runs/"):
            assert word.removeprefix("runs/") in SPECS, word
    assert name in SPECS
    settings = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    if name in shipped_specs():
        stages = {stage["name"] for stage in read_spec(name)[0]["stages"]}
        apply_settings(read_spec(name)[0], settings)
        values = [words[i + 1] for i, w in enumerate(words) if w in ("--steps", "--sampler")]
        assert {value.partition("=")[0] for value in values} <= stages
    if "--metrics" in words:
        metrics = words[words.index("--metrics") + 1].split(",")
        assert set(metrics) <= set(get_registry().metrics.names())


def test_every_spec_of_a_paper_has_a_row() -> None:
    named = {code for row in ROWS for code in row.code}
    papers = {
        name for name in shipped_specs() if name.startswith("paper-") or name.endswith("-cdm")
    }
    assert sorted(papers - named) == []
    assert "cascadezoo sweep paper-ddim-steps" in named


def test_a_false_row_is_found() -> None:
    with pytest.raises(AssertionError):
        check_command(["build", "nobody"])
    with pytest.raises(AssertionError):
        check_command(["sample", "runs/paper-mnist-ddpm", "--nothing"])
    with pytest.raises(AssertionError):
        check_command(["evaluate", "runs/paper-mnist-ddpm", "--metrics", "beauty"])
