"""The folder of a sweep: its identity, its results, and the cells that are not built again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from errors_help import raises
from filelock import FileLock
from sweep_cases import UPSAMPLERS, axis, base, sweep

from cascadezoo.build.build import build_cascade
from cascadezoo.errors import InputError, RunFolderError, RunLockedError, SpecError
from cascadezoo.sweep.cell_reader import is_done, read_cell
from cascadezoo.sweep.cells import load_sweep
from cascadezoo.sweep.results import SweepResults
from cascadezoo.sweep.run_sweep import run_sweep
from cascadezoo.sweep.sweep_folder import CellNote, SweepFolder

EVALUATION = {
    "extractor": "small",
    "samples": 20,
    "subset_size": 10,
    "in_loop": {"every_epochs": 1, "samples": 12, "subsets": 4, "subset_size": 6},
}
DATA = sweep(axis("up", "stages.up", UPSAMPLERS), base=base(evaluation=EVALUATION))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep whose two cells were built in this process."""
    out = tmp_path_factory.mktemp("sweep") / "mini"
    made = load_sweep(DATA)
    folder = SweepFolder(out)
    with folder.locked():
        folder.begin(made, "2026-01-01T00:00:00+00:00")
        for cell in made.cells:
            build_cascade(folder.spec(cell.name), folder.run(cell.name).path, device="cpu")
    return out


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "mini")
    return tmp_path / "mini"


@contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    def look() -> dict[str, bytes]:
        return {
            str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"
        }

    before = look()
    yield
    assert look() == before


@pytest.mark.slow
def test_finished_cells_are_not_built_again(copied: Path):
    ended = []
    with unchanged(copied / "cells"):
        results = run_sweep(DATA, copied, on_cell=ended.append)
    assert ended == []
    assert [cell.state for cell in results.cells] == ["done", "done"]
    assert SweepResults.from_dict(json.loads((copied / "results.json").read_bytes())) == results
    assert results.started == "2026-01-01T00:00:00+00:00"
    for name in ("results.csv", "RESULTS.md", "results.html"):
        assert (copied / name).stat().st_size > 500
    assert f"![{'kid parameters'}](plots/" in (copied / "RESULTS.md").read_text()


def test_a_cell_has_the_results_of_its_model(finished: Path):
    cell = load_sweep(DATA).cells[0]
    metrics = json.loads((finished / "cells/pixelshuffle/model/metrics.json").read_bytes())
    result = read_cell(finished, cell)
    kid = metrics["figures"][0]
    assert (result.kid, result.kid_std, result.kid_name) == (kid["value"], kid["std"], kid["name"])
    assert [(s.name, s.parameters) for s in result.stages] == [
        (row["name"], row["parameters"]) for row in metrics["stages"]
    ]
    assert result.parameters == sum(row["parameters"] for row in metrics["stages"])
    # Two phases of one epoch each: four steps of 16 images of 64.
    assert [(p.epoch, p.phase, p.name) for p in result.course] == [
        (1.0, "first", "kid.small.n12"),
        (2.0, "last", "kid.small.n12"),
    ]
    values = [row["figure"]["value"] for row in metrics["course"]]
    assert [p.value for p in result.course] == values
    assert result.kid_mean == pytest.approx(sum(values) / 2)
    assert result.kid_mean_name == "kid.small.n12"
    seconds = metrics["training"]["seconds_per_epoch"]
    assert result.seconds_per_epoch == pytest.approx(sum(seconds.values()) / 2, abs=1e-3)
    assert result.phase_seconds == seconds
    assert 0 < result.course[0].seconds < result.course[1].seconds
    assert result.training_seconds == metrics["training"]["seconds"]
    assert result.images_per_second is not None


def test_a_changed_evaluation_builds_cells_again(copied: Path):
    other = load_sweep(DATA, settings=["evaluation.seed=7"])
    folder = SweepFolder(copied)
    folder.check(other)
    assert not any(is_done(folder.run(cell.name), cell) for cell in other.cells)
    assert read_cell(copied, other.cells[0], state="stopped").kid is None


def test_a_sweep_may_grow(copied: Path):
    grown = load_sweep(
        {
            **DATA,
            "axes": [axis("up", "stages.up", {**UPSAMPLERS, "more": UPSAMPLERS["pixelshuffle"]})],
        }
    )
    SweepFolder(copied).check(grown)
    assert [is_done(SweepFolder(copied).run(c.name), c) for c in grown.cells] == [True, True, False]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"name": "other"}, "'other'"),
        (
            {"settings": {"training.batch_size": 8}},
            "'pixelshuffle'",
        ),
        (
            {"exclude": [{"up": "interpolate"}]},
            "'interpolate'",
        ),
    ],
)
def test_the_folder_of_another_sweep(copied: Path, changes, name):
    with unchanged(copied), raises(RunFolderError, "run-folder-other-sweep") as caught:
        run_sweep({**DATA, **changes}, copied)
    assert name in caught.value.what
    assert "--fresh" in str(caught.value.hint)


