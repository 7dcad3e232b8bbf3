"""Asking the Hub again after a pause."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from cascadezoo.errors import CascadezooError, HubUnavailableError

__all__ = ["LONGEST_WAIT", "WAITS", "retry", "wait"]

WAITS = (0.5, 1.0, 2.0)
"""Seconds before each further try."""

LONGEST_WAIT = 60.0
"""The most seconds that anyone waits at a terminal."""

T = TypeVar("T")


def retry(
    ask: Callable[[], T], waits: Iterable[float] = WAITS, *, longest: float = LONGEST_WAIT
) -> T:
    """Call a function again after a pause when the Hub is unavailable.

    Args:
        ask: the function.
        waits: seconds before each further try; the Hub may ask for more.
        longest: the most seconds to wait when the Hub asks for more.

    Returns:
        What the function returns.

    Raises:
        HubUnavailableError: the last try failed too, or the Hub asks to wait longer than
            ``longest``.
    """
    rest = iter(waits)
    while True:
        try:
            return ask()
        except HubUnavailableError as error:
            wait(error, rest, longest=longest)


def wait(error: CascadezooError, waits: Iterator[float], *, longest: float = LONGEST_WAIT) -> None:
    """Sleep before a further try, or raise the error.

    Args:
        error: why the last try failed.
        waits: the pauses that are left.
        longest: see :func:`retry`.

    Raises:
        CascadezooError: ``error`` itself: no pause is left, or the Hub asks for a longer one.
    """
    pause = next(waits, None)
    requested = error.retry_after if isinstance(error, HubUnavailableError) else None
    if pause is None or (requested is not None and requested > longest):
        raise error
    time.sleep(pause if requested is None else max(pause, requested))
