"""A damaged events.jsonl: what can be read is kept, what is dropped is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from errors_help import raises
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toys import toy_spec, toys
from train_cases import StopAfter, equal, trainer

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.errors import RunFolderError, StoppedError
from cascadezoo.report.course import read_course
from cascadezoo.report.course_charts import course_charts
from cascadezoo.train.events import DAMAGED, LONGEST, EventLog, read_event_rows, read_events
from cascadezoo.train.progress import QuietProgress

ALL = ["coarse", "up", "refine"]


def cascade(log_steps: int) -> Cascade:
    kinds = {"coarse": "generator", "up": "upsampler", "refine": "refiner"}
    data = toy_spec(kinds, [{"name": "p", "steps": 10, "train": ALL}])
    data["training"]["log_steps"] = log_steps
    return toys(data)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The events of a training."""
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    figure = {"name": "kid.small.n9", "metric": "kid", "value": 0.5, "std": 0.1, "n": 9}
    events = EventLog(path)
    trainer(cascade(2), events=events, figures=lambda _: [figure], figures_every=1).run()
    events.close()
    return path.read_bytes()


@st.composite
def damages(draw: st.DrawFn, size: int) -> list[tuple[str, int, bytes]]:
    one = st.tuples(
        st.sampled_from(["flip", "zeros", "cut", "insert", "swap"]),
        st.integers(0, size - 1),
        st.binary(min_size=1, max_size=12),
    )
    return draw(st.lists(one, min_size=1, max_size=6))


def damaged(data: bytes, rows: list[tuple[str, int, bytes]]) -> bytes:
    for kind, place, extra in rows:
        place = min(place, max(0, len(data) - 1))
        head, tail = data[:place], data[place:]
        if kind == "flip":
            data = head + bytes([tail[0] ^ (1 << extra[0] % 8)]) + tail[1:] if tail else head
        elif kind == "zeros":
            data = head + b"\0" * min(len(tail), 40 * extra[0]) + tail[40 * extra[0] :]
        elif kind == "cut":
            data = head + tail[len(extra) * 9 :]
        elif kind == "insert":
            data = head + extra + tail
        else:
            data = tail + head
    return data


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_leaves_the_other_rows(log: bytes, tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "events.jsonl"
    content = damaged(log, data.draw(damages(len(log))))
    path.write_bytes(content)
    rows = read_event_rows(path)
    written = set(log.splitlines())
    left = iter(rows.rows)
    for line in content.split(b"\n"):
        assert line not in written or json.loads(line) in left, "in the order of the file"
    lines = [line for line in content.split(b"\n")[:-1] if line.strip()]
    assert len(lines) <= len(rows.rows) + rows.damaged <= len(lines) + 1
    course = read_course(path)
    assert course.dropped == rows.dropped
    course_charts(course)
    events = EventLog(path)
    assert events.rewind(10**9) == rows.damaged
    events.write("log", step=10**9)
    events.close()
    assert [row for row in read_events(path) if row.get("step", 0) < 10**9] == [
        row for row in rows.rows if row.get("step", 0) < 10**9
    ]


WRONG: list[dict[str, Any]] = [
    {"event": "log", "step": "many"},
    {"event": "log", "step": -1},
    {"event": "log", "step": True},
    {"event": "log", "step": 10**400},
    {"event": "log"},
    {"event": "epoch", "step": 3, "seconds": "long"},
    {"event": "epoch", "step": 3, "seconds": float("nan")},
    {"event": "epoch", "step": 3, "seconds": 1e300},
    {"event": "epoch", "step": 3, "losses": [1]},
    {"event": "epoch", "step": 3, "losses": {"a": None}},
    {"event": "epoch", "step": 3, "whole": 1},
    {"event": "phase", "step": 3, "phase": 4},
    {"event": "phase", "step": 3, "phase_index": "0"},
    {"event": "phase", "step": 3, "steps_per_epoch": 0},
    {"event": "figure", "step": 3, "figure": "kid"},
    {"event": 3},
    {"no": "event"},
    {"event": DAMAGED, "rows": "two"},
    {"event": DAMAGED},
]


@pytest.mark.parametrize("row", WRONG, ids=str)
def test_a_row_with_a_wrong_type_is_damaged(tmp_path: Path, row: dict[str, Any]) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "log", "step": 1}\n' + json.dumps(row) + '\n{"event": "new"}\n')
    rows = read_event_rows(path)
    assert [r["event"] for r in rows.rows] == ["log", "new"]
    assert rows.damaged == rows.dropped == read_course(path).dropped == 1


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe",
        b"\0" * 4096,
        b"[" * 100_000,
        b'{"event": "log", "step": ' + b"9" * 5000 + b"}",
        b"[1]",
        b"null",
        b'{"event": "log", "st{"event": "log", "step": 2}',
        b" " * LONGEST + b'{"event": "log", "step": 2}',
        b"x" * (3 * LONGEST),
    ],
    ids=lambda line: f"{line[:20]!r}-{len(line)}",
)
def test_a_line_that_is_no_event_is_damaged(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "a"}\n' + line + b'\n{"event": "b"}\n')
    rows = read_event_rows(path)
    assert [row["event"] for row in rows.rows] == ["a", "b"]
    assert rows.damaged == 1


def test_the_unfinished_line_of_a_killed_process_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "log", "step": 1}\n{"event": "log", "st')
    assert read_event_rows(path).damaged == 0
    log = EventLog(path)  # a later row does not join it
    log.write("log", step=2)
    log.close()
    assert [row["step"] for row in read_events(path)] == [1, 2]


class Lines(QuietProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [b"\xff\xfe\n", b"\0" * 300 + b"\n", b"{}\n", b'{"event": 1}\n'])
def test_a_training_resumes_with_damaged_events_and_counts_them(
    tmp_path: Path, damage: bytes
) -> None:
    whole, again = cascade(1), cascade(1)
    trainer(whole).run()
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    with pytest.raises(StoppedError):
        trainer(again, tmp_path / "c", events=log, stop=StopAfter(4)).run()
    log.close()
    first = path.read_bytes()
    path.write_bytes(first[:40] + damage + first[40:] + damage)
    progress, log = Lines(), EventLog(path)
    trainer(again, tmp_path / "c", events=log, progress=progress).run()
    log.close()
    assert equal(again, whole)
    rows = read_event_rows(path)
    assert (rows.damaged, rows.dropped) == (0, 3)  # two insertions; one of them cut a row
    assert read_course(path).dropped == 3
    assert any("3 damaged rows" in line for line in progress.lines)
    steps = [row["step"] for row in rows.rows if row["event"] == "log"]
    assert steps == list(range(1, 11))


def test_events_that_are_a_folder(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").mkdir()
    with raises(RunFolderError, "run-folder-events-not-writable", path="events.jsonl"):
        EventLog(tmp_path / "events.jsonl")
    with raises(RunFolderError, "run-folder-events-unreadable", path="events.jsonl"):
        read_event_rows(tmp_path / "events.jsonl")
