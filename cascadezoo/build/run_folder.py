"""The run folder: what a build writes, its lock and its state.

```
spec.json      the resolved spec
run.json       what is being built here, and how far it is
events.jsonl   every figure of the training
checkpoints/   the newest checkpoints
curves.png     losses, teacher forcing, learning rates
model/         the model folder, exactly what is published
```
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from cascadezoo.errors import RunFolderError, RunLockedError
from cascadezoo.model_folder.integrity import refuse_bundled
from cascadezoo.model_folder.layout import CONFIG
from cascadezoo.spec import CascadeSpec
from cascadezoo.util.files import write_atomically

__all__ = ["RunFolder", "RunState"]

State = Literal["training", "trained", "done"]

_OWN = ("spec.json", "run.json", "events.jsonl", "curves.png", "checkpoints", "model")


@dataclass(frozen=True, slots=True)
class RunState:
    """The content of run.json."""

    name: str
    training_digest: str
    spec_digest: str
    state: State
    cascadezoo_version: str
    device: str = ""
    precision: str = ""
    format: int = 1


class RunFolder:
    """A folder that one build at a time writes to.

    Args:
        path: made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events = path / "events.jsonl"
        self.checkpoints = path / "checkpoints"
        self.curves = path / "curves.png"
        self.model = path / "model"
        self.spec = path / "spec.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this build.

        Raises:
            InputError: it is inside a model that ships with cascadezoo.
            RunFolderError: it cannot be made or written to.
            RunLockedError: another build is at work in it.
        """
        refuse_bundled(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._refuse_strangers()
            probe = self.path / f".write-test.{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise RunFolderError(
                f"{self.path} cannot be written: {error.strerror}",
                hint="choose another folder with -o DIR",
                code="run-folder-not-writable",
                path=self.path,
            ) from error
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunLockedError(
                f"another build is at work in {self.path}",
                hint="wait for it, stop it, or choose another folder with -o DIR",
                code="locked-build",
                path=self.path,
            ) from None
        try:
            yield
        finally:
            lock.release()

    def state(self) -> RunState | None:
        """What run.json says; None where nothing was begun.

        Raises:
            RunFolderError: run.json cannot be understood.
        """
        path = self.path / "run.json"
        try:
            return RunState(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise RunFolderError(
                f"{path} cannot be understood: {error}",
                hint="start over with --fresh",
                code="run-folder-damaged",
                path=path,
            ) from error

    def write_state(self, state: RunState) -> None:
        """Write run.json."""
        write_atomically(self.path / "run.json", _json(asdict(state)))

    def write_spec(self, spec: CascadeSpec) -> None:
        """Write spec.json."""
        write_atomically(self.spec, spec.to_json().encode())

    def clear(self) -> None:
        """Remove what an earlier build made here, and nothing else."""
        for name in _OWN:
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    @contextmanager
    def new_model(self) -> Iterator[Path]:
        """A folder to write the model into, put in the place of ``model/`` when it is whole."""
        made = self.path / ".model.new"
        old = self.path / ".model.old"
        for rest in (made, old):
            shutil.rmtree(rest, ignore_errors=True)
        made.mkdir()
        try:
            yield made
            if self.model.exists():
                self.model.rename(old)
            made.rename(self.model)
        finally:
            for rest in (made, old):
                shutil.rmtree(rest, ignore_errors=True)

    def _refuse_strangers(self) -> None:
        if (self.path / "run.json").is_file():
            return
        own = {*_OWN, ".lock", ".model.new", ".model.old"}
        others = [p.name for p in self.path.iterdir() if p.name not in own]
        if others or (self.path / CONFIG).is_file():
            raise RunFolderError(
                f"{self.path} is not a run folder, and it is not empty: there is {min(others)!r}",
                hint="choose another folder with -o DIR",
                code="run-folder-not-a-run",
                path=self.path,
                found=min(others),
            )


def _json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()
