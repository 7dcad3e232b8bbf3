"""A malicious endpoint: what it sends is bounded in size, time and form, and shows no token."""

from __future__ import annotations

import ast
import gzip
import json
import random
import socket
import sys
import threading
import time
import traceback
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from errors_help import raises
from hub_client import run
from hub_server import Fault
from pull_cases import REPO, WEIGHTS, contents
from push_cases import ALWAYS, COMMIT

from cascadezoo.errors import (
    CascadezooError,
    HubDeniedError,
    HubError,
    HubRefusedError,
    HubUnavailableError,
    InputError,
)
from cascadezoo.hub import client, fetch
from cascadezoo.hub.client import hub_api, remote_text, translated
from cascadezoo.hub.locate import locate
from cascadezoo.hub.publish.commit import publish_hub
from cascadezoo.hub.search import search
from cascadezoo.hub.zoo_models import zoo_entry

NAMES = ("config.json", WEIGHTS)
BUFFERS = 16 << 20
"""What a server can send into the buffers of a connection that nobody reads."""


@pytest.fixture
def repo(hub, files):
    made = hub.make_repo(REPO, files)
    hub.clear()
    return made


@pytest.fixture(autouse=True)
def quick(workdir, monkeypatch):
    monkeypatch.setattr(fetch, "_WAITS", (0.02, 0.05))  # seconds


