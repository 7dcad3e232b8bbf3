"""The display of a training: a live display, plain lines, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

__all__ = ["LiveProgress", "PlainProgress", "Progress", "QuietProgress", "make_progress"]


_LONGEST_NAME = 22
"""Characters of the name of a phase or task."""

_WIDE = 100
"""Columns of a terminal that also shows the elapsed time."""


class Progress(Protocol):
    """Displays the progress of a build. All methods are cheap."""

    def phase(self, name: str, number: int, count: int, total: int, done: int) -> None:
        """A phase starts or resumes with ``done`` of its ``total`` steps done."""

    def step(self, done: int, epoch: int, epochs: int) -> None:
        """``done`` steps of the phase are done."""

    def losses(self, losses: Mapping[str, float], images_per_second: float) -> None:
        """Losses were read from the device."""

    def say(self, text: str) -> None:
        """Show a message."""

    def task(self, name: str, total: int) -> None:
        """A task other than a phase starts: sampling, evaluation."""

    def advance(self, done: int) -> None:
        """``done`` of the task is done."""

    def close(self) -> None:
        """The build has ended."""


class QuietProgress:
    """Shows nothing."""

    def phase(self, name: str, number: int, count: int, total: int, done: int) -> None:
        """Show nothing."""

    def step(self, done: int, epoch: int, epochs: int) -> None:
        """Show nothing."""

    def losses(self, losses: Mapping[str, float], images_per_second: float) -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Show nothing."""

    def task(self, name: str, total: int) -> None:
        """Show nothing."""

    def advance(self, done: int) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Show nothing."""


class PlainProgress(QuietProgress):
    """Shows a line from time to time, for logs.

    Args:
        stream: the output; None is standard error.
        every: minimum of seconds between two lines of losses.
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
        """Show which phase starts."""
        self._head = f"phase {number + 1}/{count} {name}"
        self._rate.start(total, done)
        self.say(f"{self._head}: {total} steps" + (f", resumed at step {done}" if done else ""))
        self._shown = 0.0

    def step(self, done: int, epoch: int, epochs: int) -> None:
        """Store the position for the next line of losses."""
        self._left = self._rate.left(done)
        self._place = f"epoch {epoch}/{epochs} step {done}/{self._rate.total}"

    def losses(self, losses: Mapping[str, float], images_per_second: float) -> None:
        """Show the losses if the last line is old enough."""
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
        """Show which task starts."""
        self.say(name)


class LiveProgress(QuietProgress):
    """Shows a live display on a terminal.

    Each task has one line. Phase, steps and ETA are never cut: in a narrow terminal the losses and
    the bar are.

    Args:
        console: a console of rich; None is standard error.
    """

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            ProgressColumn,
            Task,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars
        from rich.table import Column
        from rich.text import Text

        class Note(ProgressColumn):
            """Losses: the rest of the line, which is cut and not wrapped."""

            def render(self, task: Task) -> Text:
                return Text(str(task.fields["note"]), no_wrap=True, overflow="ellipsis")

        console = console or Console(stderr=True)
        whole = Column(no_wrap=True)
        name = Column(no_wrap=True, max_width=_LONGEST_NAME, overflow="ellipsis")
        columns = [
            TextColumn("{task.description}", table_column=name),
            BarColumn(bar_width=24),
            MofNCompleteColumn(table_column=whole),
        ]
        if console.width >= _WIDE:
            columns.append(TimeElapsedColumn(table_column=whole))
        self._bars = Bars(
            *columns,
            TextColumn("ETA", table_column=whole),
            TimeRemainingColumn(table_column=whole),
            Note(),
            console=console,
            refresh_per_second=4,
        )
        self._bars.start()
        self._task: Any = None
        self._note = ""

    def phase(self, name: str, number: int, count: int, total: int, done: int) -> None:
        """Start a bar."""
        self._begin(f"[bold]{number + 1}/{count} {name}", total, done)

    def step(self, done: int, epoch: int, epochs: int) -> None:
        """Move the bar."""
        note = f"epoch {epoch}/{epochs} {self._note}"
        self._bars.update(self._task, completed=done, note=note)

    def losses(self, losses: Mapping[str, float], images_per_second: float) -> None:
        """Show the losses beside the bar."""
        values = " ".join(f"{name} {value:.3g}" for name, value in losses.items())
        self._note = f"{images_per_second:.0f} images/s {values}"

    def say(self, text: str) -> None:
        """Write a line above the bars."""
        self._bars.console.print(text, markup=False, highlight=False)

    def task(self, name: str, total: int) -> None:
        """Start a bar."""
        self._begin(name, total, 0)

    def advance(self, done: int) -> None:
        """Move the bar."""
        self._bars.update(self._task, completed=done)

    def close(self) -> None:
        """Stop the display and leave it on the screen."""
        self._bars.stop()

    def _begin(self, name: str, total: int, done: int) -> None:
        self._note = ""
        self._task = self._bars.add_task(name, total=total, completed=done, note="")


def make_progress(quiet: bool) -> Progress:
    """A live display if stderr is a terminal, else plain lines; nothing if quiet."""
    if quiet:
        return QuietProgress()
    return LiveProgress() if sys.stderr.isatty() else PlainProgress()


class _Rate:
    def __init__(self) -> None:
        self.total = 0

    def start(self, total: int, done: int) -> None:
        self.total, self._first, self._time = total, done, time.monotonic()

    def left(self, done: int) -> float | None:
        count = done - self._first
        return (time.monotonic() - self._time) / count * (self.total - done) if count > 0 else None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
