"""``cascadezoo report MODEL...``: the page of models in a browser, and its numbers."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from cascadezoo import Cascade, __version__, build_cascade
from cascadezoo.cli.main import main
from cascadezoo.model_folder.integrity import seal
from cascadezoo.model_folder.layout import read_config
from cascadezoo.report.images import to_uint8
from cascadezoo.report.model_page import model_page
from cascadezoo.report.model_view import ModelView
from cascadezoo.report.recorded_metrics import Recorded
from cascadezoo.spec import load_spec, resolve

SHAPES = "shapes-tiny"
SPEC: dict[str, Any] = {
    "name": "page",
    "data": {"source": "shapes", "config": {"size": 16, "count": 64, "test_count": 32}},
    "stages": [
        {"name": "coarse", "kind": "flow.v1",
         "config": {"channels": 8, "multipliers": [1, 1], "steps": 4}},
        {"name": "up", "kind": "pixelshuffle.v1", "config": {"hidden": 4}},
    ],
    "training": {
        "batch_size": 16,
        "losses": [],
        "phases": [{"name": "first", "train": ["coarse"], "steps": 5},
                   {"name": "then", "train": ["coarse", "up"], "steps": 5}],
    },
    "evaluation": {"metrics": ["kid"], "extractor": "small", "samples": 32, "subset_size": 16,
                   "in_loop": {"samples": 32, "subset_size": 16, "subsets": 5, "extractor": "small"}},
}  # fmt: skip


def report(*args: object) -> Result:
    return CliRunner().invoke(main, ["report", *[str(a) for a in args], "-q"])


def result(*args: object) -> dict[str, Any]:
    done = report(*args, "--json")
    assert done.exit_code == 0, done.stderr
    data: dict[str, Any] = json.loads(done.stdout)
    return data


def error_of(*args: object) -> dict[str, Any]:
    """The error that the command reports."""
    done = report(*args, "--json")
    assert done.exit_code == 2, done.output
    error: dict[str, Any] = json.loads(done.stderr)["error"]
    return error


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as started:
        yield started


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with events, figures and an attribution."""
    out = tmp_path_factory.mktemp("runs") / "one"
    build_cascade(SPEC, out, device="cpu")
    change(out / "model", attribution=attribution(out / "model"))
    return out