def tree(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def outside(tmp_path):
    """Everything beside the Hub's cache."""
    return {name for name in tree(tmp_path) if not name.startswith("hf_home")}


def cached(tmp_path):
    """The names in the cache that a server could choose, and left-over parts of files."""
    root = tmp_path / "hf_home/hub/models--org--lone"
    return {n for n in tree(root) if n.count("/") and not n.startswith("snapshots/")} | {
        n for n in tree(root) if ".incomplete" in n
    }


def sent(hub):
    return sum(r.sent for r in hub.requests)


# --- names

BAD_ETAGS = (
    '"{}/stolen"',
    '"../../../../stolen"',
    "../x",
    "..",
    '"a/b"',
    "W/../../x",
    '"' + "0" * 39 + '"',
    '"' + "0" * 63 + '/"',
    '"' + "A" * 40 + '"',
    "x" * 5000,
    "0" * 40 + ", " + "0" * 40,
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("etag", BAD_ETAGS)
def test_an_etag_never_names_a_path(hub, repo, tmp_path, name, etag):
    before = outside(tmp_path)
    value = etag.format(tmp_path)
    headers = {"ETag": value, "X-Linked-Etag": value}
    hub.fail(Fault("headers", f"HEAD .*{name}", times=ALWAYS, headers=headers))
    with raises(HubUnavailableError, "hub-unavailable-no-hub"):
        locate(REPO)
    assert outside(tmp_path) == before
    if name == "config.json":
        assert cached(tmp_path) == set()


@pytest.mark.parametrize("name", [*NAMES, "README.md"])
@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("commit", ["{}/stolen", "../../../stolen", "main", "0" * 39, "a" * 41])
def test_a_commit_never_names_a_path(hub, repo, tmp_path, name, status, commit):
    before = outside(tmp_path)
    headers = {"X-Repo-Commit": commit.format(tmp_path)}
    if status == 404:
        headers |= {"X-Error-Code": "EntryNotFound"}
        fault = Fault("status", f"HEAD .*{name}", times=ALWAYS, status=404, headers=headers)
    else:
        fault = Fault("headers", f"HEAD .*{name}", times=ALWAYS, headers=headers)
    hub.fail(fault)
    with raises(HubUnavailableError, "hub-unavailable-no-hub"):
        locate(REPO)
    assert outside(tmp_path) == before
    assert not (tmp_path / "hf_home/hub/models--org--lone/.no_exist").exists()


def test_a_server_must_name_the_requested_commit(hub, repo, tmp_path):
    other = {"X-Repo-Commit": "a" * 40}
    hub.fail(Fault("headers", f"HEAD .*{WEIGHTS}", times=ALWAYS, headers=other))
    with raises(HubUnavailableError, "hub-unavailable-no-hub"):
        locate(REPO)
    snapshots = tmp_path / "hf_home/hub/models--org--lone/snapshots"
    assert [p.name for p in snapshots.iterdir()] == [repo.head().oid]


# --- sizes


@pytest.mark.parametrize("name", [*NAMES, "README.md", "metrics.json"])
@pytest.mark.parametrize("headers", [{}, {"Content-Length": "99999999999"}])
def test_an_endless_file_ends_at_its_size(hub, repo, tmp_path, name, headers):
    hub.fail(Fault("endless", f"GET .*{name}", times=ALWAYS, status=200, headers=headers))
    with raises(HubError, "hub-answer-too-large"):
        locate(REPO)
    assert len(hub.fired) == 1
    assert sent(hub) < BUFFERS
    assert not [n for n in cached(tmp_path) if "incomplete" in n]


def test_a_resumed_file_is_bounded_as_a_whole(hub, repo, tmp_path):
    """The first part is cut, the rest has no end."""
    hub.fail(Fault("cut", f"GET .*{WEIGHTS}", after_bytes=100))
    headers = {"Content-Range": "bytes 0-1/99999999"}
    hub.fail(Fault("endless", f"GET .*{WEIGHTS}", times=ALWAYS, status=206, headers=headers))
    with raises(HubError, "hub-answer-too-large"):
        locate(REPO)
    assert sent(hub) < BUFFERS


BOMB = gzip.compress(b"0" * (1 << 26))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, gzip", "zstd", "GZIP"])
def test_files_arrive_without_compression(hub, repo, name, encoding):
    headers = {"Content-Encoding": encoding}
    hub.fail(Fault("status", f"GET .*{name}", times=ALWAYS, status=200, headers=headers, body=BOMB))
    with raises(HubError, "hub-answer-compressed"):
        locate(REPO)
    assert all(r.headers["accept-encoding"] == "identity" for r in hub.requests)


CALLS = {
    "whoami": ("GET /api/whoami", lambda model: publish_hub(model, REPO)),
    "model_info": ("GET /api/models/org/lone", lambda model: publish_hub(model, REPO)),
    "card": ("POST /api/validate-yaml", lambda model: publish_hub(model, REPO)),
    "preupload": ("POST .*/preupload/", lambda model: publish_hub(model, REPO)),
    "batch": ("POST .*/objects/batch", lambda model: publish_hub(model, REPO)),
    "upload": ("PUT /lfs/", lambda model: publish_hub(model, REPO)),
    "commit": (COMMIT, lambda model: publish_hub(model, REPO)),
    "entry": ("GET /api/models/org/lone", lambda model: zoo_entry(REPO)),
    "tree": ("GET /api/models/.*/tree", lambda model: zoo_entry(REPO)),
    "search": ("GET /api/models", lambda model: search("lone")),
}


@pytest.mark.parametrize("call", CALLS)
def test_an_endless_answer_ends_at_the_limit(hub, repo, newer, monkeypatch, call):
    monkeypatch.setenv("CASCADEZOO_HUB_ANSWER", "50000")
    match, act = CALLS[call]
    hub.fail(Fault("endless", match, times=ALWAYS, status=200))
    with raises(HubError, "hub-answer-too-large", limit=50000):
        act(newer)
    assert sent(hub) < BUFFERS


@pytest.mark.parametrize("call", ["whoami", "model_info", "search"])
def test_answers_arrive_without_compression(hub, repo, newer, call):
    match, act = CALLS[call]
    headers = {"Content-Encoding": "gzip"}
    hub.fail(Fault("status", match, times=ALWAYS, status=200, headers=headers, body=BOMB))
    with raises(HubError, "hub-answer-compressed"):
        act(newer)


def test_an_upload_of_another_object(hub, repo, newer):
    """The server asks for an object that was not offered."""
    other = {"oid": "0" * 64, "size": 1, "actions": {"upload": {"href": f"{hub.url}/lfs/x"}}}
    body = json.dumps({"transfer": "basic", "objects": [other]}).encode()
    json_type = {"Content-Type": "application/json"}
    hub.fail(
        Fault("status", "/objects/batch", times=ALWAYS, status=200, headers=json_type, body=body)
    )
    with raises(HubUnavailableError, "hub-unavailable-answer"):
        publish_hub(newer, REPO)
    assert not hub.seen("PUT")


def test_pages_without_an_end(hub, repo, monkeypatch):
    """Each page is small and names a next one."""
    monkeypatch.setenv("CASCADEZOO_HUB_ANSWER", "50000")
    link = f'<{hub.url}/api/models/{REPO}/tree/x>; rel="next"'
    page = b"[" + b" " * 3000 + b"]"
    hub.fail(
        Fault("status", ".*/tree", times=ALWAYS, status=200, headers={"Link": link}, body=page)
    )
    with raises(HubError, "hub-answer-too-large"):
        zoo_entry(REPO)
    assert len(hub.seen("/tree/")) < 40


@pytest.mark.parametrize("encoding", [{}, {"Content-Encoding": "gzip"}])
@pytest.mark.parametrize(
    ("status", "kind"), [(403, HubDeniedError), (500, HubUnavailableError), (418, HubRefusedError)]
)
def test_an_endless_error_page_is_cut(hub, status, kind, encoding):
    hub.fail(Fault("endless", ".", times=ALWAYS, status=status, headers=encoding))
    with pytest.raises(kind), translated("x"):
        hub_api().model_info(REPO)
    assert sent(hub) < BUFFERS


# --- times


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("match", ["HEAD .*config", "GET .*config", f"GET .*{WEIGHTS}"])
def test_a_drip_ends_at_the_time_of_the_size(hub, repo, monkeypatch, match, after):
    if after and match.startswith("HEAD"):
        pytest.skip("a response to HEAD has no body")
    monkeypatch.setenv("CASCADEZOO_HUB_SECONDS", "1")
    monkeypatch.setenv("CASCADEZOO_HUB_SPEED", "100000000")
    hub.fail(Fault("drip", match, times=ALWAYS, status=200, after_bytes=after, seconds=0.05))
    began = time.monotonic()
    with raises(HubUnavailableError, "hub-unavailable-slow"):
        locate(REPO)
    assert time.monotonic() - began < 20
    assert len(hub.fired) == 1


@pytest.mark.parametrize("call", ["whoami", "model_info", "upload", "commit", "search"])
def test_a_drip_of_answers_ends(hub, repo, newer, monkeypatch, call):
    monkeypatch.setenv("CASCADEZOO_HUB_SECONDS", "2")
    match, act = CALLS[call]
    hub.fail(Fault("drip", match, times=ALWAYS, status=200, after_bytes=1, seconds=0.05))
    began = time.monotonic()
    with raises(HubUnavailableError, "hub-unavailable-slow"):
        act(newer)
    assert time.monotonic() - began < 30


def test_a_stall_ends(hub, repo, files, monkeypatch):
    monkeypatch.setenv("CASCADEZOO_HUB_STALL", "0.3")
    monkeypatch.setenv("CASCADEZOO_HUB_PATIENCE", "4")
    hub.fail(Fault("slow", f"GET .*{WEIGHTS}", times=ALWAYS, after_bytes=50, seconds=60))
    began = time.monotonic()
    with pytest.raises(HubUnavailableError):
        locate(REPO)
    assert time.monotonic() - began < 20
    hub.heal()
    assert contents(locate(REPO)) == files


@pytest.mark.parametrize("variable", ["SECONDS", "STALL", "PATIENCE", "SPEED", "ANSWER"])
@pytest.mark.parametrize("value", ["soon", "-1", "1e3", "²", "9" * 40, "nan"])
def test_limits_are_numbers(hub, repo, monkeypatch, variable, value):
    monkeypatch.setenv(f"CASCADEZOO_HUB_{variable}", value)
    with raises(InputError, "input-limit-form", name=f"CASCADEZOO_HUB_{variable}"):
        locate(REPO)


FAILURES = {
    "busy": {"kind": "status"},
    "limited": {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}},
    "cut": {"kind": "cut"},
    "stall": {"kind": "slow", "seconds": 60.0},
    "lost": {"kind": "lost-response"},
}


@pytest.mark.parametrize("match", [".", "/tree|/revision|^GET /api/models", "PUT", COMMIT])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_publish_gives_up_in_time(hub_with_model, newer, monkeypatch, failure, match):
    monkeypatch.setenv("CASCADEZOO_HUB_PATIENCE", "2")
    hub_with_model.fail(Fault(match=match, times=ALWAYS, **FAILURES[failure]))
    began = time.monotonic()
    try:
        publish_hub(newer, REPO)
    except HubUnavailableError as error:
        assert error.hint
    else:
        # The request is processed, and only its response fails.
        assert match in (COMMIT, "PUT")
        assert failure in ("stall", "lost")
    # The patience, and successful requests on a loaded machine.
    assert time.monotonic() - began < 2 + 8


@pytest.mark.slow
@pytest.mark.parametrize("match", [".", "/preupload/", "/batch", "PUT", COMMIT])
def test_a_publish_gives_up_within_a_minute(hub_with_model, newer, match):
    hub_with_model.fail(Fault("status", match, times=ALWAYS))
    began = time.monotonic()
    with pytest.raises(HubUnavailableError):
        publish_hub(newer, REPO)
    assert time.monotonic() - began < 60


# --- malformed answers

NESTED = b"[" * 100_000
ANSWERS = (b"[]", b'"x"', b"1", b"null", b"{}", b"[[1]]", b'{"auth": "x"}', NESTED, b"\xff", b"")
ANSWERS += (b'{"auth": {"accessToken": [1]}}', b'{"auth": [1]}', b"9" * 5000, b"<html>", b"NaN")


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("call", [c for c in CALLS if c != "upload"])
def test_a_malformed_answer_is_a_clear_error(hub, repo, newer, waits, call, answer):
    match, act = CALLS[call]
    hub.fail(Fault("status", f"{match}[^/]*$|{match}", ALWAYS, status=200, body=answer))
    try:
        act(newer)
    except CascadezooError as error:
        # A tree of no files is no model.
        assert isinstance(error, HubError) or call == "tree"
        assert error.hint
    else:
        # An object without any statement, or an empty list.
        assert call in ("whoami", "card", "search")


@pytest.mark.parametrize("answer", [a for a in ANSWERS if a != b"{}"])
def test_a_malformed_account_is_a_malformed_answer(hub, repo, newer, waits, answer):
    hub.fail(Fault("status", "whoami", ALWAYS, status=200, body=answer))
    with pytest.raises(HubError) as raised:
        publish_hub(newer, REPO)
    assert raised.value.code in ("hub-unavailable-answer", "hub-refused-value")


VALUES = (None, True, -1, 1.5, "", "\x1b[2J", "../x", [], {}, [[]], {"a": 1}, 10**30, "x" * 5000)


def mutated(rng, data):
    """The data with one value replaced by a strange one."""
    if not data or not isinstance(data, dict | list) or rng.random() < 0.15:
        return rng.choice(VALUES)
    copy = dict(data) if isinstance(data, dict) else list(data)
    key = rng.choice(list(copy)) if isinstance(copy, dict) else rng.randrange(len(copy))
    copy[key] = mutated(rng, copy[key])
    return copy


PATHS = {
    "whoami": "/api/whoami-v2",
    "model_info": f"/api/models/{REPO}?blobs=true",
    "entry": f"/api/models/{REPO}",
    "tree": f"/api/models/{REPO}/tree/main?recursive=true",
    "search": "/api/models?filter=cascadezoo&full=true",
}


@pytest.mark.parametrize("call", PATHS)
def test_one_strange_value_in_an_answer(hub, repo, newer, waits, call):
    import http.client

    connection = http.client.HTTPConnection(hub.url.removeprefix("http://"), timeout=10)
    connection.request("GET", PATHS[call], headers={"Authorization": f"Bearer {hub.token}"})
    true = json.loads(connection.getresponse().read())
    connection.close()
    match, act = CALLS[call]
    rng = random.Random(call)
    for _ in range(25):
        body = json.dumps(mutated(rng, true)).encode()
        hub.fail(Fault("status", match, ALWAYS, status=200, body=body))
        try:
            act(newer)
        except CascadezooError as error:
            assert "\x1b" not in str(error), body
        hub.heal()


# --- the token


def test_a_server_that_echoes_the_token(hub, repo, newer, monkeypatch, capfd):
    token = hub.token
    split = token[:9] + "\u200b" + token[9:]
    whoami = {"name": f"me {token} {split}", "auth": {"accessToken": {"role": "read"}}}
    hub.fail(Fault("status", "whoami", 1, status=200, body=json.dumps(whoami).encode()))
    errors = [f"bad {token}", {"message": " " * 3000 + split}]
    body = json.dumps({"errors": errors}).encode()
    hub.fail(Fault("status", "validate-yaml", 9, status=400, body=body))
    shown = []
    for _ in range(2):
        with pytest.raises(CascadezooError) as raised:
            publish_hub(newer, REPO)
        shown += [str(raised.value), json.dumps(raised.value.to_dict())]
    hub.heal()
    row = {"id": f"org/{token}", "tags": [token, split, f"x:{token}"], "downloads": 1, "likes": 1}
    hub.fail(Fault("status", "/api/models", 1, status=200, body=json.dumps([row]).encode()))
    shown += [json.dumps(r.to_dict()) for r in search("x")]
    assert "***" in shown[0]
    assert "***" in shown[2]
    assert "***" in shown[4]
    captured = capfd.readouterr()
    for text in (*shown, captured.out, captured.err):
        assert token not in text
        assert token[9:] not in text


def test_a_command_never_prints_the_token(hub, files, tmp_path):
    """A server may put it into a file of a model."""
    config = json.loads(files["config.json"])
    config[f"key {hub.token}"] = 1
    card = files["README.md"] + f"\n{hub.token}\n".encode()
    texts = {"config.json": json.dumps(config).encode()}, {"README.md": card}
    shown = ""
    for number, changed in enumerate(texts):
        hub.make_repo(f"org/m{number}", {**files, **changed})
        for argv in (["pull", f"org/m{number}"], ["card", f"hf://org/m{number}", "--print"]):
            for more in ([], ["--json"]) if argv[0] == "pull" else ([],):
                result = run(hub, sys.executable, "-m", "cascadezoo", *argv, *more)
                assert "Traceback" not in result.stderr
                assert hub.token not in result.stdout + result.stderr
                shown += result.stdout + result.stderr
    assert "***" in shown


@pytest.mark.parametrize("place", range(0, 4800, 37))
def test_no_cut_leaves_a_part_of_a_token(hub, place):
    for text in (" " * place + hub.token, "\u200b" * place + hub.token, "a" * place + hub.token):
        shown = remote_text(text)
        assert "wwwww" not in shown


@pytest.mark.parametrize("text", ["a." * 8000, "https://" * 2000, "bearer " * 2000, "a://" * 4000])
def test_scrubbing_takes_linear_time(text):
    began = time.monotonic()
    client.scrub(text * 4, None)
    assert time.monotonic() - began < 5


def test_texts_of_servers_pass_one_function():
    """Only remote_text calls the functions that clean and scrub."""
    for path in sorted(Path(client.__file__).parent.rglob("*.py")):
        module = ast.parse(path.read_text())
        for function in ast.walk(module):
            if not isinstance(function, ast.FunctionDef) or function.name == "remote_text":
                continue
            calls = {
                n.func.id
                for n in ast.walk(function)
                if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
            }
            if path.name != "secrets.py":  # of local files
                assert "clean_remote" not in calls, (path, function.name)


# --- the client itself


def test_limits_hold_in_sessions_that_the_client_opens_later(hub, repo):
    from huggingface_hub import close_session

    with raises(HubError, "hub-answer-too-large"), translated("x"):
        close_session()
        hub.fail(Fault("endless", ".", ALWAYS, status=200))
        hub_api().model_info(REPO)


def test_other_users_of_the_client_are_not_bounded(hub, repo):
    from huggingface_hub import constants, get_session

    with translated("x"):
        hub_api().model_info(REPO)
        assert constants.HF_HUB_DISABLE_XET
    body = gzip.compress(b"[]" + b" " * (20 << 20))
    headers = {"Content-Encoding": "gzip"}
    hub.fail(Fault("status", ".", status=200, headers=headers, body=body))
    assert len(get_session().get(f"{hub.url}/api/models").content) > 20 << 20


def test_a_factory_of_the_user_stays_in_use(hub, repo, monkeypatch):
    from huggingface_hub.utils import _http

    made = []

    def factory():
        made.append(_http.default_client_factory())
        return made[-1]

    monkeypatch.setattr(_http, "_GLOBAL_CLIENT_FACTORY", factory)
    monkeypatch.setattr(_http, "_GLOBAL_CLIENT", None)
    with translated("x"):
        hub_api().model_info(REPO)
    assert len(made) == 1
    hub.fail(Fault("endless", ".", ALWAYS, status=200))
    with raises(HubError, "hub-answer-too-large"), translated("x"):
        hub_api().model_info(REPO)


# --- bytes that are not HTTP


@contextmanager
def server_of(start, more=b""):
    """A server that answers every connection with bytes, the last ones without an end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ended = threading.Event()

        def serve():
            while not ended.is_set():
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    connection.recv(65536)
                    connection.sendall(start)
                    while more and not ended.wait(0.01):
                        connection.sendall(more)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            ended.set()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)


OK = b"HTTP/1.1 200 OK\r\n"
BYTES = {
    "nothing": (b"", b""),
    "no HTTP": (b"TOKEN \x1b[2J\r\n\r\n", b""),
    "a strange status": (b"HTTP/1.1 2TOKEN OK\r\n\r\n", b""),
    "a strange length": (OK + b"Content-Length: TOKEN\r\n\r\n", b""),
    "two lengths": (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", b""),
    "a short body": (OK + b"Content-Length: 50\r\n\r\nTOKEN", b""),
    "strange chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\nTOKEN\r\n", b""),
    "chunks without an end": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "a header without an end": (OK + b"X: ", b"TOKEN"),
    "headers without an end": (OK, b"X: TOKEN\r\n"),
    "100 without an end": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a redirect to itself": (b"HTTP/1.1 302 X\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", b""),
    "a redirect to a file": (b"HTTP/1.1 302 X\r\nLocation: file:///etc/passwd\r\n\r\n", b""),
    "a redirect to nonsense": (b"HTTP/1.1 302 X\r\nLocation: http://[::TOKEN\r\n\r\n", b""),
}


@pytest.mark.parametrize("case", BYTES)
@pytest.mark.parametrize("act", [lambda: search("x"), lambda: locate(REPO)], ids=["search", "pull"])
def test_bytes_that_are_not_http(hub, monkeypatch, case, act):
    monkeypatch.setenv("CASCADEZOO_DEBUG", "1")
    monkeypatch.setenv("CASCADEZOO_HUB_SECONDS", "2")
    monkeypatch.setenv("CASCADEZOO_HUB_PATIENCE", "4")
    start, more = (part.replace(b"TOKEN", hub.token.encode()) for part in BYTES[case])
    began = time.monotonic()
    with server_of(start, more) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        with pytest.raises(HubError) as raised:
            act()
    assert time.monotonic() - began < 30
    assert raised.value.hint
    text = "".join(traceback.format_exception(raised.value))
    assert hub.token not in text
    assert "\x1b" not in text
