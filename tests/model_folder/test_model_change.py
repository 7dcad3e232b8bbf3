"""Changes of a model folder survive a kill at any moment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from errors_help import raises
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lone_spec import lone_spec

from cascadezoo import Cascade
from cascadezoo.errors import ModelError, RunLockedError
from cascadezoo.model_folder import change
from cascadezoo.model_folder.change import new_version, recover
from cascadezoo.model_folder.files import model_files, pending_change, read_file
from cascadezoo.model_folder.integrity import check_files, replace_files, require_writable
from cascadezoo.model_folder.layout import read_config

SPEC = lone_spec()
WEIGHTS = "stages/coarse/model.safetensors"


def make_model(folder: Path, seed: int = 0, name: str = "coarse") -> Path:
    """A model with a card; its images are noise, set by the seed."""
    import torch

    from cascadezoo.cards.render_card import render_card
    from cascadezoo.model_folder.metrics_file import MetricsFile

    spec = json.loads(json.dumps(SPEC).replace("coarse", name))
    cascade = Cascade.from_spec(spec)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in cascade.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=random))
    cascade.save_pretrained(folder)
    metrics = MetricsFile(name="lone", spec_digest=cascade.spec.digest())
    card = render_card(cascade.spec, metrics.to_dict(), cascade.resolved.data_info)
    files = {"metrics.json": metrics.to_json().encode(), "README.md": card.encode()}
    replace_files(folder, read_config(folder), files)
    return folder


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a newer version of it, and a copy of the older one."""
    folder = tmp_path_factory.mktemp("template")
    make_model(folder / "model")
    make_model(folder / "newer", seed=1, name="draft")
    shutil.copytree(folder / "model", folder / "copy")
    (folder / "model" / "README.md").write_text(
        (folder / "model" / "README.md").read_text() + "\nMy own notes.\n"
    )
    return folder


