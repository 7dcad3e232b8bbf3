"""The real client of the Hub, and what it raises in this project's words.

Every call goes through :func:`hub_api` inside :func:`translated`, which between them see to it that

- the endpoint and the token are those of the moment (``HF_ENDPOINT``, ``HF_TOKEN``, ``hf auth
  login``), not those of the time when the client was imported;
- no request waits for ever: the client sets no time limit of its own and sleeps as long as a server
  tells it to;
- neither messages nor logs nor tracebacks hold tokens, signed addresses or control characters.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import HfApi, constants, get_session, get_token
from huggingface_hub import errors as hf

from cascadezoo._version import __version__
from cascadezoo.errors import (
    CascadezooError,
    HubConflictError,
    HubDeniedError,
    HubError,
    HubNotFoundError,
    HubRefusedError,
    HubUnavailableError,
)
from cascadezoo.util.retry import LONGEST_WAIT
from cascadezoo.util.text import clean_remote, scrub

__all__ = ["LOG_IN", "hub_api", "hub_endpoint", "hub_token", "translated"]

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"

_TIMEOUTS = {"connect": 15.0, "read": 60.0, "write": 60.0, "pool": 60.0}
"""Seconds without a byte, for requests to which the client gives no limit."""
_AGAIN = "try again in a while; nothing is lost"
_TRANSPORT: type[Exception] = hf.HfHubHTTPError.__mro__[1]
"""The HTTP library's own base of errors; which library it is depends on the client's version."""
_LIBRARY = _TRANSPORT.__module__.partition(".")[0]
_MALFORMED = (KeyError, IndexError, TypeError, AttributeError)
"""What the client stumbles over where an answer is JSON but not what it should be."""

_lock = threading.Lock()
_active = 0


def hub_endpoint() -> str:
    """The Hub's address: ``HF_ENDPOINT``, or the public one."""
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def hub_token() -> str | None:
    """The token in use: ``HF_TOKEN``, or the one of ``hf auth login``."""
    return get_token()


