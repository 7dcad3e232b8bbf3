"""results.json, results.csv and RESULTS.md contain the results."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from pathlib import Path

import pytest
from sweep_cases import sweep
from test_sweep_results import THREE, cell, results

from cascadezoo.sweep.cells import load_sweep
from cascadezoo.sweep.results import SweepResults
from cascadezoo.sweep.tables import (
    correlation_lines,
    describe_settings,
    to_csv,
    to_markdown,
    write_tables,
)

FIGURE = {
    "name": "kid.small.n64",
    "metric": "kid",
    "value": 0.1234567,
    "n": 64,
    "std": 0.01,
    "n_real": 50,
    "split": "train",
    "subsets": 100,
    "subset_size": 32,
    "extractor": "small",
    "precision": "fp32",
}
MEASURED = cell(
    "vit",
    0,
    1234567,
    0.1234567,
    kid_std=0.01,
    kid_mean=0.2,
    kid_mean_name="kid.small.n20",
    lpips=0.25,
    seconds_per_epoch=1.5,
    training_seconds=30.0,
    images_per_second=99.5,
    figures=[FIGURE],
)


def rows_of(text: str, section: str) -> list[list[str]]:
    part = text.split(f"## {section}\n")[1].split("\n## ")[0]
    rows = [line for line in part.splitlines() if line.startswith("|")]
    return [[c.strip() for c in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def test_csv_holds_every_number_in_full():
    rows = list(csv.DictReader(io.StringIO(to_csv(results([MEASURED, *THREE])))))
    assert len(rows) == 7
    first = rows[0]
    assert (first["cell"], first["generator"], first["seed"]) == ("vit-s0", "vit", "s0")
    assert (float(first["kid"]), float(first["kid_std"])) == (0.1234567, 0.01)
    assert (first["coarse kind"], first["coarse parameters"], first["parameters"]) == (
        "vit.v1",
        "1234567",
        "1234567",
    )
    killed = next(row for row in rows if row["cell"] == "flow-s1")
    assert (killed["state"], killed["error"], killed["kid"]) == ("failed", "killed", "")


def test_markdown_shows_figures_with_spread_and_settings():
    text = to_markdown(results([MEASURED, *THREE]), ["kid-parameters.png"])
    head, _, first, *_ = rows_of(text, "Cells")
    row = dict(zip(head, first, strict=True))
    assert row["KID"] == "123.46 +- 10.00"
    assert (row["mean KID"], row["LPIPS"], row["s/epoch"]) == ("200.00", "0.2500", "1.50")
    assert (row["images/s"], row["parameters"]) == ("99.5", "1,234,567")
    assert (
        "`kid.small.n64`, 64 samples, 50 real images (train), +- over 100 subsets of 32, extractor small in fp32 x 10^-3"
        in text
    )
    assert "mean of the `kid.small.n20` measured during training" in text
    assert "![kid parameters](plots/kid-parameters.png)" in text
    assert all(len(r) == len(head) for r in rows_of(text, "Cells"))


def test_markdown_shows_seeds_and_correlation():
    text = to_markdown(results(THREE))
    dae = rows_of(text, "Over seeds")[2]
    assert dae[:4] == ["`dae`", "2 of 2", "100", "400.00 +- 141.42"]
    assert rows_of(text, "Over seeds")[3][3] == "200.00"
    assert "over 3 combinations: rho = -1.00, p = 0.33" in text
    assert "## Which axis decides?" in text
    assert "flow has 1 measured cells, others have 2" in text


def test_markdown_names_failed_cells_and_escapes_their_errors():
    evil = dataclasses.replace(THREE[3], error="died | <script>\x1b[31m\n# now [a](b)")
    text = to_markdown(results([*THREE[:3], evil]))
    (line,) = (row for row in text.splitlines() if row.startswith("- `flow-s1`"))
    assert line == r"- `flow-s1` failed: died \| \<script\>\\x1b\[31m \# now \[a\](b)"
    assert rows_of(text, "Cells")[5][3] == "failed"
    assert "4 cells: 3 done, 1 failed" in text


def test_correlation_that_is_not_defined():
    same = [cell(name, 0, 100, kid) for name, kid in (("a", 0.1), ("b", 0.2), ("c", 0.3))]
    correlation = results(same).correlation
    assert correlation is not None
    line = correlation_lines(correlation)[0]
    assert "over 3 combinations" in line
    assert "rho = " not in line


def test_files_of_a_folder(tmp_path: Path):
    summary = results(THREE)
    write_tables(summary, tmp_path)
    assert SweepResults.from_dict(json.loads((tmp_path / "results.json").read_bytes())) == summary
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "RESULTS.md",
        "results.csv",
        "results.json",
    ]


def test_settings_in_words():
    words = describe_settings(
        load_sweep(
            sweep(settings={"training.phases.first.teacher_forcing": {"start": 0.9, "end": 0.1}})
        )
    )
    assert words["phases"] == "first 4 steps, forcing 0.9 -> 0.1; last 4 steps"
    assert words["data"] == "shapes, 8x8"
    assert words["axis upsampler"] == "stages.up: pixelshuffle, interpolate"
    assert words["figures"].startswith("none of ")


@pytest.mark.parametrize("section", ["Plots", "Over seeds", "Failed and stopped cells"])
def test_empty_sections_are_left_out(section):
    assert f"## {section}" not in to_markdown(results([THREE[0]]))