@pytest.fixture
def model(template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(template / "copy", tmp_path / "model")


# --- kills


COMMANDS = {
    "card": ("model", ["card", "model"]),
    "card --force": ("model", ["card", "model", "--force"]),
    "publish over an older version": ("copy", ["publish", "newer", "./copy"]),
    "publish to a new folder": ("new", ["publish", "newer", "./new"]),
    "pull over a newer version": ("newer", ["pull", "./copy", "--to", "newer"]),
    "evaluate": (
        "model",
        ["evaluate", "model", "--metrics", "inception-score", "-n", "24", "--save", "-q"],
    ),
    "tune": (
        "model",
        ["tune", "model", "--over", "steps", "--values", "steps=1", "-n", "24", "--write", "-q"],
    ),
}


DAY = datetime.now(tz=UTC).toordinal()
# Commands that change the same files in the same way take turns.
TURNS = {"card": 0, "card --force": 1, "evaluate": 0, "tune": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.skipif(
                TURNS.get(name) == DAY % 2, reason="its turn is on another day"
            ),
        )
        for name in COMMANDS
    ],
)
def test_a_command_that_is_killed_anywhere_ends_well_when_repeated(
    name: str, template: Path, tmp_path: Path
) -> None:
    folder, arguments = COMMANDS[name]
    driver = str(Path(__file__).with_name("kill_driver.py"))
    # The campaign of kills takes all events in turn; here are others each day.
    step = 6
    numbers = [str(DAY % step), str(step)]
    folders = [str(template), str(tmp_path / "work"), folder]
    done = subprocess.run(
        [sys.executable, driver, *numbers, *folders, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=3000,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, *rows = map(json.loads, done.stdout.splitlines())
    old, new, files = first["old"], first["state"], first["files"]
    assert (first["again"], first["card"]) == (0, 0), first
    assert len(rows) > 10 // step
    states = set()
    for row in rows:
        # A reader after the kill sees the old or the new version, and never a mixture.
        if row["killed"] is None:
            assert name == "publish to a new folder", row
        else:
            assert row["killed"][0] == 0, row
            states.add(row["killed"][1])
        assert (row["again"], row["card"]) == (0, 0), row
        assert row["files"] == files, row
    # Figures contain times; other commands write the same bytes again.
    if name not in ("evaluate", "tune"):
        assert states <= {old, new}
        assert all(row["state"] == new for row in rows)
    if name != "publish to a new folder":
        assert old in states
        assert states - {old}


# --- an interrupted change


class _KilledError(Exception):
    """The process ends here."""


@pytest.fixture
def interrupted(model: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose replacement by a newer version is decided and not yet finished."""

    def stop(folder: Path) -> None:
        raise _KilledError

    def replace(patch: pytest.MonkeyPatch) -> None:
        with new_version(model, whole=True) as new:
            shutil.copytree(template / "newer", new, dirs_exist_ok=True)
            patch.setattr(change, "_finish", stop)

    with monkeypatch.context() as patch, pytest.raises(_KilledError):
        replace(patch)
    assert (model / ".change" / "change.json").is_file()
    return model


def test_readers_see_the_new_version_of_a_decided_change(interrupted: Path, template: Path) -> None:
    before = sorted(p.name for p in interrupted.rglob("*"))
    config = read_config(interrupted)
    assert config == read_config(template / "newer")
    check_files(interrupted, config)
    assert list(model_files(interrupted)) == list(model_files(template / "newer"))
    assert Cascade.from_pretrained(interrupted).names == ["draft"]
    assert sorted(p.name for p in interrupted.rglob("*")) == before  # readers change nothing


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sets(st.sampled_from(["README.md", "metrics.json", "stages/draft/model.safetensors"])))
def test_files_that_are_moved_already_are_read_in_their_places(
    interrupted: Path, template: Path, moved: set[str]
) -> None:
    folder = interrupted.with_name("part")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(interrupted, folder)
    for name in moved:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / ".change" / name).replace(folder / name)
    newer = template / "newer"
    for name in ("config.json", *model_files(newer)):
        assert read_file(folder, name) == (newer / name).read_bytes()
    require_writable(folder, folder)
    assert contents(folder) == contents(newer)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_undecided_change_is_removed(model: Path, template: Path) -> None:
    before = contents(model)

    def stop() -> None:
        with new_version(model) as new:
            (new / "README.md").write_text("half")
            raise _KilledError

    with pytest.raises(_KilledError):
        stop()
    assert contents(model) == before


# --- temporary files


@pytest.fixture
def alive() -> Iterator[int]:
    """The number of another running process."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    process.communicate(b"\n")


def dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_temporary_files_of_ended_processes_are_removed_and_those_of_others_kept(
    model: Path, alive: int
) -> None:
    gone = dead()
    names = ("README.md", "config.json", "metrics.json", "samples.png")
    for pid in (alive, gone):
        for name in names:
            (model / f".{name}.{pid}.tmp").write_bytes(b"part")
        (model / f".change.{pid}.tmp/stages/coarse").mkdir(parents=True)
        (model / f".change.{pid}.tmp/{WEIGHTS}").write_bytes(b"part")
    check_files(model, read_config(model))
    assert list(model_files(model)) == ["README.md", "metrics.json", WEIGHTS]
    require_writable(model, model)
    left = sorted(p.name for p in model.iterdir() if p.name.startswith("."))
    assert left == sorted(f".{name}.{alive}.tmp" for name in ("change", *names))


def test_files_of_users_are_no_temporary_files(model: Path) -> None:
    gone = dead()
    for name in (f".notes.txt.{gone}.tmp", ".config.json.tmp", f"config.json.{gone}.tmp"):
        (model / name).write_bytes(b"mine")
        with raises(ModelError, "model-file-strange", name=name):
            require_writable(model, model)
        assert (model / name).read_bytes() == b"mine"
        (model / name).unlink()


# --- folders of strangers


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        "[" * 100_000,
        '{"format": 2, "files": [], "removed": []}',
        '{"format": 1, "files": ["../x"], "removed": []}',
        '{"format": 1, "files": [], "removed": ["/etc/passwd"]}',
        '{"format": 1, "files": [["README.md"]], "removed": []}',
        '{"format": 1, "files": [null], "removed": []}',
    ],
)
def test_a_damaged_list_of_changes_is_refused(model: Path, text: str) -> None:
    (model / ".change").mkdir()
    (model / ".change/change.json").write_text(text)
    for action in (read_config, recover, lambda folder: list(model_files(folder))):
        with raises(ModelError, "model-change-damaged", path=".change/change.json"):
            action(model)


@pytest.mark.parametrize("linked", ["stages", "stages/coarse", ".change", ".change/stages"])
@pytest.mark.parametrize("removed", [False, True])
def test_a_change_writes_and_removes_nothing_through_links(
    model: Path, tmp_path: Path, linked: str, removed: bool
) -> None:
    (model / ".change/stages/coarse").mkdir(parents=True)
    (model / ".change" / WEIGHTS).write_bytes(b"new")
    lists = {"files": [] if removed else [WEIGHTS], "removed": [WEIGHTS] if removed else []}
    (model / ".change/change.json").write_text(json.dumps({"format": 1, **lists}))
    outside = tmp_path / "outside"
    (model / linked).rename(outside)
    (model / linked).symlink_to(outside)
    before = contents(outside)
    if removed and linked == ".change/stages":
        recover(model)  # nothing is moved from there
    else:
        with raises(ModelError, "model-symlink"):
            recover(model)
    assert contents(outside) == before


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_the_list_of_changes_must_be_a_regular_file(model: Path, kind: str) -> None:
    path = model / ".change/change.json"
    path.parent.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(ModelError) as caught:
        read_config(model)
    assert caught.value.code == ("model-symlink" if kind == "link" else "model-file-special")


def test_foreign_content_of_the_folder_of_changes_is_kept(model: Path) -> None:
    (model / ".change").mkdir()
    (model / ".change/README.md").write_text("mine")
    with raises(ModelError, "model-file-strange", name=".change/README.md"):
        require_writable(model, model)
    assert (model / ".change/README.md").read_text() == "mine"


# --- two commands at once


HOLD = """
import sys
from pathlib import Path
from cascadezoo.model_folder.change import new_version
with new_version(Path(sys.argv[1])) as new:
    (new / "README.md").write_text("theirs")
    print("ready", flush=True)
    sys.stdin.readline()
"""


def test_a_second_writer_waits_or_ends_with_an_error(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read_config(model)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    monkeypatch.setattr(change, "LONGEST_WAIT", 0.1)
    with raises(RunLockedError, "locked-model", path="model"):
        replace_files(model, config, {"README.md": b"ours"})
    check_files(model, config)
    monkeypatch.setattr(change, "LONGEST_WAIT", 60.0)
    process.communicate("\n")
    assert process.returncode == 0
    assert (model / "README.md").read_text() == "theirs"
    replace_files(model, config, {"README.md": b"ours"})
    assert (model / "README.md").read_text() == "ours"
    assert pending_change(model) is None


def test_the_lock_of_a_killed_writer_is_released(model: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(model)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    process.stdin.close()
    config = require_writable(model, model)
    replace_files(model, config, {"README.md": b"ours"})
    assert not [p for p in model.iterdir() if p.name.startswith(".")]


def test_an_outdated_config_is_not_written(model: Path) -> None:
    config = read_config(model)
    newer = replace_files(model, config, {"metrics.json": b"{}"})
    before = contents(model)
    with raises(ModelError, "model-changed-meanwhile", path="model"):
        replace_files(model, config, {"README.md": b"ours"})
    assert contents(model) == before
    assert read_config(model) == newer
