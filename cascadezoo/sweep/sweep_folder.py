"""The folder of a sweep: its identity, its lock, and the state of its cells.

```
sweep.json     the sweep as written, and the training digest of each cell
state.json     cells that failed or were stopped, with the reason
specs/         the resolved spec of each cell
cells/NAME/    the run folder of each cell, and NAME.log: the output of its builds
results.json, results.csv, RESULTS.md, results.html, plots/
```
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from cascadezoo.build.run_folder import RunFolder
from cascadezoo.errors import RunFolderError, RunLockedError
from cascadezoo.model_folder.integrity import refuse_bundled
from cascadezoo.sweep.cells import Cell, Sweep
from cascadezoo.util.files import disk_full, is_leftover, write_atomically

__all__ = ["CellNote", "SweepFolder"]

SWEEP = "sweep.json"
STATE = "state.json"
RESULTS = ("results.json", "results.csv", "RESULTS.md", "results.html")

_OWN = (SWEEP, STATE, *RESULTS, "specs", "plots", ".stop")


@dataclass(frozen=True, slots=True)
class CellNote:
    """The state of a cell that is not done.

    Args:
        state: ``failed`` or ``stopped``.
        error: the reason.
        digest: digest of the cell's spec.
    """

    state: Literal["failed", "stopped"]
    error: str | None
    digest: str


class SweepFolder:
    """A folder that one sweep at a time writes to.

    Args:
        path: the folder; created when the sweep starts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stop_file = path / ".stop"

    def run(self, cell: str) -> RunFolder:
        """The run folder of a cell."""
        return RunFolder(self.path / "cells" / cell)

    def log(self, cell: str) -> Path:
        """The output of the builds of a cell."""
        return self.path / "cells" / f"{cell}.log"

    def spec(self, cell: str) -> Path:
        """The spec of a cell."""
        return self.path / "specs" / f"{cell}.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder for this sweep.

        Raises:
            InputError: it is inside a model that ships with cascadezoo.
            RunFolderError: it is not writable, or not a sweep's folder.
            RunLockedError: another sweep is running in it.
        """
        refuse_bundled(self.path)
        self.refuse_strangers()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            lock.acquire(timeout=0)
        except Timeout:
            raise RunLockedError(
                f"another sweep is running in {self.path}",
                hint="wait for it, stop it, or choose another folder with -o DIR",
                code="locked-sweep",
                path=self.path,
            ) from None
        except OSError as error:
            raise disk_full(error, self.path) or RunFolderError(
                f"cannot write {self.path}: {error.strerror or error}",
                hint="choose another folder with -o DIR",
                code="run-folder-not-writable",
                path=self.path,
            ) from error
        try:
            for path in self.path.iterdir():
                if is_leftover(path, _OWN):
                    path.unlink(missing_ok=True)
            yield
        finally:
            lock.release()

    def refuse_strangers(self) -> None:
        """Check that the folder is a sweep's folder, is empty, or does not exist.

        Raises:
            RunFolderError: it contains other files.
        """
        if not self.path.exists() or (self.path / SWEEP).is_file():
            return
        if not self.path.is_dir():
            raise RunFolderError(
                f"{self.path} is a file",
                hint="choose a folder with -o DIR",
                code="run-folder-is-file",
                path=self.path,
            )
        own = {*_OWN, "cells", ".lock"}
        others = [
            p.name for p in self.path.iterdir() if p.name not in own and not is_leftover(p, _OWN)
        ]
        if others:
            raise RunFolderError(
                f"{self.path} is not a sweep's folder, and it is not empty: "
                f"it contains {min(others)!r}",
                hint="choose another folder with -o DIR",
                code="run-folder-not-a-sweep",
                path=self.path,
                found=min(others),
            )

    def check(self, sweep: Sweep) -> None:
        """Check that the folder's sweep is this one or a part of it.

        New cells and changes that do not affect the training are allowed.

        Raises:
            RunFolderError: it is the folder of another sweep.
        """
        self.refuse_strangers()
        before = self._load(SWEEP)
        if before is None or before["digest"] == sweep.digest:
            return
        now = {cell.name: cell.training_digest for cell in sweep.cells}
        earlier = before["cells"]
        fault = None
        if before["name"] != sweep.name:
            fault = f"its name is {before['name']!r}, not {sweep.name!r}"
        elif gone := [name for name in earlier if name not in now]:
            fault = f"this sweep lacks its cell {gone[0]!r}"
        elif changed := [name for name, digest in earlier.items() if now[name] != digest]:
            fault = f"its cell {changed[0]!r} has another training"
        if fault is not None:
            raise RunFolderError(
                f"{self.path} contains another sweep: {fault}",
                hint="choose another folder with -o DIR, or start over with --fresh",
                code="run-folder-other-sweep",
                path=self.path,
            )

    def begin(self, sweep: Sweep, started: str) -> str:
        """Write the sweep and the specs of its cells; return the time of its first start."""
        before = self._load(SWEEP)
        started = before["started"] if before is not None else started
        data = {
            "format": 1,
            "name": sweep.name,
            "digest": sweep.digest,
            "started": started,
            "cells": {cell.name: cell.training_digest for cell in sweep.cells},
            "sweep": sweep.spec.to_dict(),
        }
        self._write(SWEEP, data)
        (self.path / "cells").mkdir(exist_ok=True)
        (self.path / "specs").mkdir(exist_ok=True)
        for cell in sweep.cells:
            text = json.dumps(cell.spec, indent=2, ensure_ascii=False) + "\n"
            if not self.spec(cell.name).is_file() or self.spec(cell.name).read_text() != text:
                write_atomically(self.spec(cell.name), text.encode())
        self.stop_file.unlink(missing_ok=True)
        return str(started)

    def notes(self) -> dict[str, CellNote]:
        """The recorded states by cell.

        Raises:
            RunFolderError: state.json is damaged.
        """
        data = self._load(STATE) or {}
        try:
            return {name: CellNote(**row) for name, row in data.items()}
        except (TypeError, AttributeError) as error:
            raise self._damaged(STATE, error) from error

    def write_notes(self, notes: dict[str, CellNote]) -> None:
        """Replace the recorded states."""
        self._write(STATE, {name: asdict(note) for name, note in notes.items()})

    def clear(self, cells: Iterable[Cell] | None = None) -> None:
        """Remove the files that sweeps wrote here, and no others.

        Args:
            cells: remove only the builds of these cells; None removes everything.

        Raises:
            RunLockedError: a cell is being built.
        """
        if cells is not None:
            names = [cell.name for cell in cells]
        else:
            before = self._load(SWEEP)
            names = list(before["cells"]) if before is not None else []
        for name in names:
            run = self.run(name)
            if run.path.is_dir():
                with run.locked():
                    run.clear()
                if {p.name for p in run.path.iterdir()} <= {".lock"}:
                    shutil.rmtree(run.path)
            self.log(name).unlink(missing_ok=True)
        if cells is not None:
            self.write_notes({k: v for k, v in self.notes().items() if k not in names})
            return
        for name in _OWN:
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _load(self, name: str) -> dict[str, Any] | None:
        try:
            data = json.loads((self.path / name).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise self._damaged(name, error) from error
        known = {"name", "digest", "started", "cells"} if name == SWEEP else set()
        if not isinstance(data, dict) or not known <= data.keys():
            raise self._damaged(name, "its keys are not those of a sweep")
        return data

    def _damaged(self, name: str, why: object) -> RunFolderError:
        return RunFolderError(
            f"{self.path / name} is damaged: {why}",
            hint="choose another folder with -o DIR, or delete that file; the cells are kept",
            code="run-folder-damaged",
            path=self.path / name,
        )

    def _write(self, name: str, data: dict[str, Any]) -> None:
        text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
        write_atomically(self.path / name, text.encode())
