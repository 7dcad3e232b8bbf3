"""Bounds on what a server may send, and on how long a request may take.

The Hub's client has no total time limit, reads bodies of any size, decompresses them without a
limit, and names the files of its cache after the server's ETag and commit. This module bounds the
client's own connections while one of our calls is running (:func:`bounded`); other users of the
client in the same process are not affected.

- Time: every read and write of a connection ends at the call's deadline, after a stall, or when the
  patience of the pull or publish is used up.
- Size: a body is counted while it arrives. A file may have its declared size, the answers of a call
  a few MiB, an error page or a redirect 64 KiB, after which the rest is ignored.
- Form: bodies arrive as they are. They are requested without compression, and compressed ones are
  refused.
- Names: a commit is 40 hexadecimal digits, an ETag 40 or 64 of them.

Files are transferred by HTTP: these bounds do not apply to the Xet library.
"""

from __future__ import annotations

import functools
import importlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from huggingface_hub import constants, get_session
from huggingface_hub import errors as hf
from huggingface_hub.utils import _http

from cascadezoo.errors import CascadezooError, HubError, HubUnavailableError
from cascadezoo.util.limits import (
    HUB_ANSWER,
    HUB_PATIENCE,
    HUB_SECONDS,
    HUB_SPEED,
    HUB_STALL,
    byte_limit,
    is_commit,
    seconds_limit,
)
from cascadezoo.util.retry import LONGEST_WAIT, Patience, current_patience

__all__ = ["LIBRARY", "Download", "bounded", "retry_after"]

LIBRARY = hf.HfHubHTTPError.__mro__[1].__module__.partition(".")[0]
"""The HTTP library of the installed client: httpx, or a successor with the same interface."""

_CONNECT = 15.0
"""Maximum seconds for a connection."""
_LARGEST_ERROR = 64 << 10
_LONGEST_PAUSE = 8.0
"""The longest pause of the client after a failure, unless the server requests another one."""
_RATE_LIMIT = re.compile(r'"\w+"\s*;\s*r\s*=\s*0+\s*;\s*t\s*=\s*(\d{1,8})(?!\d)', re.ASCII)
_ETAG = re.compile(r'(W/)?"?([0-9a-f]{40}|[0-9a-f]{64})"?')
_NO_HUB = "check HF_ENDPOINT, the proxies and the network's login page"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Download:
    """A file that a call downloads.

    Args:
        name: its path in the repo.
        size: the largest accepted size in bytes.
        commit: the commit that the server must name; None accepts any.
    """

    name: str
    size: int
    commit: str | None = None


