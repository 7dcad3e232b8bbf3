"""The times of a phase: what was trained, and since when."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Stopwatch"]


class Stopwatch:
    """Measures the seconds of a phase without those of the figures in between.

    Args:
        before: seconds that the training took before this phase, or before it was resumed.
        clock: seconds, rising; for tests.

    Attributes:
        log_began: when the losses were last read.
        epoch_began: when the current epoch began.
        saved: when the last checkpoint was written.
    """

    def __init__(self, before: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._before = before
        self._paused = 0.0
        self._began = self.log_began = self.epoch_began = self.saved = clock()

    def trained(self, until: float | None = None) -> float:
        """Seconds of training up to a time of the clock; None is now."""
        now = self._clock() if until is None else until
        return self._before + now - self._began - self._paused

    def next_epoch(self, now: float, paused: float) -> None:
        """Begin an epoch.

        Args:
            now: when the last epoch ended.
            paused: seconds that something else than training took after it.
        """
        self.epoch_began = now + paused
        self.log_began += paused
        self._paused += paused

    def checkpoint_due(self, seconds: float) -> bool:
        """Whether the last checkpoint is at least so many seconds old."""
        return self._clock() - self.saved >= seconds

    def checkpoint_written(self) -> None:
        """Count the age of checkpoints from now."""
        self.saved = self._clock()
