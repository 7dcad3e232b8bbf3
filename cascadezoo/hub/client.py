"""The Hub's client, with its exceptions translated to :class:`~cascadezoo.errors.HubError`.

Every call goes through :func:`hub_api` inside :func:`translated`. Together they guarantee:

- The endpoint and the token are the current ones (``HF_ENDPOINT``, ``HF_TOKEN``, ``hf auth
  login``), not those at the import of the client.
- Every request and every body is bounded; see :mod:`cascadezoo.hub.transport`.
- Messages, logs and tracebacks contain no tokens, signed addresses or control characters: every
  text of a server passes :func:`remote_text`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import HfApi, constants, get_token
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
from cascadezoo.hub.transport import LIBRARY, Download, bounded, retry_after
from cascadezoo.util.text import clean_remote, scrub

__all__ = [
    "LOG_IN",
    "Download",
    "hub_api",
    "hub_endpoint",
    "hub_token",
    "malformed",
    "remote_text",
    "translated",
]

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN to a token with write permission"

_TRY_AGAIN = "try again later; nothing is lost"
_TRANSPORT: type[Exception] = hf.HfHubHTTPError.__mro__[1]
"""Base error of the HTTP library; the client's version determines which library that is."""
_MALFORMED = (
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    OverflowError,
    UnboundLocalError,  # for an upload of an object that it did not offer
)
"""What the client raises for a response that is JSON of an unexpected form."""


def hub_endpoint() -> str:
    """The Hub's address: ``HF_ENDPOINT``, or the public one."""
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def hub_token() -> str | None:
    """The current token: from ``HF_TOKEN`` or ``hf auth login``."""
    return get_token()


def hub_api(token: str | None = None) -> HfApi:
    """The client for the current endpoint; use it inside :func:`translated`.

    Args:
        token: the token to send; None sends the current one, unless
            ``HF_HUB_DISABLE_IMPLICIT_TOKEN`` is set.
    """
    _filter_logs()
    return HfApi(
        endpoint=hub_endpoint(),
        token=token,
        library_name="cascadezoo",
        library_version=__version__,
    )


def remote_text(text: object, limit: int = 300) -> str:
    """Text of a server as one line without tokens, signed addresses and control characters.

    Every text of a server that is shown, returned or logged passes this function.

    Args:
        text: any value; it is converted with ``str``.
        limit: maximum number of characters.
    """
    token, whole = hub_token(), str(text)
    # A cut may leave a part of a token, and invisible characters may split it.
    if token and len(token) >= 8:
        whole = whole.replace(token, "***")
    whole = clean_remote(whole[: 16 * limit], 16 * limit)
    return clean_remote(scrub(whole, token), limit)


def malformed(what: str, why: str) -> HubUnavailableError:
    """The error of an answer that is not what the Hub sends.

    Args:
        what: the subject of the message.
        why: the reason; no text of the server.
    """
    return HubUnavailableError(
        f"{what}: the Hub's answer is malformed ({why})",
        hint="check HF_ENDPOINT and the proxies: the server may not be a Hub",
        code="hub-unavailable-answer",
    )


@contextmanager
def translated(what: str, *, file: Download | None = None, upload: int = 0) -> Iterator[None]:
    """Bound the client's requests, and translate its exceptions to a ``HubError``.

    Args:
        what: the subject of the messages, such as ``config.json of org/name``.
        file: the file that is downloaded; see :class:`~cascadezoo.hub.transport.Download`.
        upload: size in bytes of the files that are sent.

    Raises:
        HubUnavailableError: no connection, a time-out, a server error, too many requests, offline.
        HubNotFoundError: the repo, revision or file does not exist, or the token cannot see it.
        HubDeniedError: a missing or invalid token, missing rights, a gated or disabled repo.
        HubConflictError: the repo changed in the meantime, or the object exists already.
        HubRefusedError: the Hub rejects the request.
        HubError: a body is too large, or the client's files on this machine cannot be read or
            written.
    """
    try:
        with bounded(what, file=file, upload=upload):
            yield
    except CascadezooError:
        raise
    except (OSError, _TRANSPORT, RuntimeError, ValueError, *_MALFORMED) as error:
        raise _converted(what, error) from None
    except _invalid_address() as error:
        raise _converted(what, error) from None


# --- errors


def _converted(what: str, error: BaseException) -> CascadezooError:
    cause = _transfer_cause(error)
    converted = cause if isinstance(cause, CascadezooError) else _translate(what, cause)
    if converted is None:
        # A bug in this package or in the client, not an error of the Hub: keep its traceback.
        raise error
    if os.environ.get("CASCADEZOO_DEBUG", "") not in ("", "0"):
        # The client's chain may quote headers and addresses; attach a scrubbed copy instead.
        lines = "".join(traceback.format_exception(error))
        shown = "".join(c for c in lines if c.isprintable() or c == "\n")
        converted.add_note(scrub(shown, hub_token()))
    return converted