@dataclass(eq=False)
class _Call:
    """A running call and its limits.

    Args:
        what: the subject of messages.
        file: the file that it downloads.
        upload: size in bytes of the files that it sends.
    """

    what: str
    file: Download | None
    upload: int
    received: int = 0
    """Bytes of answers, without the file and error pages."""
    failure: str = ""
    """The last failure."""
    waiting: dict[int, float] = field(default_factory=dict)
    """The start of the request that has no response yet, by thread."""
    # Looked up at each call, since campaigns replace the clock.
    began: float = field(default_factory=lambda: time.monotonic())
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        size = self.upload + (0 if self.file is None else self.file.size)
        speed = max(1, byte_limit(*HUB_SPEED))
        self.seconds = seconds_limit(*HUB_SECONDS) + size / speed
        self.stall = seconds_limit(*HUB_STALL)
        self.answer = byte_limit(*HUB_ANSWER)
        self.patience = current_patience() or Patience(seconds_limit(*HUB_PATIENCE))

    def left(self) -> float:
        return self.began + self.seconds - time.monotonic()

    def timeout(self, requested: float | None) -> float:
        """The seconds that one read or write may take."""
        limits = (requested or self.stall, self.stall, self.left(), self.patience.left())
        return max(0.001, min(limits))

    def check(self) -> None:
        """Raise if the deadline has passed or the patience is used up."""
        if self.left() <= 0:
            self.patience.end()
            raise HubUnavailableError(
                f"{self.what}: not complete after {self.seconds:.0f} s",
                hint=f"try again later, or raise {HUB_SECONDS[0]} (seconds) for a slow network, "
                f"or lower {HUB_SPEED[0]} (bytes per second)",
                code="hub-unavailable-slow",
                seconds=self.seconds,
            ) from None  # the error that revealed it may quote the server
        if self.patience.left() <= 0:
            raise HubUnavailableError(
                f"{self.what}: gave up after {self.patience.seconds:.0f} s of failures"
                f"{self.failure and f' ({self.failure})'}",
                hint=f"try again later; nothing is lost. {HUB_PATIENCE[0]} sets the seconds",
                code="hub-unavailable-gave-up",
                seconds=self.patience.seconds,
            ) from None

    def failed(self, began: float, failure: str) -> None:
        """Record a failure since that time; raise if the client must not try again."""
        self.failure = failure
        self.patience.failed(began)
        # The client pauses before it tries again.
        if self.patience.left() < min(_LONGEST_PAUSE, self.patience.seconds / 4):
            self.patience.end()
        self.check()

    def too_large(self, limit: int) -> NoReturn:
        raise HubError(
            f"{self.what}: the server sends more than {limit} bytes",
            hint="use another revision or endpoint"
            if self.file is not None
            else f"check HF_ENDPOINT, or raise {HUB_ANSWER[0]} (bytes)",
            code="hub-answer-too-large",
            limit=limit,
        )

    def no_hub(self, why: str) -> NoReturn:
        raise HubUnavailableError(
            f"{self.what}: the server is not a Hub ({why})",
            hint=_NO_HUB,
            code="hub-unavailable-no-hub",
        )


_call: ContextVar[_Call | None] = ContextVar("cascadezoo_hub_call", default=None)
_lock = threading.Lock()
_uploads: list[_Call] = []
"""Running uploads. The client sends files in threads of its own, which have no context."""
_running = 0
_xet: list[bool] = []
"""The client's setting for Xet while calls are running."""


def _current() -> _Call | None:
    call = _call.get()
    return call if call is not None or not _uploads else _uploads[-1]


@contextmanager
def bounded(what: str, *, file: Download | None = None, upload: int = 0) -> Iterator[None]:
    """Bound the client's requests in the block.

    Args:
        what: the subject of messages.
        file: the file that the block downloads.
        upload: size in bytes of the files that it sends.

    Raises:
        HubUnavailableError: too slow, too many failures, or an answer that no Hub gives.
        HubError: a body is too large.
        InputError: an environment variable of a limit is not a number.
    """
    call = _Call(what, file, upload)
    _guard_client()
    _count(call, 1)
    token = _call.set(call)
    try:
        yield
    finally:
        _call.reset(token)
        _count(call, -1)


def _count(call: _Call, change: int) -> None:
    global _running
    with _lock:
        if call.upload and change > 0:
            _uploads.append(call)
        elif call.upload:
            _uploads.remove(call)
        if _running == 0:
            _xet[:] = [constants.HF_HUB_DISABLE_XET]
            constants.HF_HUB_DISABLE_XET = True
        _running += change
        if _running == 0:
            constants.HF_HUB_DISABLE_XET = _xet[0]


# --- the client


class _Factory:
    """Opens the client's sessions, which it may close and open again at any time."""

    def __init__(self, factory: Callable[[], Any]) -> None:
        self.factory = factory

    def __call__(self) -> Any:
        return _guarded(self.factory())


def _guard_client() -> None:
    """Guard the client's session and those that it opens later."""
    # set_client_factory would close the session, which other threads may be using.
    with _http._CLIENT_LOCK:
        if not isinstance(_http._GLOBAL_CLIENT_FACTORY, _Factory):
            _http._GLOBAL_CLIENT_FACTORY = _Factory(_http._GLOBAL_CLIENT_FACTORY)
    _guarded(get_session())