def hub_api(token: str | None = None) -> HfApi:
    """The client, for the endpoint of the moment; use it inside :func:`translated`.

    Args:
        token: the token to send; None sends the one in use, unless the user forbids that by
            ``HF_HUB_DISABLE_IMPLICIT_TOKEN``.
    """
    _watch_logs()
    return HfApi(
        endpoint=hub_endpoint(),
        token=token,
        library_name="cascadezoo",
        library_version=__version__,
    )


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn whatever the client raises into a :class:`~cascadezoo.errors.HubError`.

    Args:
        what: what is asked for, as messages name it: ``config.json of org/name``.

    Raises:
        HubUnavailableError: no connection, a time-out, a server error, too many requests, offline.
        HubNotFoundError: the repo, the revision or the file is not there, or not for this token.
        HubDeniedError: no token, a wrong one, one without the right, a gated or disabled repo.
        HubConflictError: the repo was changed meanwhile, or has such a thing already.
        HubRefusedError: the Hub does not take what was sent.
        HubError: the client's files on this machine cannot be read or written.
    """
    with _patience():
        try:
            yield
        except CascadezooError:
            raise
        except (OSError, _TRANSPORT, RuntimeError, ValueError, *_MALFORMED) as error:
            raise _told(what, error) from None
        except _invalid_address() as error:
            raise _told(what, error) from None


# --- errors


def _told(what: str, error: BaseException) -> CascadezooError:
    inner = _upload_fault(error)
    found = inner if isinstance(inner, CascadezooError) else _translate(what, inner)
    if found is None:
        # A fault of this program or of the client, not of the Hub: it keeps its own traceback.
        raise error
    if os.environ.get("CASCADEZOO_DEBUG", "") not in ("", "0"):
        # The client's own chain may quote headers and addresses, hence this copy of it.
        lines = "".join(traceback.format_exception(error))
        found.add_note(scrub(lines, hub_token()))
    return found


def _upload_fault(error: BaseException) -> BaseException:
    """What is behind the RuntimeError by which the client says that a file did not go up."""
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        return error.__cause__
    # Its downloads say only that nothing is cached; what kept them from the network is behind it.
    if isinstance(error, hf.LocalEntryNotFoundError) and error.__cause__ is not None:
        return error.__cause__
    return error


def _translate(what: str, error: BaseException) -> HubError | None:
    if isinstance(error, hf.OfflineModeIsEnabled):
        return HubUnavailableError(
            f"{what}: no request is sent while HF_HUB_OFFLINE is set",
            hint="unset HF_HUB_OFFLINE to use the network",
            code="hub-unavailable-offline",
        )
    if isinstance(error, hf.LocalTokenNotFoundError):
        return HubDeniedError(
            f"{what}: there is no token of the Hub", hint=LOG_IN, code="hub-denied-no-token"
        )
    if isinstance(error, hf.HfHubHTTPError):
        return _answered(what, error)
    if isinstance(error, hf.FileMetadataError):
        return HubUnavailableError(
            f"{what}: what answers at {_shown(hub_endpoint())} is no Hub",
            hint="look at HF_ENDPOINT, at proxies, and at the network's login page",
            code="hub-unavailable-no-hub",
        )
    if isinstance(error, (_TRANSPORT, ConnectionError, TimeoutError, *_invalid_address())):
        return HubUnavailableError(
            f"{what}: {_shown(hub_endpoint())} cannot be reached ({_cause(error)})",
            hint="look at the network, HF_ENDPOINT and proxies, then try again",
            code="hub-unavailable-unreachable",
        )
    if isinstance(error, OSError):
        return _local(what, error)
    if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError, *_MALFORMED)):
        if not _in_client(error):
            return None
        # Where it stumbled over the text of an error's page, the page's status is behind it.
        answer = getattr(error.__context__, "response", None)
        if answer is not None and answer.status_code >= 400:
            return _by_status(what, answer.status_code, answer.headers, "")
        return HubUnavailableError(
            f"{what}: the Hub's answer cannot be understood ({type(error).__name__})",
            hint=_AGAIN,
            code="hub-unavailable-answer",
        )
    if isinstance(error, RuntimeError):
        # One thread closes the connections that another one uses, when the network goes away.
        return (
            HubUnavailableError(f"{what}: {_shown(error)}", hint=_AGAIN)
            if _in_client(error)
            else None
        )
    if isinstance(error, ValueError) and _in_client(error):
        return HubRefusedError(
            f"{what}: {_shown(error)}", hint="change what it names, then try again"
        )
    return None


def _answered(what: str, error: hf.HfHubHTTPError) -> HubError:
    said = _shown(error.server_message or "")
    more = f" ({said})" if said else ""
    if isinstance(error, hf.GatedRepoError):
        return HubDeniedError(
            f"{what}: access to the repo has to be granted by its authors{more}",
            hint="ask for it on the model's page, then log in with `hf auth login`",
            code="hub-denied-gated",
        )
    if isinstance(error, hf.DisabledRepoError):
        return HubDeniedError(
            f"{what}: the Hub has disabled the repo{more}",
            hint="take another model",
            code="hub-denied-disabled",
        )
    if isinstance(error, hf.RevisionNotFoundError):
        return HubNotFoundError(
            f"{what}: there is no such revision",
            hint="give a branch, a tag or a whole commit that the repo has",
            code="hub-not-found-revision",
        )
    if isinstance(error, hf.EntryNotFoundError):
        return HubNotFoundError(
            f"{what}: there is no such file",
            hint="look at the repo's file list",
            code="hub-not-found-file",
        )
    if isinstance(error, hf.RepositoryNotFoundError):
        return HubNotFoundError(
            f"{what}: there is no such repo, or it is private",
            hint="look at how its name is written; for a private one, `hf auth login`"
            if hub_token() is None
            else "look at how its name is written, and whether your token may read it "
            "(`hf auth whoami`)",
            code="hub-not-found-repo",
        )
    return _by_status(what, error.response.status_code, error.response.headers, more)


def _by_status(what: str, status: int, headers: Any, more: str) -> HubError:
    if status in (401, 407):
        return HubDeniedError(
            f"{what}: the Hub does not know this token{more}",
            hint=LOG_IN,
            code="hub-denied-token-unknown",
        )
    if status == 403:
        return HubDeniedError(
            f"{what}: this token may not do that{more}",
            hint="`hf auth whoami` tells whose token it is; `hf auth login` takes another",
            code="hub-denied-token-rights",
        )
    if status in (404, 410):
        return HubNotFoundError(f"{what}: not found{more}", hint="look at how it is written")
    if status in (409, 412):
        return HubConflictError(f"{what}: changed in the meantime{more}", hint="run it again")
    if status in (408, 425, 429) or status >= 500:
        after = _seconds(headers)
        wait = f"try again in {after:.0f} s; nothing is lost" if after else _AGAIN
        told = "asks for fewer requests" if status == 429 else f"answers {status}"
        return HubUnavailableError(
            f"{what}: the Hub {told}{more}",
            hint=wait,
            retry_after=after,
            code="hub-unavailable-busy",
        )
    return HubRefusedError(
        f"{what}: the Hub answers {status}{more}",
        hint="change what it names, then try again",
        code="hub-refused-status",
        status=status,
    )


def _local(what: str, error: OSError) -> HubError:
    if error.errno is None:
        # The client's own way to say that fewer bytes came than were announced.
        return HubUnavailableError(f"{what}: {_shown(error)}", hint=_AGAIN)
    place = f"{error.filename}: " if error.filename is not None else ""
    return HubError(
        f"{what}: {place}{error.strerror}",
        hint="make room or take a folder that you may write to: HF_HOME says where the cache is",
        code="hub-cache",
        path=error.filename,
    )


def _cause(error: BaseException) -> str:
    return _shown(error) or type(error).__name__


def _shown(text: object) -> str:
    return clean_remote(scrub(str(text), hub_token()))


def _in_client(error: BaseException) -> bool:
    """Whether the client's code, or the HTTP library's, was at work when it was raised."""
    trace = error.__traceback__
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] in ("huggingface_hub", _LIBRARY):
            return True
        trace = trace.tb_next
    return False


def _invalid_address() -> tuple[type[Exception], ...]:
    return (sys.modules[_LIBRARY].InvalidURL,)


# --- patience


@contextmanager
def _patience() -> Iterator[None]:
    """Give the client's requests a limit in time, as long as one of our calls is under way."""
    global _active
    hooks = get_session().event_hooks
    if _limit_time not in hooks["request"]:
        get_session().event_hooks = {
            "request": [*hooks["request"], _limit_time],
            "response": [*hooks["response"], _limit_wait],
        }
    with _lock:
        _active += 1
    try:
        yield
    finally:
        with _lock:
            _active -= 1


