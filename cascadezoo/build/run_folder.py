"""The run folder of a build: its files, its lock and its state.

```
spec.json      the resolved spec
run.json       the state of the build
events.jsonl   every figure of the training
checkpoints/   the newest checkpoints
curves.png     losses, teacher forcing, learning rates
model/         the model folder, as it is published
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
    """The folder of one build.

    Args:
        path: the folder; :meth:`locked` creates it.
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
        """Create the folder and lock it for this build.

        Raises:
            InputError: it is inside a model that ships with cascadezoo.
            RunFolderError: it cannot be created or written, or contains something else.
            RunLockedError: another build is using it.
        """
        refuse_bundled(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._refuse_other_content()
            probe = self.path / f".write-test.{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise RunFolderError(
                f"cannot write to {self.path}: {error.strerror}",
                hint="choose another folder with -o DIR",
                code="run-folder-not-writable",
                path=self.path,
            ) from error
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunLockedError(
                f"another build is using {self.path}",
                hint="wait for it, stop it, or choose another folder with -o DIR",
                code="locked-build",
                path=self.path,
            ) from None
        try:
            yield
        finally:
            lock.release()

    def state(self) -> RunState | None:
        """Return the content of run.json; None if no build has begun.

        Raises:
            RunFolderError: run.json is damaged.
        """
        path = self.path / "run.json"
        try:
            return RunState(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise RunFolderError(
                f"{path} is damaged: {error}",
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
        """Remove the files of an earlier build and nothing else."""
        for name in _OWN:
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    @contextmanager
    def new_model(self) -> Iterator[Path]:
        """Yield a temporary folder that replaces ``model/`` when the block succeeds."""
        new = self.path / ".model.new"
        old = self.path / ".model.old"
        for temporary in (new, old):
            shutil.rmtree(temporary, ignore_errors=True)
        new.mkdir()
        try:
            yield new
            if self.model.exists():
                self.model.rename(old)
            new.rename(self.model)
        finally:
            for temporary in (new, old):
                shutil.rmtree(temporary, ignore_errors=True)

    def _refuse_other_content(self) -> None:
        if (self.path / "run.json").is_file():
            return
        own = {*_OWN, ".lock", ".model.new", ".model.old"}
        others = [p.name for p in self.path.iterdir() if p.name not in own]
        if others or (self.path / CONFIG).is_file():
            raise RunFolderError(
                f"{self.path} is neither a run folder nor empty: it contains {min(others)!r}",
                hint="choose another folder with -o DIR",
                code="run-folder-not-a-run",
                path=self.path,
                found=min(others),
            )


def _json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()
