"""The campaign ``server``: an endpoint that lies, floods, drips and echoes the token."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hub_server
from campaigns.engine import Campaign
from campaigns.hub import PULLS
from campaigns.local_hub import (
    REPO,
    Clock,
    check_token,
    command,
    local_hub,
    prepare_models,
    read_files,
)
from campaigns.mutate import change, to_json, words
from campaigns.trial import Trial, tail
from hub_call import Reply

__all__ = ["Server"]

FLOOD = 1280 << 20
_BLOCK = 1 << 20
SLOWEST = 240.0
"""Seconds, by the clock of the case, for a command whose answers drip."""
DRIP = 600.0
"""Seconds, by the clock of the case, for which a server drips at most."""
MATCHES = (
    *("GET /api/models/", "HEAD .*resolve", "GET .*resolve", "resolve.*config.json", "cdn"),
    *("resolve.*safetensors", "README", "metrics.json", "samples.png", ""),
)
PUBLISH_MATCHES = (
    "whoami",
    "POST .*preupload",
    "batch",
    "POST .*commit",
    "create",
    "PUT",
    "verify",
    "",
)


class Server(Campaign):
    """Whatever a server answers: bounded memory and time, no token shown, only the cache written."""

    name = "server"
    seconds = 20.0
    memory = 512 << 20

    def prepare(self, material: Path) -> None:
        prepare_models(material)

    def run(self, trial: Trial) -> None:
        random = trial.random
        old = read_files(trial.material / "old")
        with local_hub(trial) as (hub, clock):
            hub.make_repo(REPO, old)
            args: tuple[object, ...] = random.choice(PULLS)
            publishes = random.random() < 0.35
            if publishes:
                shutil.copytree(trial.material / "new", "model")
                args = ("publish", "./model", REPO)
            name = random.choice(sorted(LIES))
            matches = PUBLISH_MATCHES + MATCHES[:3] if publishes else MATCHES
            lie = _Lie(trial, clock, random.choice(matches), random.choice([1, 2, 10_000]), hub)
            act, detail = LIES[name](lie)
            lie.act = act
            lie.install()
            trial.say(
                f"{args[0]}: {name} {detail} at {lie.match or 'any'} x{lie.times}".replace(
                    str(trial.folder), "CASE"
                )
            )
            # A drip is neither a stall nor a failure: it ends at the call's own time limit.
            ran = command(trial, clock, *args, longest=SLOWEST if name == "drip" else None)
            check_token(trial, ran, hub.token)
            copy = Path("copy")
            if ran.ok and copy.is_dir():
                same = read_files(copy) == old
                trial.require(same, f"pull ends well with wrong bytes: {name}")
            lie.times, lie.over = 0, True
            again = command(trial, clock, *args)
            cause = f"{args[0]} after a lie ({name}) ends with {again.code}"
            trial.require(again.ok, cause, tail(again.text))


@dataclass
class _Lie:
    """What the server does instead of the answer, and with which requests."""

    trial: Trial
    clock: Clock
    match: str
    times: int
    hub: Any
    act: Callable[[Any, Any, Reply], bool] = lambda *_: False
    over: bool = False
    """Whether an answer that is still being sent must end."""

    def install(self) -> None:
        """Take the place of what sends answers."""
        send = hub_server._Handler._send
        lie = self

        def sent(handler: Any, request: Any, reply: Reply, cut: Any) -> None:
            if lie.times > 0 and re.search(lie.match, str(request)):
                lie.times -= 1
                if lie.act(handler, request, reply):
                    raise hub_server._Closed
            send(handler, request, reply, cut)

        hub_server._Handler._send = sent


Act = tuple[Callable[[Any, Any, Reply], bool], str]


def header(lie: _Lie) -> Act:
    random = lie.trial.random
    name = random.choice(
        [
            "ETag",
            "ETag",
            "X-Linked-Etag",
            "X-Linked-Etag",
            "X-Repo-Commit",
            "X-Repo-Commit",
            "X-Linked-Size",
            "Location",
            "Link",
            "Content-Range",
            "X-Xet-Hash",
            "Content-Type",
        ]
    )
    value = random.choice(
        [
            f"{lie.trial.outside}/x",
            "../../x",
            '"../../../../../x"',
            f'"{lie.trial.outside}/y"',
            "",
            "x" * 3000,
            "-1",
            "9" * 30,
            'W/"a"',
            "a/b",
            "..",
            ".",
            "%2e%2e%2f",
            "main",
            "0" * 40,
            "~/x",
            "\\..\\x",
            "file:///etc/hostname",
            "http://localhost:1/",
            "NUL",
            "\t",
            "é",
        ]
    )

    def act(handler: Any, request: Any, reply: Reply) -> bool:
        reply.headers[name] = value
        return False

    return act, f"{name}: {value[:60]}"


def document(lie: _Lie) -> Act:
    random = lie.trial.random

    def act(handler: Any, request: Any, reply: Reply) -> bool:
        try:
            data = json.loads(reply.body)
            change(random, data)
            reply.body = to_json(random, data).encode("utf-8", "replace")
        except (ValueError, IndexError, TypeError, KeyError):
            reply.body = words(random, reply.body.decode(errors="replace") or "{}").encode(
                "utf-8", "replace"
            )
        return False

    return act, "another JSON"


def body(lie: _Lie) -> Act:
    random = lie.trial.random
    content = random.choice(
        [
            b"",
            b"null",
            b"[]",
            b"{}",
            b"1",
            b'"x"',
            b"{",
            b"\xff" * 100,
            b"[" * 100000,
            b"NaN",
            b"<html>",
            b'{"name": null}',
            b'{"sha": "../../x"}',
            b'{"siblings": [{"rfilename": "../../x"}]}',
        ]
    )

    def act(handler: Any, request: Any, reply: Reply) -> bool:
        reply.body = content
        return False

    return act, repr(content[:30])


def status(lie: _Lie) -> Act:
    code = lie.trial.random.choice(
        [100, 199, 201, 204, 206, 301, 304, 307, 308, 400, 418, 499, 599, 999]
    )
    where = lie.trial.random.choice(["/", "http://localhost:1/x", "file:///etc/hostname", "//", ""])

    def act(handler: Any, request: Any, reply: Reply) -> bool:
        reply.status = code
        reply.headers["Location"] = where
        return False

    return act, f"{code} {where}"


def flood(lie: _Lie) -> Act:
    """A body without an end, in one of three framings."""
    framing = lie.trial.random.choice(["closed", "chunked", "length"])

    def act(handler: Any, request: Any, reply: Reply) -> bool:
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        if framing == "chunked":
            handler.send_header("Transfer-Encoding", "chunked")
        elif framing == "length":
            handler.send_header("Content-Length", str(1 << 40))
        else:
            handler.send_header("Connection", "close")
        handler.end_headers()
        block = b" " * _BLOCK
        for _ in range(FLOOD // _BLOCK if handler.command != "HEAD" else 0):
            if framing == "chunked":
                handler.wfile.write(b"%x\r\n" % len(block))
            handler.wfile.write(block + (b"\r\n" if framing == "chunked" else b""))
        handler.wfile.flush()
        return True

    return act, framing


def packed(lie: _Lie) -> Act:
    """A small body that unpacks to a large one."""
    whole = lie.trial.random.random() < 0.5

    def act(handler: Any, request: Any, reply: Reply) -> bool:
        import zlib

        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        start = packer.compress(reply.body if whole else b"") + packer.flush(zlib.Z_FULL_FLUSH)
        zeros = packer.compress(b" " * (32 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
        count = FLOOD // (32 << 20)
        handler.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Encoding": "gzip"}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(start) + len(zeros) * count))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(start)
            for _ in range(count):
                handler.wfile.write(zeros)
        handler.wfile.flush()
        return True

    return act, "gzip"


def encoded(lie: _Lie) -> Act:
    """The true body under an encoding, true or not."""
    name = lie.trial.random.choice(["gzip", "deflate", "br", "zstd", "gzip, gzip", "x"])

    def act(handler: Any, request: Any, reply: Reply) -> bool:
        reply.headers["Content-Encoding"] = name
        if name == "gzip" and handler.command != "HEAD":
            reply.body = gzip.compress(reply.body)
        return False

    return act, name


def drip(lie: _Lie) -> Act:
    """A byte each second."""
    clock = lie.clock

    def act(handler: Any, request: Any, reply: Reply) -> bool:
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(max(len(reply.body), 100_000)))
        handler.end_headers()
        content = reply.body + b" " * 100_000
        end = clock.offset + DRIP
        at = 0
        while handler.command != "HEAD" and clock.offset < end and not lie.over:
            handler.wfile.write(content[at : at + 1])
            handler.wfile.flush()
            clock.sleep(1.0)
            at += 1
        return True

    return act, ""


def stall(lie: _Lie) -> Act:
    """Some bytes, then none."""
    count = lie.trial.random.choice([0, 1, 1000])

    def act(handler: Any, request: Any, reply: Reply) -> bool:
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(reply.body) + 1))
        handler.end_headers()
        handler.wfile.write(reply.body[:count])
        handler.wfile.flush()
        handler.server.ending.wait(5.0)  # real seconds: the client's timeout is 2
        return True

    return act, f"after {count} bytes"


def echo(lie: _Lie) -> Act:
    """The token comes back in whatever is shown of an answer."""
    random = lie.trial.random
    code = random.choice([400, 401, 403, 404, 409, 412, 413, 422, 429, 500, 503, 200])
    place = random.choice(["message", "body", "json", "code", "request-id", "location", "repo"])

    def act(handler: Any, request: Any, reply: Reply) -> bool:
        text = f"Bearer {lie.hub.token} is {request.headers.get('authorization', 'missing')}"
        reply.status = code
        if place == "message":
            reply.headers["X-Error-Message"] = text
        elif place == "body":
            reply.body = text.encode()
        elif place == "json":
            reply.body = json.dumps(
                {"error": text, "errors": [{"message": text}], "sha": text}
            ).encode()
        elif place == "code":
            reply.headers["X-Error-Code"] = text
        elif place == "request-id":
            reply.headers["x-request-id"] = lie.hub.token
        elif place == "location":
            reply.headers["Location"] = f"/{lie.hub.token}"
        else:
            reply.body = json.dumps(
                {"id": text, "name": text, "commitOid": text, "commitUrl": text}
            ).encode()
            reply.status = 200
        return False

    return act, f"{place} {code}"


LIES: dict[str, Callable[[_Lie], Act]] = {
    f.__name__: f
    for f in (header, document, body, status, flood, packed, encoded, drip, stall, echo)
}