def _guarded(session: Any) -> Any:
    hooks = session.event_hooks
    if _on_request not in hooks["request"]:
        session.event_hooks = {
            "request": [*hooks["request"], _on_request],
            "response": [*hooks["response"], _on_response],
        }
        for transport in (session._transport, *session._mounts.values()):
            # A transport of another kind has no connections of this library.
            pool = getattr(transport, "_pool", None)
            backend = getattr(pool, "_network_backend", None)
            if backend is not None:
                pool._network_backend = _Backend(backend)  # type: ignore[union-attr]
    return session


# --- time: every read and write of a connection


class _Backend:
    """Opens connections whose reads and writes are bounded."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def connect_tcp(self, *args: Any, timeout: float | None = None, **options: Any) -> _Stream:
        connect = functools.partial(self._backend.connect_tcp, *args, **options)
        return _Stream(_timed(connect, timeout))

    def connect_unix_socket(
        self, *args: Any, timeout: float | None = None, **options: Any
    ) -> _Stream:
        connect = functools.partial(self._backend.connect_unix_socket, *args, **options)
        return _Stream(_timed(connect, timeout))

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


class _Stream:
    """A connection."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data: bytes = _timed(functools.partial(self._stream.read, max_bytes), timeout)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        _timed(functools.partial(self._stream.write, buffer), timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> _Stream:
        start = functools.partial(self._stream.start_tls, ssl_context, server_hostname)
        return _Stream(_timed(start, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _timed(action: Callable[..., T], timeout: float | None) -> T:
    call = _current()
    if call is None:
        return action(timeout=timeout)
    began = time.monotonic()
    try:
        result = action(timeout=call.timeout(timeout))
    except Exception as error:
        call.failed(began, type(error).__name__)
        raise
    # A server that sends a byte from time to time never stalls.
    call.check()
    return result


# --- requests and responses


def _on_request(request: Any) -> None:
    call = _current()
    if call is None:
        return
    thread, now = threading.get_ident(), time.monotonic()
    if thread in call.waiting:
        # The connection was closed without a response, and the client tries again.
        call.failed(call.waiting[thread], "no response")
    call.check()
    call.waiting[thread] = now
    request.headers["Accept-Encoding"] = "identity"
    times = request.extensions.get("timeout") or {}
    times = {name: times.get(name) for name in ("connect", "read", "write", "pool")}
    times["connect"] = min(times["connect"] or _CONNECT, _CONNECT)
    request.extensions = {
        **request.extensions,
        "timeout": {name: call.timeout(seconds) for name, seconds in times.items()},
        "cascadezoo": now,
    }


def _on_response(response: Any) -> None:
    call = _current()
    if call is None:
        return
    call.waiting.pop(threading.get_ident(), None)
    _check_names(call, response)
    _check_status(call, response)
    _bound_body(call, response)


def _check_names(call: _Call, response: Any) -> None:
    """Check the names that the client uses in paths of its cache."""
    commit = response.headers.get(constants.HUGGINGFACE_HEADER_X_REPO_COMMIT)
    if commit is not None and not is_commit(commit):
        call.no_hub("it sends an invalid commit")
    expected = None if call.file is None else call.file.commit
    if None not in (commit, expected) and commit != expected:
        call.no_hub("it sends another commit than the requested one")
    if response.request.method == "HEAD" and response.status_code < 400:
        linked = response.headers.get(constants.HUGGINGFACE_HEADER_X_LINKED_ETAG)
        etag = linked or response.headers.get("ETag")
        if etag is not None and not _ETAG.fullmatch(etag):
            call.no_hub("it sends an invalid ETag")


def _check_status(call: _Call, response: Any) -> None:
    """Raise before the client waits for longer than it may."""
    status, began = response.status_code, response.request.extensions["cascadezoo"]
    after = retry_after(response.headers)
    _keep_wait(response.headers, after)
    failing = status in (408, 425, 429) or status >= 500
    if not failing:
        call.patience.succeeded(began)
    if status >= 400 and after is not None and after > min(LONGEST_WAIT, call.patience.left()):
        raise HubUnavailableError(
            f"the Hub demands a wait of {after:.0f} s before the next request",
            hint=f"run the command again in {after:.0f} s; nothing is lost",
            retry_after=after,
            code="hub-unavailable-wait",
        )
    if failing:
        call.failed(began, f"status {status}")


def retry_after(headers: Any) -> float | None:
    """The wait in seconds that a server requests; None if it is not a plain number.

    It stands in Retry-After, or in the time of a RateLimit without remaining requests.
    """
    text = str(headers.get("Retry-After", "")).strip()
    if text.isascii() and text.isdecimal() and len(text) < 9:
        return float(text)
    match = _RATE_LIMIT.search(str(headers.get("RateLimit", "")))
    return float(match[1]) if match else None


def _keep_wait(headers: Any, after: float | None) -> None:
    """Leave the client only the wait that was checked: it sleeps for any number that it reads."""
    for name in ("Retry-After", "RateLimit"):
        if name in headers:
            del headers[name]
    if after is not None:
        headers["Retry-After"] = f"{after:.0f}"


def _bound_body(call: _Call, response: Any) -> None:
    headers, method = response.headers, response.request.method
    # Only the start of an error page or a redirect is of use.
    aside = response.status_code >= 300
    encoding = headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity") and method != "HEAD":
        if not aside:
            raise HubError(
                f"{call.what}: the server sends a compressed body, which was not requested",
                hint="check HF_ENDPOINT and the proxies",
                code="hub-answer-compressed",
            )
        del headers["Content-Encoding"]
        response.stream = _Body(response.stream, call, 0, cut=True)
        return
    if call.file is not None:
        # The client shows this name in its progress bar; a server could choose any.
        name = call.file.name.rpartition("/")[2]
        headers["Content-Disposition"] = f'inline; filename="{name}";'
    if aside:
        response.stream = _Body(response.stream, call, _LARGEST_ERROR, cut=True)
        return
    declared = headers.get("Content-Length", "")
    size = int(declared) if declared.isascii() and declared.isdecimal() else 0
    if call.file is None or method != "GET":
        with call.lock:
            rest = call.answer - call.received
            if method != "HEAD" and size > rest:
                call.too_large(call.answer)
        response.stream = _Body(response.stream, call, None)
        return
    limit = call.file.size
    if response.status_code == 206:
        start = re.match(r"bytes=(\d+)-", response.request.headers.get("Range", ""))
        limit -= int(start[1]) if start else 0
    if size > limit:
        call.too_large(call.file.size)
    response.stream = _Body(response.stream, call, limit)


class _Body(importlib.import_module(LIBRARY).SyncByteStream):  # type: ignore[misc]
    """A body that is counted while it arrives.

    Args:
        stream: the body.
        call: the call that receives it.
        limit: the maximum number of bytes; None counts all answers of the call together.
        cut: end at the limit instead of raising.
    """

    def __init__(self, stream: Any, call: _Call, limit: int | None, *, cut: bool = False) -> None:
        self._stream = stream
        self._call = call
        self._limit = limit
        self._cut = cut

    def __iter__(self) -> Iterator[bytes]:
        call, count = self._call, 0
        if self._cut and self._limit == 0:
            return
        for chunk in self._arriving():
            count += len(chunk)
            if self._limit is None:
                with call.lock:
                    call.received += len(chunk)
                    if call.received > call.answer:
                        call.too_large(call.answer)
            elif count > self._limit:
                if not self._cut:
                    call.too_large(self._limit if call.file is None else call.file.size)
                yield chunk[: len(chunk) - (count - self._limit)]
                return
            yield chunk

    def _arriving(self) -> Iterator[bytes]:
        began = time.monotonic()
        try:
            for chunk in self._stream:
                yield chunk
                began = time.monotonic()
        except CascadezooError:
            raise
        except Exception as error:
            self._call.failed(began, type(error).__name__)
            raise

    def close(self) -> None:
        self._stream.close()
