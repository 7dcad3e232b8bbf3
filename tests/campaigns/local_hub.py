"""A local Hub in the process of a case, a clock that does not wait, and what holds after a fault."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from campaigns.trial import Ran, Trial, tail
from hub_server import LocalHub

__all__ = ["REPO", "Clock", "check_token", "command", "local_hub", "prepare_models", "read_files"]

REPO = "org/lone"
LONGEST = {"publish": 75.0, "pull": 240.0, "sample": 240.0}
"""Seconds by the clock of the case after which a command must have given up."""


class Clock:
    """Sleeping takes no time, but the clock goes on by it."""

    def __init__(self) -> None:
        self.offset = 0.0
        self._sleep, self._monotonic, self._time = time.sleep, time.monotonic, time.time

    def install(self) -> None:
        """Let this process live by this clock."""
        time.sleep = self.sleep
        time.monotonic = lambda: self._monotonic() + self.offset
        time.time = lambda: self._time() + self.offset

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        until = self.offset + seconds
        self._sleep(min(seconds, 0.005))  # in which threads that sleep at once meet
        self.offset = max(self.offset, until)


def prepare_models(material: Path) -> None:
    """Two versions of a small model."""
    from push_cases import new, old, write

    write(old(), material / "old")
    write(new(), material / "new")


def read_files(folder: Path) -> dict[str, bytes]:
    """The files of a model folder."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@contextmanager
def local_hub(trial: Trial) -> Iterator[tuple[LocalHub, Clock]]:
    """A Hub on 127.0.0.1 of this case's own."""
    from huggingface_hub import close_session, constants

    home = trial.home / "hf"
    clock = Clock()
    with LocalHub(home) as hub:
        os.environ |= hub.env
        constants.HF_HUB_DISABLE_XET = True
        constants.HF_HUB_DOWNLOAD_TIMEOUT = 2
        constants.HF_HUB_ETAG_TIMEOUT = 2
        close_session()
        clock.install()
        yield hub, clock
        for error in hub.errors:
            trial.find("harness", f"{type(error).__name__} in the local Hub", repr(error))


def command(trial: Trial, clock: Clock, *args: object, longest: float | None = None) -> Ran:
    """Run a command and judge how long it waited, by the clock of the case."""
    before = clock.offset
    ran = trial.command(*args)
    waited = clock.offset - before
    name = ran.args[0]
    limit = longest or LONGEST[name]
    if waited > limit:
        trial.running = str(ran)
        trial.find("time", f"{name} waits over {limit:.0f} s", f"{waited:.0f} s\n{tail(ran.text)}")
        trial.running = ""
    return ran


def check_token(trial: Trial, ran: Ran, token: str) -> None:
    """The token is neither printed nor written, and nothing lies outside of the cache."""
    name = ran.args[0]
    trial.require(
        token not in ran.text, f"{name} prints the token", tail(ran.text.replace(token, "TOKEN"))
    )
    size = 0
    for path in (*trial.home.rglob("*"), *trial.work.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        size += path.stat().st_size
        if path.stat().st_size < 16 << 20 and token.encode() in path.read_bytes():
            trial.find("wrong", f"{name} writes the token into a file", path.name)
    known = {"hf", "tmp", "xdg", "cascadezoo", "data", "torch", "matplotlib"}
    strange = [p.name for p in trial.home.iterdir() if p.name not in known]
    strange += [p.name for p in trial.work.iterdir() if p.name not in ("copy", "model", "one.png")]
    trial.require(not strange, f"{name} writes outside of the cache", ", ".join(strange))
    trial.require(size < 400 << 20, f"{name} writes whatever a server sends", f"{size:,} bytes")