def _limit_time(request: Any) -> None:
    given = request.extensions.get("timeout") or {}
    if _active and not any(given.values()):
        request.extensions = {**request.extensions, "timeout": dict(_TIMEOUTS)}


def _limit_wait(response: Any) -> None:
    """Give up where the client would sleep for longer than anyone waits at a terminal."""
    after = _seconds(response.headers)
    if _active and after is not None and after > LONGEST_WAIT and response.status_code >= 400:
        raise HubUnavailableError(
            f"the Hub asks to wait {after:.0f} s before the next request",
            hint=f"run it again in {after:.0f} s; nothing is lost",
            retry_after=after,
            code="hub-unavailable-wait",
        )


def _seconds(headers: Any) -> float | None:
    text = str(headers.get("Retry-After", "")).strip()
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 9 else None


# --- logs


class _Harmless(logging.Filter):
    """Cleans what the client logs: it quotes addresses, and warnings that a server sends."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        # Expected: weights are handed over as open files so that they do not go by Xet.
        if "not supported by Xet" in text:
            return False
        record.msg, record.args = clean_remote(scrub(text, hub_token()), 1000), None
        return True


def _watch_logs() -> None:
    for handler in logging.getLogger("huggingface_hub").handlers:
        if not any(isinstance(f, _Harmless) for f in handler.filters):
            handler.addFilter(_Harmless())
