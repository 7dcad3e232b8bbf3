"""Runs a sweep: builds its unfinished cells, one at a time or in parallel."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cascadezoo.errors import InputError, StoppedError
from cascadezoo.sweep.cell_process import Job, Outcome
from cascadezoo.sweep.cell_reader import is_done, read_cell
from cascadezoo.sweep.cells import Cell, Sweep, load_sweep
from cascadezoo.sweep.executors import Executor, LocalExecutor
from cascadezoo.sweep.machine import describe_machine
from cascadezoo.sweep.ray_executor import RayExecutor
from cascadezoo.sweep.results import CellResult, SweepResults, summarize
from cascadezoo.sweep.spec import SweepSpec
from cascadezoo.sweep.sweep_folder import CellNote, SweepFolder
from cascadezoo.sweep.tables import describe_settings, write_tables
from cascadezoo.train.stop_signals import StopSignals
from cascadezoo.util.numbers import spread

__all__ = ["run_sweep"]


def run_sweep(
    sweep: Sweep | SweepSpec | Mapping[str, Any] | str | Path,
    out: str | Path | None = None,
    *,
    settings: Iterable[str] = (),
    only: Iterable[str] = (),
    jobs: int | None = None,
    executor: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    device: str = "auto",
    retry: bool = True,
    fresh: bool = False,
    progress: Callable[[str], None] | None = None,
    on_cell: Callable[[CellResult], None] | None = None,
) -> SweepResults:
    """Build all unfinished cells of a sweep and write the results of all cells.

    Errors in the sweep are found before the first cell starts. Each cell is a build in its own
    process and run folder. If a cell fails, the results name it, and the others are still built.
    Run a stopped sweep again to resume it.

    Args:
        sweep: a sweep, its JSON data, a file, ``-``, or the name of a shipped sweep.
        out: the sweep's folder; None is ``sweeps/NAME``.
        settings: ``path=value`` changes of the base spec.
        only: ``AXIS=LABEL`` or ``AXIS=LABEL,LABEL``: build only these cells.
        jobs: number of parallel cells; None is one, or on Ray as many as the resources allow.
        executor: ``local`` runs cells on this machine, ``ray`` on a Ray cluster.
        ray_address: address of a running cluster; None uses ``RAY_ADDRESS``, or starts a cluster
            on this machine for the duration of the sweep.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        retry: build failed cells again.
        fresh: first remove the results of earlier sweeps from the folder; with ``only``, those of
            the selected cells.
        progress: called with a line when a cell starts and when it ends.
        on_cell: called with the result of each cell when it ends.

    Raises:
        InputError: an invalid sweep or folder, or too little memory; exit code 2.
        RunLockedError: another sweep is running in the folder.
        StoppedError: stopped by SIGINT or SIGTERM, after each cell's checkpoint.
    """
    if not isinstance(sweep, Sweep):
        sweep = load_sweep(sweep, settings=settings)
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs is {jobs}; it must be at least 1", code="input-jobs", jobs=jobs)
    chosen = sweep.choose(only)
    folder = SweepFolder(Path(out) if out is not None else Path("sweeps") / sweep.name)
    resources = sweep.spec.resources
    runner: Executor
    if executor == "ray":
        runner = RayExecutor(jobs, resources, folder.stop_file.absolute(), ray_address)
    elif ray_address is not None:
        raise InputError(
            "a Ray address needs the executor ray",
            hint="add --executor ray",
            code="input-ray-address",
        )
    else:
        runner = LocalExecutor(jobs or 1, resources)
    with folder.locked():
        part = len(chosen) < len(sweep.cells)
        if part or not fresh:
            folder.check(sweep)
        left = [c for c in chosen if fresh or not is_done(folder.run(c.name), c)]
        if left:
            # The memory of Ray's machines is not known here.
            local = executor == "local"
            _check_plans(left, device if local else "cpu", memory=local)
        if fresh:
            folder.clear(chosen if part else None)
        work = _Work(sweep, folder, f"{executor}, {jobs or 'any number of'} at once", progress)
        return work.run(chosen, runner, device, retry, on_cell)


class _Work:
    def __init__(
        self,
        sweep: Sweep,
        folder: SweepFolder,
        how: str,
        progress: Callable[[str], None] | None,
    ) -> None:
        self.sweep = sweep
        self.folder = folder
        self.how = how
        self.progress = progress or (lambda _line: None)
        self.place = {cell.name: i for i, cell in enumerate(sweep.cells, start=1)}
        self.cells = {cell.name: cell for cell in sweep.cells}
        self.started = folder.begin(sweep, datetime.now(UTC).isoformat(timespec="seconds"))
        self.notes = {
            name: note
            for name, note in folder.notes().items()
            if name in self.cells and note.digest == self.cells[name].digest
        }
        self.results = {cell.name: self.read(cell) for cell in sweep.cells}
        self.next_write = 0.0

    def run(
        self,
        chosen: Sequence[Cell],
        runner: Executor,
        device: str,
        retry: bool,
        on_cell: Callable[[CellResult], None] | None,
    ) -> SweepResults:
        left = [c for c in chosen if self.results[c.name].state != "done"]
        if not retry:
            left = [c for c in left if self.results[c.name].state != "failed"]
        if len(left) < len(chosen):
            self.progress(f"{len(chosen) - len(left)} of {len(chosen)} cells are already done")
        reason = None
        if left:
            jobs = [self.job(cell, device) for cell in left]
            with (
                runner,
                StopSignals() as stop,
                closing(runner.run(jobs, stop.requested, self.notify)) as outcomes,
            ):
                for outcome in outcomes:
                    result = self.ended(outcome)
                    if on_cell is not None:
                        on_cell(result)
                reason = stop.requested()
        if reason is not None:
            self.write()
            done = sum(r.state == "done" for r in self.results.values())
            raise StoppedError(
                f"stopped by {reason}; {done} of {len(self.results)} cells are done",
                hint=f"to resume: {self.command()}",
                code="interrupted-sweeping",
                reason=reason,
            )
        return self.finish()

    def job(self, cell: Cell, device: str) -> Job:
        # Absolute, because a Ray worker has another working directory.
        folder = SweepFolder(self.folder.path.absolute())
        return Job(
            cell.name,
            folder.spec(cell.name),
            folder.run(cell.name).path,
            folder.log(cell.name),
            Path.cwd(),
            device,
        )

    def notify(self, name: str, state: str) -> None:
        waiting = "waiting: another process is building it"
        self.report(name, "started" if state == "started" else waiting)

    def ended(self, outcome: Outcome) -> CellResult:
        """Record and report how a cell ended."""
        cell = self.cells[outcome.name]
        self.notes.pop(cell.name, None)
        if outcome.state != "done":
            self.notes[cell.name] = CellNote(outcome.state, outcome.error, cell.digest)
        elif not is_done(self.folder.run(cell.name), cell):
            reason = "its build succeeded, but its run folder is incomplete"
            self.notes[cell.name] = CellNote("failed", reason, cell.digest)
        self.folder.write_notes(self.notes)
        result = self.results[cell.name] = self.read(cell)
        # Tables of thousands of cells take long to write: limit this to a tenth of the time.
        if time.monotonic() > self.next_write:
            before = time.monotonic()
            self.write()
            now = time.monotonic()
            self.next_write = now + 9 * (now - before)
        if result.state == "done":
            self.report(cell.name, f"done in {outcome.seconds:.0f} s{_kid(result)}")
        else:
            self.report(cell.name, f"{result.state}: {result.error}")
        return result

    def read(self, cell: Cell) -> CellResult:
        note = self.notes.get(cell.name)
        if note is not None:
            return read_cell(self.folder.path, cell, state=note.state, error=note.error)
        begun = (self.folder.run(cell.name).path / "run.json").is_file()
        return read_cell(self.folder.path, cell, state="stopped" if begun else "waiting")

    def report(self, name: str, text: str) -> None:
        self.progress(f"[{self.place[name]}/{len(self.place)}] {name}: {text}")

    def summary(self) -> SweepResults:
        results = list(self.results.values())
        return summarize(
            results,
            name=self.sweep.name,
            description=self.sweep.spec.description,
            axes=self.sweep.axes,
            seed_axes=self.sweep.seed_axes,
            stage_axes=self.sweep.stage_axes,
            settings={**describe_settings(self.sweep), "executor": self.how},
            machine=describe_machine(r.device for r in results if r.device),
            started=self.started,
        )

    def write(self) -> None:
        write_tables(self.summary(), self.folder.path)

    def finish(self) -> SweepResults:
        """Write all results with the page and its plots."""
        from cascadezoo.sweep.page import write_page

        summary = self.summary()
        write_page(summary, self.folder.path)
        write_tables(summary, self.folder.path)
        return summary

    def command(self) -> str:
        source = self.sweep.source or "SWEEP"
        changes = [word for setting in self.sweep.settings for word in ("--set", setting)]
        return shlex.join(["cascadezoo", "sweep", source, "-o", str(self.folder.path), *changes])


def _check_plans(cells: Sequence[Cell], device: str, *, memory: bool) -> None:
    """Plan all cells before the first one is built.

    Raises:
        InputError: a cell cannot be built, or does not fit into the memory of this machine.
    """
    from cascadezoo.sweep.cell_plans import plan_cells

    plan_cells(cells, device=device, memory=memory)


def _kid(result: CellResult) -> str:
    if result.kid is None:
        return ""
    kid = spread(result.kid, result.kid_std, 1000, decimals=2)
    return f", {result.kid_name} {kid} x 10^-3"
