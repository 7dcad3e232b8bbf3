"""A Hugging Face Hub on 127.0.0.1, for the real client and the real ``hf`` command.

It uses HTTP/1.1 with persistent connections, holds everything in memory, and fails on demand. Use
it through the fixture ``hub`` of ``conftest.py``::

    repo = hub.make_repo("org/name", {"config.json": b"{}"})
    hub.fail(Fault("status", r"POST .*/commit/", status=429, headers={"Retry-After": "1"}))
    subprocess.run([...], env={**os.environ, **hub.env})

LFS files are redirected to ``http://localhost:PORT/cdn/org/name/SHA256/PATH``. Its origin differs
from ``http://127.0.0.1:PORT``, so the client drops its token as it does for the CDN of the Hub.
LFS objects are uploaded to ``http://localhost:PORT/lfs/org/name/SHA256``.

``hub.env`` sets HF_HUB_DISABLE_XET because of huggingface_hub 2.4 with hf-xet 1.8. The preupload
response has only "lfs" and "regular"; the client alone chooses Xet. If hf-xet is installed and not
disabled, ``create_commit`` sends every "lfs" file by Xet and never calls the LFS batch endpoint. A
server without Xet returns 404 for ``/api/models/ID/xet-write-token/REV``, and the client does not
fall back to LFS. ``upload_folder`` and ``hf upload`` may then split a folder into several commits.
With Xet disabled, all three send LFS objects over HTTP and make one commit. Downloads use Xet only
if a response has X-Xet-Hash; this server sends none. The client reads the variable at its import.
"""

from __future__ import annotations

import re
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlsplit

import hub_files  # noqa: F401 - registers its routes
import hub_routes  # noqa: F401 - registers its routes
from hub_call import ROUTES, Call, Reply, as_json
from hub_state import Commit, Fault, HubRefusal, HubState, Repo, Request, User

__all__ = ["Commit", "Fault", "HubRefusal", "LocalHub", "Repo", "Request", "User"]


class _Closed(Exception):
    """Close the connection without a further byte."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "LocalHub"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = 60
    server: _Server

    def log_message(self, *_: object) -> None:
        """Log nothing; the requests are recorded instead."""

    def do_GET(self) -> None:
        try:
            self._answer()
        except (_Closed, ConnectionError, TimeoutError):
            self.close_connection = True

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    def _answer(self) -> None:
        state = self.server.state
        headers = {k.lower(): v for k, v in self.headers.items()}
        request = Request(self.command, self.path, headers)
        with state.lock:
            state.requests.append(request)
            matches = [h for h in state.hooks if re.search(h[0], str(request))]
            state.hooks = [h for h in state.hooks if h not in matches]
            for _, action in matches:
                action()
        cut = state.take(request, "cut")
        upload = self.command in ("POST", "PUT", "PATCH")
        body = self._read_body(cut.after_bytes if cut is not None and upload else None)
        request.size = len(body)
        if self.command != "PUT":
            request.body = body
        if cut is not None and (upload or self.command == "HEAD"):
            raise _Closed
        malice = state.take(request, "endless", "drip")
        if malice is not None:
            self._send_endlessly(request, malice)
        reply = self._reply(Call(state, request, None, body))
        if state.take(request, "lost-response") is not None:
            raise _Closed
        self._send(request, reply, cut)

    def _reply(self, call: Call) -> Reply:
        state, request = call.state, call.request
        fault = state.take(request, "status")
        if fault is not None:
            reply = as_json({"error": f"Injected fault {fault.status}"}, fault.status)
            if fault.body is not None:
                reply = Reply(fault.body, fault.status, {"Content-Type": "text/html"})
            reply.headers |= fault.headers
            return reply
        try:
            with state.lock:
                reply = self._routed(call)
        except HubRefusal as refusal:
            reply = as_json({"error": refusal.message, **refusal.fields}, refusal.status)
            reply.headers |= {"X-Error-Message": refusal.message, **refusal.headers}
            if refusal.code is not None:
                reply.headers["X-Error-Code"] = refusal.code
        changed = state.take(request, "headers")
        if changed is not None:
            reply.headers |= changed.headers
        return reply

    def _send_endlessly(self, request: Request, fault: Fault) -> None:
        """Send more and more until the client or the test ends it."""
        lines = [f"HTTP/1.1 {fault.status} X", *(f"{k}: {v}" for k, v in fault.headers.items())]
        head = "\r\n".join([*lines, "Connection: close"])
        in_body = fault.kind == "endless" or fault.after_bytes > 0
        self.wfile.write(f"{head}\r\n{'' if in_body else 'X-Slow: '}".encode())
        self.wfile.write(b"\r\n" if in_body else b"")
        self.wfile.flush()
        more = fault.body or b"x" * (1 if fault.kind == "drip" else 1 << 16)
        while not self.server.ending.wait(fault.seconds if fault.kind == "drip" else 0):
            self.wfile.write(more)
            self.wfile.flush()
            request.sent += len(more)
        raise _Closed

    def _routed(self, call: Call) -> Reply:
        bearer = call.request.headers.get("authorization", "").removeprefix("Bearer ")
        if bearer:
            call.user = call.state.users.get(bearer)
            if call.user is None:
                raise HubRefusal(401, "Invalid credentials in Authorization header")
            call.request.user = call.user.name
        path = urlsplit(call.request.path).path
        for method, pattern, function in ROUTES:
            if method == call.request.method and (match := pattern.fullmatch(path)):
                return function(call, *match.groups())
        raise HubRefusal(404, "Sorry, we can't find the page you are looking for.")

    def _read_body(self, at_most: int | None) -> bytes:
        """The body of the request, or its first bytes."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                body += self.rfile.read(size)
                self.rfile.readline()
                if at_most is not None and len(body) >= at_most:
                    return body[:at_most]
            self.rfile.readline()
            return body
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size if at_most is None else min(size, at_most))
        if at_most is None and len(body) < size:
            raise _Closed  # the client disconnected; discard the partial body
        return body

    def _send(self, request: Request, reply: Reply, cut: Fault | None) -> None:
        state, body = self.server.state, reply.body
        if reply.file and body and self.command == "GET":
            flip = state.take(request, "flip")
            if flip is not None:
                at = min(flip.after_bytes, len(body) - 1)
                body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        slow = state.take(request, "slow")
        if slow is not None and slow.after_bytes == 0:
            self.server.ending.wait(slow.seconds)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value.encode("ascii", "replace").decode())
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            body = b""
        if cut is not None:
            self.wfile.write(body[: min(cut.after_bytes, max(0, len(body) - 1))])
            self.wfile.flush()
            raise _Closed
        start = 0
        if slow is not None and slow.after_bytes > 0:
            start = min(slow.after_bytes, len(body))
            self.wfile.write(body[:start])
            self.wfile.flush()
            self.server.ending.wait(slow.seconds)
        request.status = reply.status
        self.wfile.write(body[start:])
        self.wfile.flush()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, state: HubState) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.state = state
        self.ending = threading.Event()
        self.errors: list[BaseException] = []
        self.open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, *_: object) -> None:
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError | TimeoutError):
            self.errors.append(error)


