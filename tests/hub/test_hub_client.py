"""The translation of the client's exceptions, and the secrets that they must not contain."""

from __future__ import annotations

import importlib
import json
import logging
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest
from errors_help import raises
from hub_server import Fault, LocalHub
from hypothesis import given, settings
from hypothesis import strategies as st

from cascadezoo.cli.output import clean
from cascadezoo.errors import (
    CascadezooError,
    HubConflictError,
    HubDeniedError,
    HubError,
    HubNotFoundError,
    HubRefusedError,
    HubUnavailableError,
)
from cascadezoo.hub import client
from cascadezoo.hub.client import hub_api, hub_endpoint, hub_token, translated
from cascadezoo.util.text import clean_remote, scrub

ID = "org/name"
TOKEN = "hf_" + "Ab3" * 12


def request_info(what: str = "the thing") -> None:
    with translated(what):
        hub_api().model_info(ID)


@pytest.mark.parametrize(
    ("status", "headers", "kind", "exit_code"),
    [
        (400, {}, HubRefusedError, 1),
        (
            401,
            {"X-Error-Message": "Invalid credentials in Authorization header"},
            HubDeniedError,
            2,
        ),
        (403, {}, HubDeniedError, 2),
        (403, {"X-Error-Code": "GatedRepo"}, HubDeniedError, 2),
        (403, {"X-Error-Message": "Access to this resource is disabled."}, HubDeniedError, 2),
        (404, {}, HubNotFoundError, 2),
        (404, {"X-Error-Code": "RepoNotFound"}, HubNotFoundError, 2),
        (404, {"X-Error-Code": "RevisionNotFound"}, HubNotFoundError, 2),
        (404, {"X-Error-Code": "EntryNotFound"}, HubNotFoundError, 2),
        (409, {}, HubConflictError, 1),
        (412, {}, HubConflictError, 1),
        (413, {}, HubRefusedError, 1),
        (418, {}, HubRefusedError, 1),
        (429, {}, HubUnavailableError, 1),
        (500, {}, HubUnavailableError, 1),
        (504, {}, HubUnavailableError, 1),
    ],
)
def test_every_status_has_an_error(
    hub: LocalHub, status: int, headers: dict[str, str], kind: type[HubError], exit_code: int
) -> None:
    hub.fail(Fault("status", ".", status=status, headers=headers))
    with pytest.raises(HubError) as raised:
        request_info("weights of org/name")
    assert type(raised.value) is kind
    assert raised.value.exit_code == exit_code
    assert "weights of org/name" in raised.value.what
    assert "\n" not in raised.value.what
    assert raised.value.hint
    code = raised.value.to_dict()["code"]
    assert code.startswith(f"{kind.code}-")


def test_missing_repo_has_a_hint_about_the_token(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raises(HubNotFoundError, "hub-not-found-repo") as raised:
        request_info()
    assert "hf auth whoami" in str(raised.value.hint)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubNotFoundError) as raised:
        request_info()
    assert "hf auth login" in str(raised.value.hint)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:{}", "nonsense", "http://[::1", "ftp://x"])
