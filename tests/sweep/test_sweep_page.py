"""The page of a sweep: its tables, plots and samples, also with missing cells."""

from __future__ import annotations

import itertools
import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))

import browser

from cascadezoo.report.images import samples_picture
from cascadezoo.sweep.correlation import Correlation
from cascadezoo.sweep.page import correlation_text, write_page
from cascadezoo.sweep.result_charts import PLOTS, sweep_charts
from cascadezoo.sweep.results import CellResult, CoursePoint, StageResult, SweepResults, summarize
from cascadezoo.util.numbers import page_spread as spread

GENERATORS = {"diffusion": (40_000, 0.06), "dae": (30_500, 0.2), "resnet": (41_000, 0.4)}
UPSAMPLERS = {"pixelshuffle": 3_000, "interpolate": 0}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u202e"


def cell(generator: str, upsampler: str, seed: int, **changes: Any) -> CellResult:
    parameters, kid = GENERATORS[generator]
    kid += 0.01 * seed + 0.02 * (upsampler == "interpolate")
    name = f"{generator}-{upsampler}-s{seed}"
    stages = [
        StageResult(name="coarse", kind=f"{generator}.v1", parameters=parameters),
        StageResult(name="up", kind=f"{upsampler}.v1", parameters=UPSAMPLERS[upsampler]),
    ]
    rows: dict[str, Any] = {
        "name": name,
        "labels": {"generator": generator, "upsampler": upsampler, "seed": f"s{seed}"},
        "state": "done",
        "run": f"cells/{name}",
        "stages": stages,
        "parameters": sum(stage.parameters for stage in stages),
        "kid": kid,
        "kid_std": 0.004,
        "kid_mean": 2 * kid,
        "lpips": 0.123,
        "seconds_per_epoch": 3.5,
        "training_seconds": 60.0 + seed,
        "images_per_second": 1234.5,
        "course": [
            CoursePoint(
                epoch=float(e), seconds=e * 6.0, phase="all", name="kid.small.n64", value=kid * (1 + 1 / e)
            )
            for e in range(1, 6)
        ],
        "kid_name": "kid.inception.n1000",
        "kid_mean_name": "kid.small.n64",
        "lpips_name": "lpips.vgg.n64",
    }  # fmt: skip
    return CellResult(**{**rows, **changes})


def gone(made: CellResult, state: str, error: str | None = None) -> CellResult:
    return CellResult(
        name=made.name,
        labels=made.labels,
        state=state,
        error=error,
        run=made.run,  # type: ignore[arg-type]
    )


def results(seeds: int, cells: list[CellResult] | None = None) -> SweepResults:
    made = cells or [
        cell(g, u, s) for g, u, s in itertools.product(GENERATORS, UPSAMPLERS, range(seeds))
    ]
    return summarize(
        made,
        name="ablation",
        description="A grid.",
        axes=["generator", "upsampler", "seed"],
        seed_axes=["seed"],
        stage_axes=["generator", "upsampler"],
        settings={"training.batch_size": 128, "phases": [{"name": "all", "epochs": 5}]},
        machine={"device": "cpu", "cores": 2},
        started="2026-01-02T03:04:05+00:00",
    )


