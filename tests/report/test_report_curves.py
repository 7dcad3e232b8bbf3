from __future__ import annotations

import json
import math

import numpy as np
import pytest
from errors_help import raises
from PIL import Image

from cascadezoo.errors import RunFolderError
from cascadezoo.report.charts_png import draw_curves
from cascadezoo.report.course import PhaseSpan, read_course, read_events
from cascadezoo.report.course_charts import course_charts

PHASES = [
    ("warm-up", {"generator": ["mse"]}, None),
    ("forced", {"upsampler": ["mse"], "refiner": ["mse", "lpips"]}, 1.0),
    ("joint", {"generator": ["mse"], "upsampler": ["mse"], "refiner": ["mse", "lpips"]}, None),
]


def events(steps=100, every=5, per_epoch=20):
    rows, step = [], 0
    for index, (phase, stages, forcing) in enumerate(PHASES):
        mark = {"phase": phase, "phase_index": index}
        rows.append({"event": "phase", **mark, "step": step, "state": "start"})
        for done in range(1, steps + 1):
            step += 1
            losses = {f"{s}.{name}": math.exp(-step / 90) for s, n in stages.items() for name in n}
            if done % every == 0:
                rows.append(
                    {
                        "event": "log",
                        **mark,
                        "epoch": done / per_epoch,
                        "step": step,
                        "losses": losses,
                        "lr": dict.fromkeys(stages, 1e-3 * (1 - done / steps)),
                        "teacher_forcing": forcing and 1 - done / steps,
                        "images_per_second": 400.0,
                        "seconds": step * 0.1,
                    }
                )
            if done % per_epoch == 0:
                epoch = {"event": "epoch", "phase": phase, "epoch": done // per_epoch}
                rows.append({**epoch, "step": step, "seconds": 8.0 + index, "losses": losses})
        figure = {"name": "kid.small.n1000", "value": 1 / step, "std": 0.001}
        rows.append({"event": "figure", "phase": phase, "step": step, "figure": figure})
        rows.append({"event": "phase", **mark, "step": step, "state": "end"})
    return rows


def write(path, rows, tail=""):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    return path


def test_the_course_of_a_training():
    course = read_course(events())
    assert course.phases == [
        PhaseSpan("warm-up", 0, 0, 100),
        PhaseSpan("forced", 1, 100, 200),
        PhaseSpan("joint", 2, 200, 300),
    ]
    assert set(course.losses) == {
        "generator.mse",
        "upsampler.mse",
        "refiner.mse",
        "refiner.lpips",
    }
    assert set(course.losses["generator.mse"]) == {0, 2}
    assert course.losses["refiner.lpips"][1].steps == list(range(105, 201, 5))
    assert set(course.forcing) == {1}
    assert course.forcing[1].values[-1] == 0
    assert [line.values for line in course.epochs.values()] == [[8.0] * 5, [9.0] * 5, [10.0] * 5]
    assert course.figures == {
        "kid.small.n1000": [(100, 0.01, 0.001), (200, 0.005, 0.001), (300, 1 / 300, 0.001)]
    }


def test_torn_lines_unknown_events_and_odd_values(tmp_path):
    odd = [
        {"event": "mystery", "step": 3},
        {"event": "figure", "step": 9, "figure": {"name": "kid.small.n9", "value": None}},
        {"event": "epoch", "phase": "warm-up", "step": 7, "seconds": 0.1, "whole": False},
    ]
    damaged = [
        {"event": "log", "phase": "warm-up", "step": "many"},
        {"event": "log", "phase": "warm-up", "phase_index": 0, "step": 50, "losses": None},
        {"no": "event"},
        ["no", "object"],
    ]
    rows = [*events(), *odd, *damaged]
    path = write(tmp_path / "events.jsonl", rows, '{"event": "log", "st')
    course = read_course(path)
    assert read_events(path) == [*events(), *odd]
    assert course.dropped == len(damaged)
    assert course.losses == read_course(events()).losses
    assert course.phases == read_course(events()).phases
    assert course.figures == read_course(events()).figures
    assert course.epochs == read_course(events()).epochs
    torn = path.read_text() + '{"event": "mystery"}\n'
    path.write_text(torn)
    assert read_course(path).phases == course.phases


def test_the_last_event_of_a_resumed_run_counts():
    rows = events()
    again = [
        {**row, "losses": dict.fromkeys(row["losses"], 9.0)}
        for row in rows
        if row["event"] == "log" and 150 < row["step"] <= 200
    ]
    line = read_course([*rows, *again]).losses["refiner.mse"][1]
    assert line.steps == list(range(105, 201, 5))
    assert [value == 9.0 for value in line.values] == [step > 150 for step in line.steps]


def test_charts_of_a_training_smooth_frequent_values():
    rows = events(steps=200, every=2)
    charts = {chart.title: chart for chart in course_charts(read_course(rows))}
    assert list(charts) == [
        "Losses", "Kernel Inception Distance in training", "Teacher forcing", "Learning rates",
        "Time of each epoch",
    ]  # fmt: skip
    losses = charts["Losses"].series
    assert [one.faint for one in losses] == [True] * 8 + [False] * 8
    assert {one.style for one in losses if one.name == "generator.mse"} == {0}
    assert [band.name for band in charts["Losses"].bands] == ["warm-up", "forced", "joint"]
    # Stages with equal rates share a line, in the colour of the first one's loss.
    rates = charts["Learning rates"].series
    assert {(one.name, one.style) for one in rates} == {
        ("generator", 0),
        ("upsampler, refiner", 1),
    }
    few = course_charts(read_course(events()))[0].series
    assert not any(one.faint for one in few)


def test_a_missing_file(tmp_path):
    with raises(RunFolderError, "run-folder-events-unreadable") as caught:
        draw_curves(tmp_path / "events.jsonl", tmp_path / "curves.png")
    assert "events.jsonl" in str(caught.value.hint)


def colours(path):
    with Image.open(path) as picture:
        return picture.size, {tuple(c) for c in np.asarray(picture.convert("RGB")).reshape(-1, 3)}


def test_the_picture_contains_every_panel_and_line(tmp_path):
    path = write(tmp_path / "events.jsonl", events(), "{torn")
    size, seen = colours(draw_curves(path, tmp_path / "curves.png"))
    # generator, upsampler, refiner; the shade of a phase
    for colour in ("0072B2", "C65200", "00805D", "F1F1EE"):
        assert tuple(bytes.fromhex(colour)) in seen
    losses_only = [
        {"event": "log", "phase": "p", "phase_index": 0, "step": s, "losses": {"g.mse": 1.0}}
        for s in range(5)
    ]
    less, few = colours(draw_curves(losses_only, tmp_path / "less.png"))
    assert less[1] < size[1] / 3
    assert tuple(bytes.fromhex("C65200")) not in few


@pytest.mark.parametrize(
    "rows",
    [
        [],
        events(steps=5, every=5, per_epoch=5),
        [{"event": "phase", "phase": "a", "phase_index": 0, "step": 0, "state": "start"}],
        [
            {"event": "log", "phase": "a", "phase_index": 0, "step": s, "losses": {"g.mse": loss}}
            for s, loss in enumerate([0.0, -1.0, float("nan"), 0.5])
        ],
        [
            {"event": "log", "phase": "a", "phase_index": 0, "step": s, "losses": {"g.mse": 0.0}}
            for s in range(3)
        ],
        [{"event": "figure", "step": 5, "figure": {"name": "kid.small.n9", "value": -1e-4}}],
        [
            {"event": "log", "phase": "a", "phase_index": 0, "step": s, "losses": {"g.mse": 1 / s}}
            for s in range(1, 20_000)
        ],
    ],
    ids=["nothing", "short", "begun", "not finite", "zeros", "figure only", "many"],
)
def test_unusual_courses_are_drawn(tmp_path, rows):
    size, _ = colours(draw_curves(rows, tmp_path / "curves.png"))
    assert size[0] == 1170
