"""The times of a phase: of training, logs, epochs and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Stopwatch"]


class Stopwatch:
    """Measures the training time of a phase without the time of figures.

    Args:
        before: seconds of training before this phase or before its resumption.
        clock: a monotonic clock in seconds; for tests.

    Attributes:
        log_began: time of the last reading of losses.
        epoch_began: start of the current epoch.
        saved: time of the last checkpoint.
    """

    def __init__(self, before: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._before = before
        self._paused = 0.0
        self._began = self.log_began = self.epoch_began = self.saved = clock()

    def trained(self, until: float | None = None) -> float:
        """Seconds of training until a time of the clock; None is now."""
        now = self._clock() if until is None else until
        return self._before + now - self._began - self._paused

    def next_epoch(self, now: float, paused: float) -> None:
        """Start an epoch.

        Args:
            now: end of the last epoch.
            paused: seconds after it that were not training.
        """
        self.epoch_began = now + paused
        self.log_began += paused
        self._paused += paused

    def checkpoint_due(self, seconds: float) -> bool:
        """Whether the last checkpoint is at least ``seconds`` old."""
        return self._clock() - self.saved >= seconds

    def checkpoint_written(self) -> None:
        """Restart the age of the last checkpoint."""
        self.saved = self._clock()