def picture(path: Path, value: float) -> None:
    """A model folder with the samples.png of a card and enough of a config."""
    path.mkdir(parents=True)
    images = torch.full((36, 3, 8, 8), value)
    samples_picture(images, {"a": images, "b": images}).save(path / "samples.png")
    spec = {"name": "x", "data": {"source": "shapes", "size": 8, "channels": 3, "num_classes": 8}}
    config = {
        "library_name": "cascadezoo", "cascadezoo_version": "0", "spec": spec,
        "spec_digest": "0" * 64, "requires": [], "files": {},
    }  # fmt: skip
    (path / "config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with a failed, a stopped and a waiting cell."""
    cells = [cell(g, u, s) for g, u, s in itertools.product(GENERATORS, UPSAMPLERS, range(2))]
    cells[3] = gone(cells[3], "failed", f"killed by SIGKILL; the log ends with: {HOSTILE}")
    cells[7] = gone(cells[7], "stopped", "stopped by SIGTERM")
    cells[11] = gone(cells[11], "waiting")
    out = tmp_path_factory.mktemp("sweep")
    for place, one in enumerate(cells):
        if one.state == "done":
            picture(out / one.run / "model", place / 12)
    assert write_page(results(2, cells), out) == out / "results.html"
    return out


def cells_of(seen: browser.Opened, label: str) -> list[list[str]]:
    rows = seen.page.locator(f'[aria-label="{label}"] tbody tr')
    return [rows.nth(i).locator("th, td").all_inner_texts() for i in range(rows.count())]


def test_the_page_stands_on_its_own(folder: Path, chromium: Any):
    with browser.opened(chromium, folder / "results.html") as seen:
        seen.check()
        assert seen.sideways() <= 0
        assert seen.page.pdf(format="A4").startswith(b"%PDF")
        rows = {row[0].split("\n")[0]: row[1:] for row in cells_of(seen, "Results of every cell")}
        assert len(rows) == 12
        assert rows["dae-pixelshuffle-s1"] == [
            "210.0 ± 4.0", "420.0", "0.123", "3.5", "61.0", "1,234.5",
            "33,500", "30,500\ndae.v1", "3,000\npixelshuffle.v1",
        ]  # fmt: skip
        assert set(rows["diffusion-interpolate-s1"]) == {"\N{EN DASH}"}
        text = seen.page.locator("main").inner_text()
        assert (
            "KID is kid.inception.n1000; mean KID is kid.small.n64; LPIPS is lpips.vgg.n64" in text
        )
    for dark in (False, True):
        with browser.opened(
            chromium, folder / "results.html", viewport=browser.PHONE, dark=dark
        ) as seen:
            seen.check()
            assert seen.sideways() <= 0
            assert browser.least_contrast(seen)[0] >= 4.5


def test_cells_that_failed_are_named_with_their_reason(folder: Path, chromium: Any):
    with browser.opened(chromium, folder / "results.html") as seen:
        rows = cells_of(seen, "Cells that failed")
        assert [row[0] for row in rows] == ["diffusion-interpolate-s1", "dae-interpolate-s1"]
        assert rows[0][1] == "failed"
        assert rows[0][2] == f"killed by SIGKILL; the log ends with: {HOSTILE[:-1]}\\u202e"
        text = seen.page.locator("#samples").inner_text()
        assert "No samples of diffusion-interpolate-s1, dae-interpolate-s1, " in text
        assert "resnet-interpolate-s1\nnot started" in seen.page.locator("#results").inner_text()


def test_the_table_sorts_by_kid_with_missing_cells_last(folder: Path, chromium: Any):
    with browser.opened(chromium, folder / "results.html") as seen:
        head = seen.page.locator('[aria-label="Results of every cell"] thead th').nth(1)
        assert head.inner_text().startswith("KID")
        for order in (1, -1):
            head.locator("button").focus()
            seen.page.keyboard.press("Enter")
            column = [row[1] for row in cells_of(seen, "Results of every cell")]
            numbers = [float(text.split(" ")[0]) for text in column[:9]]
            assert numbers == sorted(numbers)[::order]
            assert set(column[9:]) == {"\N{EN DASH}"}


def test_means_and_spreads_over_seeds_are_shown(folder: Path, chromium: Any):
    with browser.opened(chromium, folder / "results.html") as seen:
        rows = {row[0]: row[1:] for row in cells_of(seen, "Means over seeds")}
        std = math.sqrt(2 * 5**2)
        assert rows["dae-pixelshuffle"][0] == spread(205.0, std)
        assert rows["dae-pixelshuffle"][5:] == ["2 of 2", "33,500"]
        assert rows["dae-interpolate"][0] == "220.0"
        assert rows["dae-interpolate"][5:] == ["1 of 2", "30,500"]


def test_samples_of_each_cell_are_those_of_its_model(folder: Path, chromium: Any):
    with browser.opened(chromium, folder / "results.html") as seen:
        images = seen.page.locator("#samples img")
        assert images.count() == 9
        size = images.nth(0).evaluate("e => [e.naturalWidth, e.naturalHeight]")
        assert size == [3 * 64 + 2 * 4] * 2
        # The middle of a cell of the sixth picture, whose model makes one grey.
        shade = seen.page.evaluate(
            """() => { const e = document.querySelector('img[alt="Samples of dae-pixelshuffle-s0"]');
            const c = document.createElement('canvas'); c.width = e.naturalWidth; c.height = 9;
            const p = c.getContext('2d'); p.drawImage(e, 0, 0);
            return [...p.getImageData(5, 5, 1, 1).data]; }"""
        )
        assert shade == [*[round((4 / 12 + 1) * 127.5)] * 3, 255]


def test_plots_lie_beside_the_page_as_pictures(folder: Path):
    assert sorted(p.name for p in (folder / "plots").iterdir()) == sorted(PLOTS)
    for path in (folder / "plots").iterdir():
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert np.asarray(image.convert("L")).std() > 5


def test_points_are_combinations_with_the_spread_between_seeds():
    charts = sweep_charts(results(3))
    (chart,) = charts["kid-parameters.png"]
    points = {p.label: p for series in chart.series for p in series.points}
    assert len(points) == 6
    point = points["dae-pixelshuffle"]
    assert (point.x, point.y) == (33_500, pytest.approx(210.0))
    assert point.spread == pytest.approx(10.0)
    assert [series.name for series in chart.series] == list(GENERATORS)
    (time,) = charts["kid-time.png"]
    assert {p.x for s in time.series for p in s.points} == {61.0}
    (single,) = sweep_charts(results(1))["kid-parameters.png"]
    assert {p.spread for s in single.series for p in s.points} == {4.0}


def test_many_courses_are_drawn_in_panels_of_one_scale(monkeypatch: pytest.MonkeyPatch):
    assert len(sweep_charts(results(2))["kid-epochs.png"]) == 1  # six combinations
    monkeypatch.setitem(UPSAMPLERS, "transposed", 900)
    panels = sweep_charts(results(2))["kid-epochs.png"]
    assert [panel.title for panel in panels] == [f"KID over epochs: {g}" for g in GENERATORS]
    assert len({(p.scales()[1].low, p.scales()[1].high) for p in panels}) == 1
    styles = [{s.name: s.style for s in panel.series} for panel in panels]
    assert styles[0] == styles[1] == {"pixelshuffle": 0, "interpolate": 1, "transposed": 2}


def test_figures_of_different_names_share_no_plot():
    cells = [cell("diffusion", "pixelshuffle", s) for s in range(3)]
    cells[0] = replace(
        cells[0], kid_name="kid.small.n64", labels={**cells[0].labels, "generator": "other"}
    )
    (chart,) = sweep_charts(results(1, cells))["kid-parameters.png"]
    assert chart.y.label.startswith("kid.inception.n1000")
    assert [p.label for s in chart.series for p in s.points] == ["diffusion-pixelshuffle"]
    assert "1 of 2 combinations" in chart.note


def test_a_sweep_without_finished_cells_has_a_page(tmp_path: Path, chromium: Any):
    cells = [gone(cell("dae", "pixelshuffle", s), "waiting") for s in range(2)]
    write_page(results(2, cells), tmp_path)
    with browser.opened(chromium, tmp_path / "results.html") as seen:
        seen.check()
        text = seen.page.locator("main").inner_text()
        assert text.count("Nothing was recorded.") == 3
        assert "The correlation of parameters and KID needs" in text


@pytest.mark.parametrize(
    ("correlation", "shown"),
    [
        (Correlation(n=6, rho=-0.9, p=0.0001, method="exact"), ("-0.90", "0.001")),
        (Correlation(n=6, rho=-0.9, p=0.02, method="exact"), ("-0.90", "0.020", "better")),
        (Correlation(n=36, rho=0.9, p=0.02, method="t"), ("+0.90", "0.020", "worse")),
        (Correlation(n=36, rho=0.1, p=0.5, method="t"), ("+0.10", "0.500")),
        (Correlation(n=6, rho=None, p=None, method="exact"), ()),
    ],
)
def test_the_text_of_the_correlation(correlation, shown):
    text = correlation_text(correlation)
    assert all(part in text for part in shown), text
    assert re.search(r"\b(6|36) combinations", text)
