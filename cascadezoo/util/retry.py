"""Retries of calls to the Hub, and the time that failures may take in all."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from cascadezoo.errors import CascadezooError, HubUnavailableError
from cascadezoo.util.limits import HUB_PATIENCE, seconds_limit

__all__ = [
    "LONGEST_WAIT",
    "WAITS",
    "Patience",
    "current_patience",
    "hub_patience",
    "retry",
    "wait",
]

WAITS = (0.5, 1.0, 2.0)
"""Seconds before each retry."""

LONGEST_WAIT = 60.0
"""Maximum seconds of one pause."""

T = TypeVar("T")


class Patience:
    """The time that the failures of one pull or publish may take, with the pauses after them.

    Failing time runs from the start of a failed request to the start of the next one that
    succeeds. Successful requests take no patience.

    Args:
        seconds: the maximum of all failing times together.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._spent = 0.0
        self._since: float | None = None

    def left(self) -> float:
        """The remaining seconds; not positive if the patience is used up."""
        since = self._since
        running = 0.0 if since is None else time.monotonic() - since
        return self.seconds - self._spent - running

    def failed(self, began: float) -> None:
        """Record the failure of a request.

        Args:
            began: ``time.monotonic()`` at its start, or at its last byte.
        """
        if self._since is None:
            self._since = began

    def succeeded(self, began: float) -> None:
        """Record the success of a request that began at that time."""
        since, self._since = self._since, None
        if since is not None:
            self._spent += max(0.0, began - since)

    def end(self) -> None:
        """Leave no patience: further requests would only take longer."""
        self._spent = math.inf


_patience: ContextVar[Patience | None] = ContextVar("cascadezoo_patience", default=None)


def current_patience() -> Patience | None:
    """The patience of the running pull or publish."""
    return _patience.get()


@contextmanager
def hub_patience() -> Iterator[None]:
    """Limit the time of all failures and pauses in the block to a minute.

    ``CASCADEZOO_HUB_PATIENCE`` sets another number of seconds. A limit around the block stays in
    force.

    Raises:
        InputError: the variable is not a positive number.
    """
    if _patience.get() is not None:
        yield
        return
    token = _patience.set(Patience(seconds_limit(*HUB_PATIENCE)))
    try:
        yield
    finally:
        _patience.reset(token)


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

    The error is also raised if the pause would exceed the patience of :func:`hub_patience`.

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
    pause = pause if requested is None else max(pause, requested)
    patience = current_patience()
    if patience is not None and pause >= patience.left():
        raise error
    time.sleep(pause)
