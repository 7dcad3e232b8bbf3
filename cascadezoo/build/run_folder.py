"""The run folder of a build: its files, its lock and its state.

```
spec.json      the resolved spec
run.json       the state of the build
events.jsonl   every figure of the training
checkpoints/   the newest checkpoints
best.safetensors   the weights with the best figure, if the spec keeps them
pictures/      samples during the training, if the spec draws them
curves.png     losses, teacher forcing, learning rates
model/         the model folder, as it is published
trackers/      files of trackers, if the build has any
```
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from cascadezoo.errors import CascadezooError, RunFolderError, RunLockedError
from cascadezoo.model_folder.integrity import refuse_bundled
from cascadezoo.model_folder.layout import CONFIG
from cascadezoo.spec import CascadeSpec
from cascadezoo.util.files import check_writable, disk_full, is_leftover, write_atomically

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["RunFolder", "RunState"]

State = Literal["training", "trained", "done"]

STATE = "run.json"
BEST = "best.safetensors"
PICTURES = "pictures"
_OWN = (
    "spec.json",
    STATE,
    "events.jsonl",
    "curves.png",
    "checkpoints",
    BEST,
    PICTURES,
    "model",
    "trackers",
)


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
        self.best = path / BEST
        self.pictures = path / PICTURES
        self.model = path / "model"
        self.spec = path / "spec.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder and lock it for this build.

        Raises:
            InputError: it is inside a model that ships with cascadezoo.
            RunFolderError: it cannot be created or written, or contains something else.
            DiskFullError: the disk is full.
            RunLockedError: another build is using it.
        """
        refuse_bundled(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._refuse_other_content()
            check_writable(self.path)
            lock = FileLock(self.path / ".lock")
            lock.acquire(timeout=0)
        except Timeout:
            raise RunLockedError(
                f"another build is using {self.path}",
                hint="wait for it, stop it, or choose another folder with -o DIR",
                code="locked-build",
                path=self.path,
            ) from None
        except OSError as error:
            raise self._not_writable(error) from error
        try:
            self._remove_leftovers()
            yield
        finally:
            lock.release()

    def state(self) -> RunState | None:
        """Return the content of run.json; None if no build has begun.

        Raises:
            RunFolderError: run.json is damaged.
        """
        path = self.path / STATE
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
        """Write run.json.

        Raises:
            DiskFullError: the disk is full; the file keeps its content.
            RunFolderError: it cannot be written.
        """
        self._write(self.path / STATE, _json(asdict(state)))

    def write_spec(self, spec: CascadeSpec) -> None:
        """Write spec.json.

        Raises:
            DiskFullError: the disk is full; the file keeps its content.
            RunFolderError: it cannot be written.
        """
        self._write(self.spec, spec.to_json().encode())

    def write_picture(self, name: str, image: Image.Image) -> None:
        """Write a PNG file into the folder of pictures.

        Raises:
            DiskFullError: the disk is full.
            RunFolderError: it cannot be written.
        """
        content = io.BytesIO()
        image.save(content, format="PNG")
        try:
            self.pictures.mkdir(exist_ok=True)
        except OSError as error:
            raise self._not_writable(error) from error
        self._write(self.pictures / name, content.getvalue())

    def read_spec(self) -> CascadeSpec | None:
        """Return the spec of spec.json; None if the file is missing or damaged."""
        try:
            return CascadeSpec.model_validate_json(self.spec.read_bytes())
        except (OSError, ValueError):
            return None

    def clear(self, *, keep_state: bool = False) -> None:
        """Remove the files of an earlier build and nothing else.

        Args:
            keep_state: keep run.json, for a new build that replaces it. Without it a folder with
                other files would no longer be a run folder if the build is killed here.
        """
        for name in _OWN:
            if keep_state and name == STATE:
                continue
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
        if old.exists() and not self.model.exists():
            old.rename(self.model)  # a build was killed between the two renames below
        for temporary in (new, old):
            shutil.rmtree(temporary, ignore_errors=True)
        new.mkdir()
        try:
            yield new
            if self.model.exists():
                self.model.rename(old)
            try:
                new.rename(self.model)
            except OSError:
                if old.exists():
                    old.rename(self.model)
                raise
        finally:
            for temporary in (new, old):
                shutil.rmtree(temporary, ignore_errors=True)

    def _refuse_other_content(self) -> None:
        if (self.path / STATE).is_file():
            return
        own = {*_OWN, ".lock", ".model.new", ".model.old"}
        others = [
            p.name for p in self.path.iterdir() if p.name not in own and not is_leftover(p, _OWN)
        ]
        if others or (self.path / CONFIG).is_file():
            raise RunFolderError(
                f"{self.path} is neither a run folder nor empty: it contains {min(others)!r}",
                hint="choose another folder with -o DIR",
                code="run-folder-not-a-run",
                path=self.path,
                found=min(others),
            )

    def _remove_leftovers(self) -> None:
        """Remove the temporary files of killed builds. The lock excludes running ones."""
        for path in self.path.iterdir():
            if is_leftover(path, _OWN):
                path.unlink(missing_ok=True)

    def _write(self, path: Path, content: bytes) -> None:
        try:
            write_atomically(path, content)
        except OSError as error:
            raise self._not_writable(error) from error

    def _not_writable(self, error: OSError) -> CascadezooError:
        return disk_full(error, self.path) or RunFolderError(
            f"cannot write to {self.path}: {error.strerror}",
            hint="choose another folder with -o DIR",
            code="run-folder-not-writable",
            path=self.path,
        )


def _json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()
