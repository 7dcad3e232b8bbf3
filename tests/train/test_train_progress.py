"""The display of a build: plain lines in logs, a live display on a terminal, or nothing."""

from __future__ import annotations

import io
import re
import sys

import pytest
from rich.console import Console

from cascadezoo.train.progress import (
    LiveProgress,
    PlainProgress,
    Progress,
    QuietProgress,
    make_progress,
)


def show(progress: Progress) -> None:
    progress.phase("coarse", 0, 2, 100, 0)
    for done in range(1, 101):
        progress.step(done, 1 + done // 51, 2)
        if done % 50 == 0:
            progress.losses({"coarse.mse": 0.5 / done}, 123.4)
    progress.phase("joint", 1, 2, 10, 4)
    progress.say("kid.small.n20: 1.00")
    progress.task("sampling 20 images", 20)
    progress.advance(20)
    progress.close()


def test_plain_lines() -> None:
    stream = io.StringIO()
    show(PlainProgress(stream, every=0.0))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "phase 1/2 coarse: 100 steps"
    assert lines[1].startswith(
        "phase 1/2 coarse epoch 1/2 step 50/100  123 images/s  coarse.mse 0.01  ETA 0:0"
    )
    assert lines[3] == "phase 2/2 joint: 10 steps, resumed at step 4"
    assert lines[4:] == ["kid.small.n20: 1.00", "sampling 20 images"]


def test_plain_lines_are_few() -> None:
    stream = io.StringIO()
    show(PlainProgress(stream, every=1000.0))
    assert sum("images/s" in line for line in stream.getvalue().splitlines()) <= 1


def test_the_live_display() -> None:
    stream = io.StringIO()
    show(LiveProgress(Console(file=stream, force_terminal=True, width=160)))
    text = stream.getvalue()
    for part in ("1/2 coarse", "100/100", "123 images/s", "coarse.mse", "kid.small.n20: 1.00"):
        assert part in text


@pytest.mark.parametrize("width", [60, 80, 110, 140])
@pytest.mark.parametrize("name", ["joint", "a-phase-with-a-very-long-name"])
def test_steps_and_eta_are_never_cut(width: int, name: str) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, color_system=None)
    progress = LiveProgress(console)
    losses = {f"{stage}.{loss}": 0.01234 for stage in ("coarse", "up") for loss in ("mse", "lpips")}
    progress.phase("generator", 0, 3, 9000, 9000)
    progress.phase("cascade", 1, 3, 9000, 9000)
    progress.phase(name, 2, 3, 123456, 0)
    for done in (100, 101, 102):
        progress.losses(losses, 1234.5)
        progress.step(done, 1, 30)
    picture = io.StringIO()
    Console(file=picture, width=width).print(progress._bars.get_renderable())
    progress.close()
    rows = [row.rstrip() for row in picture.getvalue().splitlines()]
    assert len(rows) == 3, "a line for each phase"
    assert all(len(row) <= width for row in rows)
    assert [row.split()[0] for row in rows] == ["1/3", "2/3", "3/3"]
    for row, steps in zip(rows, ("9000/9000", "9000/9000", "102/123456"), strict=True):
        assert steps in row
        assert re.search(r" ETA (-:--:--|[0-9]+:[0-9]{2}:[0-9]{2})", row), row
    assert ("coarse.mse 0.0123" in rows[2]) == (width >= 140)
    assert name[:10] in rows[2]


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    show(QuietProgress())
    assert capsys.readouterr() == ("", "")


def test_the_display_depends_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_progress(quiet=True), QuietProgress)
    assert type(make_progress(quiet=False)) is PlainProgress
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    live = make_progress(quiet=False)
    live.close()
    assert isinstance(live, LiveProgress)
