"""The campaign ``kill``: a command is killed before each of its file events in turn, then repeated."""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from campaigns.engine import Campaign, die_with_parent
from campaigns.trial import Trial, tail
from campaigns.writers import WRITERS, Writer, check_model, left_over, prepare_run

__all__ = ["Kill"]

_EVENTS = frozenset(
    ["os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"]
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Kill(Campaign):
    """After a kill at any moment the same command ends well, and the model is whole.

    Case N kills the command N modulo their number before its file event N divided by it. After the
    last event the cases begin again, and every second one ends while a file is being written.
    """

    name = "kill"
    seconds = 20.0
    cpu_seconds = 30.0

    def prepare(self, material: Path) -> None:
        prepare_run(material)

    def run(self, trial: Trial) -> None:
        writer = WRITERS[trial.index % len(WRITERS)]
        point = trial.index // len(WRITERS)
        writer.before(trial.material)
        killer = Killer(trial, point)
        events = killer.run(writer)
        if killer.ended_well:  # the command has fewer events than that
            _clear(trial)
            writer.before(trial.material)
            if point // events % 2:
                killer = Killer(trial, None, bytes_of_file=trial.random.randrange(1, 60_000))
            else:
                killer = Killer(trial, point % events)
            killer.run(writer)
        moment = killer.moment
        trial.say(f"{writer.name} killed {moment}")
        if trial.random.random() < 0.3 and writer.had_model:
            trial.command("sample", f"./{writer.model}", "-n", 1, "-o", "one.png", "--quiet")
            Path("one.png").unlink(missing_ok=True)
        again = trial.command(*writer.args)
        if not again.ok:
            cause = f"{writer.name} after a kill ends with {again.code}"
            trial.require(False, cause, f"killed {moment}\n{tail(again.text)}")
            return
        check_model(trial, writer, "after a kill")
        rest = left_over(Path())
        cause = f"{writer.name} after a kill leaves {', '.join(rest)}"
        trial.require(not rest, cause, f"killed {moment}")


class Killer:
    """Runs a command in a process of its own and kills it.

    Args:
        trial: the case.
        point: before which of the file events; None for none.
        bytes_of_file: kill it when a file would get larger than this.
    """

    def __init__(self, trial: Trial, point: int | None, *, bytes_of_file: int = 0) -> None:
        self.trial, self.point, self.bytes_of_file = trial, point, bytes_of_file
        self.moment = "at its end"
        self.ended_well = False
        self._count = 0
        self._pipe = -1

    def run(self, writer: Writer) -> int:
        """Run the command until it is killed or ends; returns how many events there were."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            self._pipe = write
            die_with_parent()
            try:
                self._in_child(writer)
            finally:
                os._exit(1)
        os.close(write)
        with os.fdopen(read, "rb") as file:
            lines = file.read().decode().splitlines()
        _, status = os.waitpid(child, 0)
        self.ended_well = not os.WIFSIGNALED(status)
        events = [line for line in lines if not line.startswith("exit ")]
        if self.bytes_of_file and not self.ended_well:
            self.moment = f"while it writes, after {events[-1] if events else 'nothing'}"
        elif not self.ended_well and events:
            self.moment = f"before {events[-1]}"
        if self.ended_well and "exit 0" not in lines:
            cause = f"{writer.name} does not end well without a kill"
            self.trial.require(False, cause, "\n".join(lines[-3:]))
        return max(1, len(events))

    def _in_child(self, writer: Writer) -> None:
        import safetensors.torch

        if self.bytes_of_file:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.bytes_of_file, -1))
        fsync = os.fsync

        def synced(descriptor: Any) -> None:  # of which there is no audit event
            number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
            self._event(f"fsync {self._shown(str(Path(f'/proc/self/fd/{number}').readlink()))}")
            fsync(descriptor)

        os.fsync = synced
        save = self._before("weights are written", safetensors.torch.serialize_file)
        safetensors.torch.serialize_file = save
        self.trial.watch.events.append(self._audited)
        ran = self.trial.command(*writer.args)
        os.write(self._pipe, f"exit {ran.exit}\n".encode())

    def _audited(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, flags = args[0], args[2]
            if isinstance(path, int) or not isinstance(flags, int) or not flags & _WRITES:
                return
        elif event in _EVENTS:
            path = args[1] if event in ("os.rename", "os.link", "os.symlink") else args[0]
        else:
            return
        if event == "os.mkdir" and Path(os.fsdecode(path)).is_dir():
            return  # nothing happens
        try:
            name = self._shown(os.fsdecode(path))
        except (TypeError, ValueError):
            return
        if not name.startswith(".."):
            self._event(f"{event} {name}")

    def _shown(self, path: str) -> str:
        """A path of the case, the same in each run: without numbers and random letters."""
        name = os.path.relpath(path, self.trial.work)
        return re.sub(r"(?<=\.)[a-z0-9_]{8}(?=\.tmp)|[0-9]+", "N", name)

    def _before(self, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def first(*args: Any, **options: Any) -> Any:
            self._event(what)
            return function(*args, **options)

        return first

    def _event(self, what: str) -> None:
        os.write(self._pipe, what.replace("\n", " ").encode() + b"\n")
        if self._count == self.point:
            os.kill(os.getpid(), signal.SIGKILL)
        self._count += 1


def _clear(trial: Trial) -> None:
    import shutil

    for path in trial.work.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    sys.stdout.flush()
