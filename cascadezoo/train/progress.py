"""What a training shows while it runs: one live display, plain lines, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

__all__ = ["LiveProgress", "PlainProgress", "Progress", "QuietProgress", "make_progress"]


class Progress(Protocol):
    """Told by a build what it does. All methods are cheap."""

    def phase(self, name: str, number: int, count: int, total: int, done: int) -> None:
        """A phase begins (or goes on) with ``done`` of its ``total`` steps done."""

    def step(self, done: int, epoch: int, epochs: int) -> None:
        """So many steps of the phase are done."""

    def losses(self, losses: Mapping[str, float], images_per_second: float) -> None:
        """Losses were read from the device."""

    def say(self, text: str) -> None:
        """Something worth a line."""

    def task(self, name: str, total: int) -> None:
        """Something other than a phase begins: sampling, evaluation."""

    def advance(self, done: int) -> None:
        """So much of the task is done."""

    def close(self) -> None:
        """The build ends."""


class QuietProgress:
    """Shows nothing."""

    def phase(self, name: str, number: int, count: int, total: int, done: int) -> None:
        """Nothing."""

    def step(self, done: int, epoch: int, epochs: int) -> None:
        """Nothing."""

    def losses(self, losses: Mapping[str, float], images_per_second: float) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def task(self, name: str, total: int) -> None:
        """Nothing."""

    def advance(self, done: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class PlainProgress(QuietProgress):
    """One line now and then, for logs.

    Args:
        stream: where to.
        every: at least so many seconds between two lines of losses.
    """

    def __init__(self, stream: TextIO | None = None, every: float = 10.0) -> None:
        self.stream = stream or sys.stderr
        self.every = every
        self._shown = 0.0
        self._head = ""
        self._rate = _Rate()
        self._place = ""
        self._left: float | None = None

    def phase(self, name: str, number: int, count: int, total: int, done: int) -> None:
        """Say which phase begins."""
        self._head = f"phase {number + 1}/{count} {name}"
        self._rate.start(total, done)
        self.say(f"{self._head}: {total} steps" + (f", going on at {done}" if done else ""))
        self._shown = 0.0

    def step(self, done: int, epoch: int, epochs: int) -> None:
        """Keep where the phase is."""
        self._left = self._rate.left(done)
        self._place = f"epoch {epoch}/{epochs} step {done}/{self._rate.total}"

    def losses(self, losses: Mapping[str, float], images_per_second: float) -> None:
        """Say them, if the last line is old enough."""
        now = time.monotonic()
        if now - self._shown < self.every:
            return
        self._shown = now
        values = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
        left = f"  ETA {_clock(self._left)}" if self._left is not None else ""
        self.say(f"{self._head} {self._place}  {images_per_second:.0f} images/s  {values}{left}")

    def say(self, text: str) -> None:
        """Write a line."""
        print(text, file=self.stream, flush=True)

    def task(self, name: str, total: int) -> None:
        """Say what begins."""
        self.say(name)


class LiveProgress(QuietProgress):
    """One live display on a terminal."""

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console or Console(stderr=True),
            refresh_per_second=4,
        )
        self._bars.start()
        self._task: Any = None
        self._note = ""

    def phase(self, name: str, number: int, count: int, total: int, done: int) -> None:
        """Start a bar."""
        self._begin(f"[bold]{number + 1}/{count} {name}", total, done)

    def step(self, done: int, epoch: int, epochs: int) -> None:
        """Move it."""
        note = f"epoch {epoch}/{epochs} {self._note}"
        self._bars.update(self._task, completed=done, note=note)

    def losses(self, losses: Mapping[str, float], images_per_second: float) -> None:
        """Show them beside it."""
        values = " ".join(f"{name} {value:.3g}" for name, value in losses.items())
        self._note = f"{images_per_second:.0f} images/s {values}"

    def say(self, text: str) -> None:
        """Write a line above the bars."""
        self._bars.console.print(text, markup=False, highlight=False)

    def task(self, name: str, total: int) -> None:
        """Start a bar."""
        self._begin(name, total, 0)

    def advance(self, done: int) -> None:
        """Move it."""
        self._bars.update(self._task, completed=done)

    def close(self) -> None:
        """Leave the display as it stands."""
        self._bars.stop()

    def _begin(self, name: str, total: int, done: int) -> None:
        self._note = ""
        self._task = self._bars.add_task(name, total=total, completed=done, note="")


def make_progress(quiet: bool) -> Progress:
    """The display that fits where stderr goes."""
    if quiet:
        return QuietProgress()
    return LiveProgress() if sys.stderr.isatty() else PlainProgress()


class _Rate:
    def __init__(self) -> None:
        self.total = 0

    def start(self, total: int, done: int) -> None:
        self.total, self._first, self._time = total, done, time.monotonic()

    def left(self, done: int) -> float | None:
        made = done - self._first
        return (time.monotonic() - self._time) / made * (self.total - done) if made > 0 else None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