def test_unreachable_endpoint(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", endpoint.format(free.getsockname()[1]))
    with raises(HubUnavailableError, "hub-unavailable-unreachable") as raised:
        request_info()
    assert "HF_ENDPOINT" in str(raised.value.hint)


@pytest.mark.parametrize("kind", ["cut", "slow"])
def test_connection_that_closes_or_hangs(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    hub.make_repo(ID)
    monkeypatch.setenv("CASCADEZOO_HUB_STALL", "0.2")
    hub.fail(Fault(kind, ".", after_bytes=3, seconds=2.0))  # type: ignore[arg-type]
    began = time.monotonic()
    with pytest.raises(HubUnavailableError):
        request_info()
    assert time.monotonic() - began < 1.5
    request_info()


def test_retry_after_is_kept(hub: LocalHub) -> None:
    hub.fail(Fault("status", ".", status=429, headers={"Retry-After": "12"}))
    with pytest.raises(HubUnavailableError) as raised:
        request_info()
    assert raised.value.retry_after == 12
    for text in ("soon", "-1", "1e9", "²", "9" * 40):
        hub.fail(Fault("status", ".", status=429, headers={"Retry-After": text}))
        with pytest.raises(HubUnavailableError) as raised:
            request_info()
        assert raised.value.retry_after is None


LIMITS = {
    '"api";r=0;t=12': 12,
    '"api"; r = 0; t = 12': 12,
    '"api";r=3;t=3600': None,
    f'"api";r=0;t={"9" * 400}': None,
    '"api";r=0;t=\u0663\u0666\u0660\u0660': None,
    "r;t=99999": None,
}


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("text", LIMITS)
def test_a_rate_limit_is_read_or_ignored(hub: LocalHub, text: str, status: int) -> None:
    hub.fail(Fault("status", ".", status=status, headers={"RateLimit": text}))
    with pytest.raises(HubUnavailableError) as raised:
        request_info()
    assert raised.value.retry_after == LIMITS[text]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Retry-After", "9" * 400),
        ("Retry-After", "\u0663\u0666\u0660\u0660"),
        ("Retry-After", "3600, 3600"),
        ("RateLimit", f'"api";r=0;t={"9" * 400}'),
        ("RateLimit", '"api";r=0;t=\u0663\u0666\u0660\u0660'),
    ],
)
def test_the_client_sleeps_for_no_strange_wait(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    """The client retries downloads by itself, and sleeps as long as the header says."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    hub.make_repo(ID, {"config.json": b"{}"})
    # The client's first request for metadata fails at once; those after it are repeated.
    for status in (503, 503, 429):
        fault = Fault("status", "HEAD .*config.json", status=status, headers={name: text})
        hub.fail(fault)
    with translated("config.json"):
        path = hub_api().hf_hub_download(ID, "config.json", cache_dir=tmp_path)
    assert Path(path).read_bytes() == b"{}"
    assert len(hub.fired) == 3
    assert len(slept) == 2
    assert max(slept, default=0) <= 8


def test_endpoint_and_token_are_current(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (hub_endpoint(), hub_token()) == (hub.url, hub.token)
    monkeypatch.setenv("HF_ENDPOINT", "https://example.org/hub/")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert (hub_endpoint(), hub_token()) == ("https://example.org/hub", TOKEN)
    assert hub_api().endpoint == "https://example.org/hub"
    monkeypatch.delenv("HF_ENDPOINT")
    assert hub_endpoint() == "https://huggingface.co"


def test_offline_error_names_the_variable(hub: LocalHub) -> None:
    """The client reads the variable at its import."""
    code = (
        "from cascadezoo.errors import HubUnavailableError\n"
        "from cascadezoo.hub.client import hub_api, translated\n"
        "try:\n"
        "    with translated('x'):\n"
        "        hub_api().model_info('org/name')\n"
        "except HubUnavailableError as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**hub.env, "HF_HUB_OFFLINE": "1", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "HF_HUB_OFFLINE" in result.stdout, result.stderr
    assert hub.requests == []


def test_errors_outside_the_client_are_not_translated() -> None:
    for error in (KeyError("a"), TypeError("b"), ValueError("c"), AttributeError("d")):
        with pytest.raises(type(error)), translated("x"):
            raise error
    with raises(HubDeniedError, "hub-denied-mine"), translated("x"):
        raise HubDeniedError("x", code="hub-denied-mine")
    with pytest.raises(ZeroDivisionError), translated("x"):
        _ = 1 / 0


def test_full_disk(hub: LocalHub) -> None:
    with raises(HubError, "hub-cache", path="/cache/x") as raised, translated("config.json"):
        raise OSError(28, "No space left on device", "/cache/x")
    assert "config.json" in raised.value.what
    assert "HF_HOME" in str(raised.value.hint)


# --- secrets


@pytest.mark.parametrize("debug", ["", "1"])
def test_tokens_are_in_no_message_and_no_traceback(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch, debug: str
) -> None:
    monkeypatch.setenv("CASCADEZOO_DEBUG", debug)
    for secret in (hub.token, TOKEN, "a-token-that-looks-like-none"):
        monkeypatch.setenv("HF_TOKEN", secret)
        message = f"Bad token {secret}\x1b[2J https://me:pass@host/x?X-Amz-Signature=abcdef"
        body = json.dumps({"error": message}).encode()
        headers = {"X-Error-Message": f"Bad {secret}", "X-Request-Id": secret}
        hub.fail(Fault("status", ".", status=403, body=body, headers=headers))
        with pytest.raises(HubError) as raised:
            request_info()
        text = "".join(traceback.format_exception(raised.value))
        for hidden in (secret, "abcdef", "pass@", "\x1b"):
            assert hidden not in str(raised.value)
            assert hidden not in clean(text, keep="\n")
        assert "***" in str(raised.value)
        assert ("HfHubHTTPError" in text) is bool(debug)


def test_tokens_and_controls_are_in_no_log(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub_api()
    handlers = logging.getLogger("huggingface_hub").handlers
    assert handlers
    record = logging.LogRecord(
        "huggingface_hub.x", 30, "f", 1, "PUT %s\x1b[31m", (f"https://a/b?sig=1 {TOKEN}",), None
    )
    for handler in handlers:
        assert handler.filter(record)
    assert record.getMessage() == "PUT https://a/b?*** hf_***[31m"


def test_scrubbing() -> None:
    shown = scrub(
        f"Authorization: Bearer {TOKEN} at https://u:p@h/p?a=b&c=d, hf_hub_download({TOKEN!r})",
        "p@h",
    )
    assert TOKEN not in shown
    assert "u:p" not in shown
    assert "c=d" not in shown
    assert "hf_hub_download" in shown
    assert scrub("plain text, nothing secret: a?b") == "plain text, nothing secret: a?b"


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80), st.integers(1, 60))
def test_remote_text_is_one_short_printable_line(text: str, limit: int) -> None:
    shown = clean_remote(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()
    assert clean(shown) == shown
    assert clean_remote(shown, limit) == shown


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.integers(200, 599))
def test_any_response_is_accepted_or_a_hub_error(body: bytes, status: int) -> None:
    """Any response of a server is accepted or raises a HubError."""
    from huggingface_hub.utils import hf_raise_for_status

    http = importlib.import_module(client.LIBRARY)
    request = http.Request("GET", "http://127.0.0.1/api/models/org/name")
    answer = http.Response(status, content=body, request=request)
    try:
        with translated("x"):
            hf_raise_for_status(answer)
    except CascadezooError as error:
        assert isinstance(error, HubError)
        assert error.hint
        assert isinstance(error, HubUnavailableError) is (
            status >= 500 or status in (408, 425, 429)
        )
    else:
        assert status < 400
