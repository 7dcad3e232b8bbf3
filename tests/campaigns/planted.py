"""Planted faults: the harness must report each of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from campaigns.engine import Campaign
from campaigns.trial import SECRET, Ran, Trial

__all__ = ["FAULTS", "Planted"]


def _traceback(trial: Trial) -> None:
    import cascadezoo.spec

    def broken(*_: object, **__: object) -> object:
        raise KeyError("planted")

    cascadezoo.spec.load_spec = broken  # type: ignore[assignment]
    trial.command("validate", "shapes-tiny")


def _printed(trial: Trial) -> None:
    _do(trial, lambda: print("Traceback (most recent call last):\nKeyError: planted"))


def _dies(trial: Trial) -> None:
    _do(trial, lambda: os.abort())


def _hangs(trial: Trial) -> None:
    _do(trial, lambda: time.sleep(60))


def _busy(trial: Trial) -> None:
    def work() -> None:
        end = time.process_time() + 1.5
        while time.process_time() < end:
            pass

    _do(trial, work)


def _grows(trial: Trial) -> None:
    _do(trial, lambda: bytearray(os.urandom(1 << 20) * 80) and None)


def _asks_too_much(trial: Trial) -> None:
    _do(trial, lambda: bytearray(8 << 30) and None)


def _opens(trial: Trial) -> None:
    (trial.outside / "secret").write_text("x")
    (trial.work / "link").symlink_to(trial.outside / "secret")
    _do(trial, lambda: Path("link").read_text() and None)


def _lists(trial: Trial) -> None:
    _do(trial, lambda: list(trial.outside.iterdir()) and None)


def _writes(trial: Trial) -> None:
    _do(trial, lambda: (trial.folder / "elsewhere").mkdir())


def _opens_from_rust(trial: Trial) -> None:
    import safetensors
    from campaigns.material import safetensors as made

    (trial.outside / "w.safetensors").write_bytes(made({}))

    def action() -> None:
        with safetensors.safe_open(str(trial.outside / "w.safetensors"), "np") as file:
            file.keys()

    _do(trial, action)


def _wrong_exit(trial: Trial) -> None:
    _do(trial, lambda: None, exit_code=3)


def _unknown_code(trial: Trial) -> None:
    _do(trial, lambda: None, exit_code=2, code="no-such-code")


def _shows(trial: Trial) -> None:
    _do(trial, lambda: print(SECRET))


def _wrong_result(trial: Trial) -> None:
    trial.require(2 + 2 == 5, "two and two are five")


def _harness(trial: Trial) -> None:
    raise ValueError("a fault of the campaign")


def _clean(trial: Trial) -> None:
    trial.command("validate", "shapes-tiny")


def _refused(trial: Trial) -> None:
    trial.command("validate", "no-such-spec")


FAULTS: tuple[tuple[Callable[[Trial], None], str], ...] = (
    (_traceback, "internal"),
    (_printed, "traceback"),
    (_dies, "traceback"),
    (_hangs, "time"),
    (_busy, "time"),
    (_grows, "memory"),
    (_asks_too_much, "memory"),
    (_opens, "opened"),
    (_lists, "opened"),
    (_writes, "opened"),
    (_opens_from_rust, "opened"),
    (_wrong_exit, "exit"),
    (_unknown_code, "exit"),
    (_shows, "wrong"),
    (_wrong_result, "wrong"),
    (_harness, "harness"),
    (_clean, "clean"),
    (_refused, "refused"),
)
"""What a case does, and the kind of finding (or the verdict) that it must give."""


class Planted(Campaign):
    """Case N has the fault N of :data:`FAULTS`."""

    name = "planted"
    seconds = 2.0
    cpu_seconds = 1.0
    memory = 64 << 20

    def run(self, trial: Trial) -> None:
        fault, kind = FAULTS[trial.index % len(FAULTS)]
        trial.say(f"{fault.__name__.strip('_')}: {kind}")
        fault(trial)


def _do(
    trial: Trial, action: Callable[[], object], *, exit_code: int = 0, code: str | None = None
) -> None:
    """Do something as if a command did it."""

    def run() -> Ran:
        start = trial.output.stat().st_size
        try:
            action()
        except MemoryError as error:
            return Ran(("planted",), 1, "memory", repr(error))
        return Ran(("planted",), exit_code, code, trial.output.read_text()[start:])

    trial.watched("planted", run)
