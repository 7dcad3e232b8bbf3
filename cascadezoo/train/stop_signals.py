"""SIGINT and SIGTERM as stop requests that the training checks after each step."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["StopSignals"]


class StopSignals:
    """Records the first SIGINT or SIGTERM within the block; a second SIGINT stops at once.

    Outside the main thread Python allows no handlers, and no signal is recorded.
    """

    def __init__(self) -> None:
        self._name: str | None = None
        self._before: dict[int, Any] = {}

    def requested(self) -> str | None:
        """The name of the received signal, or None."""
        return self._name

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._record)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _record(self, number: int, frame: FrameType | None) -> None:
        if self._name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._name = signal.Signals(number).name
