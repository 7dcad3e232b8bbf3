"""The display of a build: plain lines in logs, a live display on a terminal, or nothing."""

from __future__ import annotations

import io
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
