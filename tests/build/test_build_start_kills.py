"""A kill before any file event of the start of a build: the same command goes on."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from errors_help import raises

from cascadezoo.build.build import build_cascade
from cascadezoo.build.plan import make_plan
from cascadezoo.build.run_folder import RunFolder
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.loader import DeviceLoader
from cascadezoo.data.split import load_split
from cascadezoo.errors import RunFolderError, StoppedError
from cascadezoo.spec import load_spec
from cascadezoo.train.checkpoint import CheckpointStore
from cascadezoo.train.engine import make_accelerator
from cascadezoo.train.trainer import Trainer

SPEC = {
    "name": "lone",
    "data": {"source": "shapes", "config": {"size": 8, "count": 16}},
    "stages": [{"name": "coarse", "kind": "flow.v1", "config": {"channels": 8, "blocks": 1}}],
    "training": {
        "losses": [],
        "batch_size": 8,
        "phases": [{"name": "a", "train": ["coarse"], "steps": 9}],
        "compile": False,
    },
    "evaluation": {"metrics": []},
}
EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.chmod")


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """Import what a build imports, so that the forked processes need not."""
    resolved = load_spec(SPEC)
    device = torch.device("cpu")
    plan = make_plan(resolved, device)
    loader = DeviceLoader(
        load_split(resolved, "train"), batch_size=8, seed=0, flip=False, device=device
    )
    cascade = Cascade.from_spec(resolved, device=device)
    Trainer(cascade, loader, make_accelerator(device, "fp32")).run()
    assert plan.stages


def in_child(work: Callable[[], None]) -> int:
    """Run in a forked process; its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def on_file_event(folder: Path, act: Callable[[int, str, str], None]) -> None:
    """Call ``act`` with number, event and path before each change below a folder."""
    count = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in EVENTS or not isinstance(args[0], (str, bytes, os.PathLike)):
            return
        path = os.fsdecode(args[0])
        reads = event == "open" and not (args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if not reads and path.startswith(str(folder)):
            act(count, event, path)
            count += 1

    sys.addaudithook(hook)


def start(run: Path, act: Callable[[int, str, str], None], **options: Any) -> None:
    """Build until the first step, and stop there with a checkpoint."""

    sent: list[str] = []

    def also_stop(number: int, event: str, path: str) -> None:
        act(number, event, path)
        if Path(path).name == "events.jsonl" and not sent:
            sent.append(path)
            os.kill(os.getpid(), signal.SIGTERM)

    on_file_event(run.parent, also_stop)
    try:
        build_cascade(SPEC, run, device="cpu", **options)
    except StoppedError as error:
        assert error.code == "interrupted-training", error
    else:
        raise AssertionError("the build did not stop")


def killed_at(number: int) -> Callable[[int, str, str], None]:
    def act(now: int, event: str, path: str) -> None:
        if now == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def nothing(number: int, event: str, path: str) -> None:
    pass


def events_of_a_start(run: Path, log: Path, **options: Any) -> list[str]:
    def work() -> None:
        with log.open("w") as file:
            start(run, lambda n, event, path: print(event, Path(path).name, file=file), **options)

    assert in_child(work) == 0
    return log.read_text().splitlines()


def check_started(run: Path) -> None:
    assert CheckpointStore(run / "checkpoints").newest().position.global_step == 1
    names = {path.name for path in run.iterdir()}
    assert names <= {"spec.json", "run.json", "events.jsonl", "checkpoints", ".lock", "mine.txt"}


def test_a_kill_before_any_file_event_of_a_new_build(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    events = events_of_a_start(tmp_path / "a" / "run", tmp_path / "log")
    for expected in ("open .spec.json", "open .run.json", "os.rename .step-"):
        assert any(event.startswith(expected) for event in events), events
    for number in range(len(events)):
        run = tmp_path / str(number) / "run"
        run.parent.mkdir()
        assert in_child(lambda run=run, n=number: start(run, killed_at(n))) == -signal.SIGKILL
        assert in_child(lambda run=run: start(run, nothing)) == 0, events[number]
        assert CheckpointStore(run / "checkpoints").newest() is not None
        assert not [p for p in run.iterdir() if p.name.endswith(".tmp") or "test" in p.name]


@pytest.mark.slow
def test_a_kill_before_any_file_event_of_a_fresh_start(tmp_path: Path) -> None:
    """The folder holds a file of the user, which a new run folder may not."""
    first = tmp_path / "first" / "run"
    first.parent.mkdir()
    assert in_child(lambda: start(first, nothing)) == 0
    (first / "mine.txt").write_text("mine")
    shutil.copytree(first, tmp_path / "a" / "run")
    events = events_of_a_start(tmp_path / "a" / "run", tmp_path / "log", resume=False)
    for number in range(len(events)):
        run = tmp_path / str(number) / "run"
        shutil.copytree(first, run)
        killed = in_child(lambda run=run, n=number: start(run, killed_at(n), resume=False))
        assert killed == -signal.SIGKILL
        assert in_child(lambda run=run: start(run, nothing, resume=False)) == 0, events[number]
        check_started(run)
        assert (run / "mine.txt").read_text() == "mine"


LEFT = [".write-test.7", ".spec.json.7.tmp", ".run.json.123456.tmp", ".events.jsonl.1.tmp"]


@pytest.mark.parametrize("name", LEFT)
def test_left_over_files_are_removed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"half")
    with RunFolder(tmp_path).locked():
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    "name",
    [
        "spec.json.7.tmp",
        ".thesis.tex.7.tmp",
        ".spec.json.tmp",
        ".spec.json.x.tmp",
        ".write-test.",
        ".write-test.7.txt",
        "write-test.7",
        ".spec.json.7.tmp/",
        ".write-test.7/",
    ],
)
def test_files_of_others_are_refused_and_kept(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("/"):
        path.mkdir()
    else:
        path.write_text("mine")
    with (
        raises(RunFolderError, "run-folder-not-a-run", found=path.name),
        RunFolder(tmp_path).locked(),
    ):
        pass
    assert path.exists()