class LocalHub:
    """The running server.

    Attributes:
        url: ``http://127.0.0.1:PORT``.
        env: the variables for a subprocess, in addition to ``os.environ``.
        token: of ``tester``, who may write everywhere except in ``state.foreign`` ("foreign").
        read_token: a read-only token of ``tester``.
        other_token: of ``stranger``, who owns only the namespace ``stranger``.
        repos: the repos by id.
        requests: all requests since the start or :meth:`clear`, oldest first.
        fired: the faults that occurred, each with its request.
        errors: exceptions in the server; the fixture requires none.
    """

    token = "hf_" + "w" * 34
    read_token = "hf_" + "r" * 34
    other_token = "hf_" + "o" * 34

    def __init__(self, home: Path) -> None:
        self.home = home
        self.state = HubState(
            users={
                self.token: User("tester"),
                self.read_token: User("tester", write=False),
                self.other_token: User("stranger"),
            }
        )
        self._server = _Server(self.state)
        port = self._server.server_address[1]
        self.url = self.state.url = f"http://127.0.0.1:{port}"
        self.state.cdn = f"http://localhost:{port}"
        self.env = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_TOKEN": self.token,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    def __enter__(self) -> LocalHub:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.ending.set()
        self._server.shutdown()
        for connection in list(self._server.open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the client has closed it
        self._server.server_close()
        self._thread.join()

    @property
    def repos(self) -> dict[str, Repo]:
        return self.state.repos

    @property
    def requests(self) -> list[Request]:
        return self.state.requests

    @property
    def fired(self) -> list[tuple[Fault, Request]]:
        return self.state.fired

    @property
    def errors(self) -> list[BaseException]:
        return self._server.errors

    def clear(self) -> None:
        """Clear the requests and the faults that occurred; keep repos and pending faults."""
        with self.state.lock:
            self.state.requests.clear()
            self.state.fired.clear()

    def seen(self, match: str) -> list[Request]:
        """The requests whose ``METHOD path`` matches a regular expression."""
        with self.state.lock:
            return [r for r in self.state.requests if re.search(match, str(r))]

    def fail(self, fault: Fault) -> None:
        """Inject a fault into the next matching requests; see :class:`Fault`."""
        re.compile(fault.match)
        with self.state.lock:
            self.state.faults.append((fault, fault.times))

    def heal(self) -> None:
        """Remove the pending faults and the actions of :meth:`before`."""
        with self.state.lock:
            self.state.faults.clear()
            self.state.hooks.clear()

    def before(self, match: str, action: Callable[[], object]) -> None:
        """Run an action once, just before the next matching request is processed.

        ``hub.before(r"POST .*/commit/", lambda: repo.commit({"README.md": b"mine"}))`` simulates a
        concurrent commit.
        """
        with self.state.lock:
            self.state.hooks.append((match, action))

    def make_repo(
        self,
        repo_id: str,
        files: Mapping[str, bytes] | None = None,
        *,
        private: bool = False,
        gated: Literal[False, "auto", "manual"] = False,
        branches: tuple[str, ...] = (),
        tags: tuple[str, ...] = (),
        message: str = "commit",
    ) -> Repo:
        """Create a repo as on the Hub: an initial commit with .gitattributes, then the files.

        Args:
            repo_id: ``org/name``.
            files: contents by path. Files that match .gitattributes, are binary or are larger than
                10 MiB are LFS files.
            branches, tags: names for the last commit.
        """
        with self.state.lock:
            repo = self.state.make(repo_id, private=private)
            repo.gated = gated
            if files:
                repo.commit(files, message=message)
            for name in branches:
                repo.branches[name] = repo.head().oid
            for name in tags:
                repo.tags[name] = repo.head().oid
        return repo