def test_folders_of_something_else(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("mine")
    for fresh in (False, True):
        with (
            unchanged(tmp_path),
            raises(RunFolderError, "run-folder-not-a-sweep"),
        ):
            run_sweep(DATA, tmp_path, fresh=fresh)
    with raises(RunFolderError, "run-folder-is-file"):
        run_sweep(DATA, tmp_path / "thesis.tex")


def test_a_folder_with_a_running_sweep(copied: Path):
    with (
        FileLock(copied / ".lock"),
        raises(RunLockedError, "locked-sweep"),
    ):
        run_sweep(DATA, copied)


def test_a_damaged_sweep_file_is_reported_and_the_cells_are_kept(copied: Path):
    (copied / "sweep.json").write_text('{"name": "mini"}')
    with raises(RunFolderError, "run-folder-damaged", path="sweep.json"):
        run_sweep(DATA, copied)
    (copied / "sweep.json").unlink()
    assert [cell.state for cell in run_sweep(DATA, copied).cells] == ["done", "done"]


def test_damaged_cells_failed_and_their_error_names_the_file(copied: Path):
    cells = load_sweep(DATA).cells
    (copied / "cells/pixelshuffle/model/metrics.json").write_text('{"figures": [{}]}')
    (copied / "cells/interpolate/run.json").write_text("[")
    for cell, name in zip(cells, ("cells/pixelshuffle", "run.json"), strict=True):
        result = read_cell(copied, cell)
        assert result.state == "failed"
        assert name in str(result.error)
        assert [stage.kind for stage in result.stages] == [s["kind"] for s in cell.spec["stages"]]


def test_fresh_removes_only_files_of_sweeps(copied: Path):
    run_sweep(DATA, copied)
    (copied / "notes.txt").write_text("mine")
    (copied / "cells/pixelshuffle/notes.txt").write_text("mine")
    made = load_sweep(DATA)
    folder = SweepFolder(copied)
    folder.clear([made.cells[1]])
    assert is_done(folder.run("pixelshuffle"), made.cells[0])
    assert not (copied / "cells/interpolate").exists()
    folder.clear()
    left = sorted(str(p.relative_to(copied)) for p in copied.rglob("*") if p.is_file())
    assert [name for name in left if not name.endswith(".lock")] == [
        "cells/pixelshuffle/notes.txt",
        "notes.txt",
    ]


def test_fresh_refuses_a_running_cell(copied: Path):
    with FileLock(copied / "cells/pixelshuffle/.lock"), pytest.raises(RunLockedError):
        run_sweep(DATA, copied, fresh=True)
    assert is_done(SweepFolder(copied).run("pixelshuffle"), load_sweep(DATA).cells[0])


def test_failures_belong_to_the_spec_that_failed(copied: Path):
    made = load_sweep(DATA)
    folder = SweepFolder(copied)
    folder.clear([made.cells[1]])
    folder.write_notes({"interpolate": CellNote("failed", "no room", made.cells[1].digest)})
    results = run_sweep(DATA, copied, retry=False)
    assert [(c.state, c.error) for c in results.cells] == [("done", None), ("failed", "no room")]
    assert [c.name for c in results.failed] == ["interpolate"]
    (copied / "state.json").write_text('{"interpolate": {"nix": 1}}')
    with raises(RunFolderError, "run-folder-damaged", path="state.json"):
        run_sweep(DATA, copied, retry=False)


def test_too_large_cells_are_refused_before_anything_is_written(tmp_path: Path):
    values = {"fine": 8, "huge": 200_000, "vast": 10**9}
    data = sweep(axis("width", "stages.coarse.config.channels", values))
    with pytest.raises(SpecError) as caught:
        run_sweep(data, tmp_path / "mini", device="cpu")
    assert [p.path for p in caught.value.problems] == ["cell huge", "cell vast"]
    assert not (tmp_path / "mini" / "cells").exists()


def test_invalid_arguments(tmp_path: Path):
    with raises(InputError, "input-jobs"):
        run_sweep(DATA, tmp_path, jobs=0)
    with raises(InputError, "input-ray-address"):
        run_sweep(DATA, tmp_path, ray_address="auto")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [".sweep.json.7.tmp", ".state.json.7.tmp", ".RESULTS.md.81.tmp"])
def test_files_of_a_killed_sweep_are_removed(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"half")
    with SweepFolder(tmp_path).locked():
        assert not (tmp_path / name).exists()
    (tmp_path / ".thesis.tex.7.tmp").write_bytes(b"mine")
    with (
        raises(RunFolderError, "run-folder-not-a-sweep", found=".thesis.tex.7.tmp"),
        SweepFolder(tmp_path).locked(),
    ):
        pass


def test_damaged_events_do_not_fail_a_cell(copied: Path):
    cell = load_sweep(DATA).cells[0]
    whole = read_cell(copied, cell)
    path = copied / "cells" / cell.name / "events.jsonl"
    for event in ("phase", "epoch", "figure"):
        damage = f'{{"event": "{event}", "step": 1}}\n{{"event": "{event}"}}\n\xff\n'
        path.write_bytes(path.read_bytes() + damage.encode("latin-1"))
    assert read_cell(copied, cell) == whole
    path.write_bytes(b"\0" * 999)
    result = read_cell(copied, cell)
    assert (result.state, result.kid, result.course) == ("done", whole.kid, [])