def _transfer_cause(error: BaseException) -> BaseException:
    """The cause of a failed transfer, which the client wraps."""
    # Failed uploads raise a RuntimeError.
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        return error.__cause__
    # Failed downloads report only a missing cache entry; the network error is the cause.
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
            f"{what}: no Hub token is set", hint=LOG_IN, code="hub-denied-no-token"
        )
    if isinstance(error, hf.HfHubHTTPError):
        return _by_class(what, error)
    if isinstance(error, hf.FileMetadataError):
        return HubUnavailableError(
            f"{what}: the server at {remote_text(hub_endpoint())} is not a Hub",
            hint="check HF_ENDPOINT, the proxies and the network's login page",
            code="hub-unavailable-no-hub",
        )
    if isinstance(error, (_TRANSPORT, ConnectionError, TimeoutError, *_invalid_address())):
        return HubUnavailableError(
            f"{what}: {remote_text(hub_endpoint())} cannot be reached ({_cause(error)})",
            hint="check the network, HF_ENDPOINT and the proxies, then try again",
            code="hub-unavailable-unreachable",
        )
    if isinstance(error, OSError):
        return _local(what, error)
    if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError, RecursionError, *_MALFORMED)):
        if not _in_client(error):
            return None
        # If the client failed to parse an error page, the context holds the page's status.
        answer = getattr(error.__context__, "response", None)
        if answer is not None and answer.status_code >= 400:
            return _by_status(what, answer.status_code, answer.headers, "")
        return HubUnavailableError(
            f"{what}: the Hub's response cannot be parsed ({type(error).__name__})",
            hint=_TRY_AGAIN,
            code="hub-unavailable-answer",
        )
    if isinstance(error, RuntimeError):
        # If the network fails, one thread closes the connections that another one uses.
        if not _in_client(error):
            return None
        return HubUnavailableError(
            f"{what}: {remote_text(error)}", hint=_TRY_AGAIN, code="hub-unavailable-interrupted"
        )
    if isinstance(error, ValueError) and _in_client(error):
        return HubRefusedError(
            f"{what}: {remote_text(error)}",
            hint="correct the value that the message names, then try again",
            code="hub-refused-value",
        )
    return None


def _by_class(what: str, error: hf.HfHubHTTPError) -> HubError:
    message = remote_text(error.server_message or "")
    more = f" ({message})" if message else ""
    if isinstance(error, hf.GatedRepoError):
        return HubDeniedError(
            f"{what}: the repo's authors must grant access{more}",
            hint="request access on the model's page, then log in with `hf auth login`",
            code="hub-denied-gated",
        )
    if isinstance(error, hf.DisabledRepoError):
        return HubDeniedError(
            f"{what}: the Hub has disabled the repo{more}",
            hint="choose another model",
            code="hub-denied-disabled",
        )
    if isinstance(error, hf.RevisionNotFoundError):
        return HubNotFoundError(
            f"{what}: revision not found",
            hint="give a branch, a tag or a full commit of the repo",
            code="hub-not-found-revision",
        )
    if isinstance(error, hf.EntryNotFoundError):
        return HubNotFoundError(
            f"{what}: file not found",
            hint="check the repo's file list",
            code="hub-not-found-file",
        )
    if isinstance(error, hf.RepositoryNotFoundError):
        return HubNotFoundError(
            f"{what}: the repo does not exist, or it is private",
            hint="check the spelling; for a private repo, run `hf auth login`"
            if hub_token() is None
            else "check the spelling, and whether your token may read it (`hf auth whoami`)",
            code="hub-not-found-repo",
        )
    return _by_status(what, error.response.status_code, error.response.headers, more)


def _by_status(what: str, status: int, headers: Any, more: str) -> HubError:
    if status in (401, 407):
        return HubDeniedError(
            f"{what}: the Hub rejects the token{more}",
            hint=LOG_IN,
            code="hub-denied-token-unknown",
        )
    if status == 403:
        return HubDeniedError(
            f"{what}: the token has insufficient rights{more}",
            hint="`hf auth whoami` shows the token's owner; `hf auth login` sets another token",
            code="hub-denied-token-rights",
        )
    if status in (404, 410):
        return HubNotFoundError(
            f"{what}: not found{more}", hint="check the spelling", code="hub-not-found-status"
        )
    if status in (409, 412):
        return HubConflictError(
            f"{what}: changed in the meantime{more}",
            hint="run the command again",
            code="hub-conflict-changed",
        )
    if status in (408, 425, 429) or status >= 500:
        after = retry_after(headers)
        reason = "received too many requests" if status == 429 else f"returned status {status}"
        return HubUnavailableError(
            f"{what}: the Hub {reason}{more}",
            hint=f"try again in {after:.0f} s; nothing is lost" if after else _TRY_AGAIN,
            retry_after=after,
            code="hub-unavailable-busy",
        )
    return HubRefusedError(
        f"{what}: the Hub returned status {status}{more}",
        hint="correct the request, then try again",
        code="hub-refused-status",
        status=status,
    )


def _local(what: str, error: OSError) -> HubError:
    if error.errno is None:
        # The client raises this for a download shorter than announced.
        return HubUnavailableError(
            f"{what}: {remote_text(error)}", hint=_TRY_AGAIN, code="hub-unavailable-interrupted"
        )
    place = f"{error.filename}: " if error.filename is not None else ""
    return HubError(
        f"{what}: {place}{error.strerror}",
        hint="free space, or set HF_HOME (the folder of the cache) to a writable folder",
        code="hub-cache",
        path=error.filename,
    )


def _cause(error: BaseException) -> str:
    return remote_text(error) or type(error).__name__


def _in_client(error: BaseException) -> bool:
    """Whether the traceback passes through the client or the HTTP library."""
    trace = error.__traceback__
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] in ("huggingface_hub", LIBRARY):
            return True
        trace = trace.tb_next
    return False


def _invalid_address() -> tuple[type[Exception], ...]:
    return (sys.modules[LIBRARY].InvalidURL,)


# --- logs


class _ScrubFilter(logging.Filter):
    """Scrubs the client's log records, which quote addresses and a server's warnings."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        # Expected: weights are passed as open files so that the client does not use Xet.
        if "not supported by Xet" in text:
            return False
        record.msg, record.args = remote_text(text, 1000), None
        return True


def _filter_logs() -> None:
    for handler in logging.getLogger("huggingface_hub").handlers:
        if not any(isinstance(f, _ScrubFilter) for f in handler.filters):
            handler.addFilter(_ScrubFilter())