@pytest.fixture(scope="module")
def page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run and a model of the zoo side by side."""
    out = tmp_path_factory.mktemp("pages") / "report.html"
    data = result(run, SHAPES, "-n", 16, "--features", 20, "--steps", 4, "-o", out)
    assert data["models"] == ["page", SHAPES]
    assert data["bytes"] == out.stat().st_size < 3_000_000
    return out


def metrics_of(model: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((model / "metrics.json").read_text())
    return data


def change(model: Path, **keys: Any) -> None:
    """Change metrics.json, like an evaluation with --save."""
    (model / "metrics.json").write_text(json.dumps({**metrics_of(model), **keys}))
    seal(model, resolve(read_config(model).spec, for_training=False).spec, __version__)


def attribution(model: Path) -> list[dict[str, Any]]:
    figure = metrics_of(model)["figures"][0]

    def row(stage: str, value: float) -> dict[str, Any]:
        return {**figure, "name": f"{figure['name']}.{stage}", "value": value}

    return [
        {"stage": "coarse", "real": None, "generated": row("coarse", 0.125)},
        {"stage": "up", "real": row("up", 0.0625), "generated": row("up", 0.25),
         "mismatch": 0.1875, "share": 0.75},
    ]  # fmt: skip


def images_of(text: str) -> dict[str, np.ndarray]:
    """The pictures of a page by their alternative texts."""
    pictures = {}
    for uri, alt in re.findall(r'<img src="data:image/\w+;base64,([^"]+)" alt="([^"]*)"', text):
        with Image.open(io.BytesIO(base64.b64decode(uri))) as image:
            pictures[alt] = np.asarray(image.convert("RGBA"))
    return pictures


def cells(seen: browser.Opened, label: str) -> list[list[str]]:
    rows = seen.page.locator(f'[aria-label="{label}"] tbody tr')
    return [rows.nth(i).locator("th, td").all_inner_texts() for i in range(rows.count())]


@pytest.mark.slow
def test_the_page_is_self_contained(page: Path, chromium: Any):
    with browser.opened(chromium, page) as seen:
        seen.check()
        assert seen.sideways() <= 0
        assert browser.least_contrast(seen)[0] >= 4.5
        heads = seen.page.locator("h2").all_inner_texts()
        assert heads == [
            "Samples", "The models", "Stage by stage", "From noise to image", "Figures",
            "Cost", "Where quality is lost", "Training", "Time per epoch",
            "Real and generated features", "How this page was made",
        ]  # fmt: skip
        for link in seen.page.locator("nav a").all():
            assert seen.page.locator(str(link.get_attribute("href"))).count() == 1
        charts = seen.page.locator("p.head").all_inner_texts()
        for title in (
            "Losses",
            "Kernel Inception Distance in training",
            "Teacher forcing",
            "Learning rates",
            "Time of each epoch",
        ):
            assert title in charts
        assert seen.page.pdf(format="A4").startswith(b"%PDF")
    for dark in (False, True):
        with browser.opened(chromium, page, viewport=browser.PHONE, dark=dark) as seen:
            seen.check()
            assert seen.sideways() <= 0
            assert browser.least_contrast(seen)[0] >= 4.5


def test_figures_are_compared_by_name(page: Path, run: Path, chromium: Any):
    zoo = Cascade.from_pretrained(SHAPES)
    assert zoo.spec.name == SHAPES
    with browser.opened(chromium, page) as seen:
        rows = {row[0]: row[1:] for row in cells(seen, "Figures of all models")}
        ours = {f["name"]: f for f in metrics_of(run / "model")["figures"]}
        kid = ours["kid.small.n32"]
        assert rows["kid.small.n32"] == [
            f"{kid['value'] * 1000:.1f} ± {kid['std'] * 1000:.1f} x 10⁻³", "\N{EN DASH}",
        ]  # fmt: skip
        assert rows["kid.small.n1000"] == ["\N{EN DASH}", "14.9 ± 2.0 x 10⁻³"]
        assert set(ours) < set(rows)


def test_costs_of_stages_equal_those_of_the_plan(page: Path, chromium: Any):
    done = CliRunner().invoke(main, ["plan", SHAPES, "--json"])
    plan = json.loads(done.stdout)
    with browser.opened(chromium, page) as seen:
        rows = cells(seen, "Parameters and FLOPs of each stage")
        assert [row[:2] for row in rows] == [
            ["page", "coarse"], ["page", "up"],
            [SHAPES, "coarse"], [SHAPES, "up"], [SHAPES, "refine"],
        ]  # fmt: skip
        for row, stage in zip(rows[2:], plan["stages"], strict=True):
            assert row[2:5] == [stage["kind"], stage["output"], f"{stage['parameters']:,}"]
            assert row[6] == str(stage["evaluations"])
        button = seen.page.locator('[aria-label="Parameters and FLOPs of each stage"] button').nth(
            4
        )
        for order in (1, -1):
            button.click()
            rows = cells(seen, "Parameters and FLOPs of each stage")
            counts = [int(row[4].replace(",", "")) for row in rows]
            assert counts == sorted(counts)[::order]


def test_attribution_names_the_stage_to_improve(page: Path, chromium: Any):
    with browser.opened(chromium, page) as seen:
        rows = cells(seen, "Attribution by stage of page")
        assert [row[0] for row in rows] == ["coarse", "up"]
        assert rows[0][1] == rows[0][3] == "\N{EN DASH}"
        assert rows[1][1].startswith("62.5 ± ")
        assert rows[1][2].endswith("kid.small.n32.up")
        assert rows[1][3:] == ["+188", "75%"]
        text = seen.page.locator("#where-quality-is-lost").inner_text()
        assert "Stage up accounts for most of the figure, 75%" in text
        # The other model of the page brings its own.
        rows = cells(seen, "Attribution by stage of shapes-tiny")
        assert [row[0] for row in rows] == ["coarse", "up", "refine"]


def test_missing_parts_are_explained(page: Path):
    text = page.read_text()
    assert text.count("No curves: ") == 1
    assert "Last losses of shapes-tiny" in text


def test_the_pictures_are_samples_of_the_model(page: Path, run: Path):
    cascade = Cascade.from_pretrained(run)
    stages = cascade.sample(16, seed=0, steps=4, return_stages=True)
    pictures = images_of(page.read_text())
    sheets = [
        ("16 samples of page", stages["up"], 8, 96),
        ("Stages of page: coarse", stages["coarse"][:8], 8, 96),
        ("Stages of page: up", stages["up"][:8], 8, 96),
        ("Sampling by coarse of page: image", stages["up"][:6], 1, 96),
    ]
    for alt, images, columns, cell in sheets:
        rows = to_uint8(images).permute(0, 2, 3, 1).numpy().astype(int)
        for i, image in enumerate(rows):
            row, column = divmod(i, columns)
            top, left = row * (cell + 4), column * (cell + 4)
            factor = cell // len(image)
            shown = pictures[alt][top : top + cell : factor, left : left + cell : factor, :3]
            # Other batch sizes may round differently.
            assert np.abs(shown.astype(int) - image).max() <= 1
    assert "Sampling by coarse of page: 1" in pictures


def test_labels_are_used_in_turn(run: Path, tmp_path: Path):
    out = tmp_path / "labels.html"
    result(run, "-n", 3, "--label", 5, "--label", 2, "--features", 0, "--seed", 3, "-o", out)
    expected = Cascade.from_pretrained(run).sample(3, seed=3, labels=[5, 2, 5])
    shown = images_of(out.read_text())["3 samples of page"][:96:6, :296:6, :3].astype(int)
    assert np.abs(shown[:, :16] - to_uint8(expected)[0].permute(1, 2, 0).numpy()).max() <= 1
    assert "--features 0" in out.read_text()


def test_an_unfinished_run_shows_its_course(run: Path, tmp_path: Path, chromium: Any):
    shutil.copytree(run, tmp_path / "half", ignore=shutil.ignore_patterns("model", "checkpoints"))
    out = tmp_path / "half.html"
    data = result(tmp_path / "half", "-o", out)
    assert set(data["lacks"]["page"]) == {"samples", "strip", "trajectories", "features"}
    with browser.opened(chromium, out) as seen:
        seen.check()
        text = seen.page.locator("main").inner_text()
        parts = ("No samples: ", "No strip: ", "No trajectories: ", "no features: ")
        assert [text.count(part) for part in parts] == [1, 1, 1, 1]
        assert "Losses" in seen.page.locator("p.head").all_inner_texts()


def test_an_untrusted_model_cannot_control_the_page(run: Path, tmp_path: Path, chromium: Any):
    model = tmp_path / "model"
    shutil.copytree(run / "model", model)
    config = json.loads((model / "config.json").read_text())
    config["spec"]["description"] = (
        " ".join(browser.HOSTILE[:8])[:900].encode("utf-8", "replace").decode()
    )
    spec = resolve(config["spec"], for_training=False).spec
    metrics = metrics_of(model)
    for row in metrics["figures"]:
        row["note"] = browser.HOSTILE[2]
    metrics["training"]["device"] = browser.HOSTILE[0]
    metrics["training"]["losses"] = {
        browser.HOSTILE[4]: {browser.HOSTILE[3]: float("nan"), browser.HOSTILE[0]: 1e308}
    }
    metrics["training"]["seconds_per_epoch"] = {
        browser.HOSTILE[6]: float("inf"),
        browser.HOSTILE[2]: -1.0,
    }
    metrics["attribution"] = attribution(model)
    metrics["attribution"][1]["stage"] = browser.HOSTILE[4]
    (model / "metrics.json").write_text(json.dumps(metrics))
    seal(model, spec, __version__)
    out = tmp_path / "report.html"
    result(model, "--features", 0, "-n", 4, "-o", out)
    with browser.opened(chromium, out) as seen:
        seen.check()
        assert seen.page.locator("script").count() == 1
        assert browser.HOSTILE[0] in seen.page.locator("main").inner_text()
        assert "not a number" in seen.page.locator("#training").inner_text()


def test_missing_data_omit_features_unless_required(run: Path, tmp_path: Path):
    model = tmp_path / "model"
    shutil.copytree(run / "model", model)
    spec = json.loads(json.dumps(read_config(model).spec))
    spec["data"] |= {"source": "folder", "config": {"path": str(tmp_path / "gone")}}
    seal(model, resolve(spec, for_training=False).spec, __version__)
    data = result(model, "-n", 2, "-o", tmp_path / "a.html")
    assert "gone" in data["lacks"]["page"]["features"]
    required = ("-n", 2, "--features", 5, "-o", tmp_path / "b.html")
    assert error_of(model, *required)["code"] == "data-untrusted"
    error = error_of(model, *required, "--trust-data")
    assert error["code"] == "data-no-folder"
    assert "gone" in error["message"]
    assert [p.name for p in tmp_path.iterdir() if p.name != "model"] == ["a.html"]


@pytest.mark.parametrize(
    ("args", "code", "shown", "hint"),
    [
        (["-o", "a.png"], "input-report-suffix", "a.png", "report.html"),
        (["-o", "/proc/x/a.html"], "input-output-not-writable", "/proc/x/a.html", "-o"),
        (["--features", "-1"], "usage", "'-1'", "--help"),
        (["--extractor", "eyes", "--features", "5"], "lookup", "'eyes'", ""),
        (["--label", "99"], "sample-label-out-of-range", "99", "7"),
        (["--sampler", "magic"], "sample-sampler-unknown", "'magic'", "heun"),
        (["--projection", "magic"], "usage", "'magic'", "--help"),
        ([SHAPES] * 12, "input-report-too-many-models", "13", ""),
        (["no/such/model/at/all"], "reference-not-found", "no/such/model/at/all", ""),
    ],
)
def test_reports_that_are_refused_leave_nothing(
    args, code, shown, hint, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    error = error_of(run, *args)
    assert error["code"] == code
    assert shown in error["message"]
    assert hint in error["hint"]
    assert list(tmp_path.iterdir()) == []


def test_missing_umap_gives_the_command_that_installs_it(run: Path, tmp_path: Path):
    if importlib.util.find_spec("umap") is not None:
        pytest.skip("umap-learn is installed")
    error = error_of(run, "--projection", "umap", "-o", tmp_path / "a.html")
    assert error["code"] == "input-umap-missing"
    assert "pip install umap-learn" in error["hint"]


def test_runs_of_one_name_get_different_names(run: Path, tmp_path: Path):
    data = result(run, run / "model", run, "-n", 1, "--features", 0, "-o", tmp_path / "a.html")
    assert data["models"] == [f"page ({run})", f"page ({run / 'model'})", f"page ({run}), again"]


def test_a_missing_attribution_gives_the_command_that_measures_it():
    view = ModelView("plain", "plain", load_spec("shapes-tiny"), recorded=Recorded())
    assert "<code>cascadezoo evaluate MODEL --stages --save</code>" in model_page([view])


@pytest.mark.parametrize("damage", [b"\xff\n\0\n", b'{"event": "log"}\n{"event": 3}\n'])
def test_damaged_events_are_counted_on_the_page(run: Path, tmp_path: Path, damage: bytes):
    half = tmp_path / "half"
    shutil.copytree(run, half, ignore=shutil.ignore_patterns("model", "checkpoints"))
    out = tmp_path / "half.html"
    result(half, "-o", out)
    assert "Damaged events" not in out.read_text()
    path = half / "events.jsonl"
    path.write_bytes(damage + path.read_bytes() + b'{"event": "events-damaged", "rows": 5}\n')
    result(half, "-o", out)
    assert "Damaged events that are not shown: 7." in out.read_text()
