"""Retries of calls to the Hub."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from cascadezoo.errors import CascadezooError, HubUnavailableError

__all__ = ["LONGEST_WAIT", "WAITS", "retry", "wait"]

WAITS = (0.5, 1.0, 2.0)
"""Seconds before each retry."""

LONGEST_WAIT = 60.0
"""Maximum seconds of one pause."""

T = TypeVar("T")


def retry(
    call: Callable[[], T], waits: Iterable[float] = WAITS, *, longest: float = LONGEST_WAIT
) -> T:
    """Call a function again after a pause when the Hub is unavailable.

    Args:
        call: the function.
        waits: seconds before each retry; the Hub may request a longer pause.
        longest: maximum seconds of a pause that the Hub requests.

    Returns:
        The result of the function.

    Raises:
        HubUnavailableError: the last retry failed, or the Hub requests a pause longer than
            ``longest``.
    """
    pauses = iter(waits)
    while True:
        try:
            return call()
        except HubUnavailableError as error:
            wait(error, pauses, longest=longest)


def wait(error: CascadezooError, waits: Iterator[float], *, longest: float = LONGEST_WAIT) -> None:
    """Sleep before a retry, or raise the error.

    Args:
        error: the error of the last attempt.
        waits: the remaining pauses in seconds.
        longest: see :func:`retry`.

    Raises:
        CascadezooError: ``error``, if no pause remains or the Hub requests a longer one.
    """
    pause = next(waits, None)
    requested = error.retry_after if isinstance(error, HubUnavailableError) else None
    if pause is None or (requested is not None and requested > longest):
        raise error
    time.sleep(pause if requested is None else max(pause, requested))
