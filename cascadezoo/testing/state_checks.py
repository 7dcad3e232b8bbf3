"""Checks of a stage's state: resumed, reloaded and shared among processes, it trains the same."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cascadezoo.cascade.assemble import unsaved_buffers
from cascadezoo.cascade.reload_check import reload_stage
from cascadezoo.errors import CascadezooError, PluginError, StoppedError
from cascadezoo.plugins.registry import StageEntry
from cascadezoo.testing.check_report import CheckError, CheckSkippedError
from cascadezoo.testing.joint_training import NAME, make_cascade, make_trainer
from cascadezoo.testing.stage_place import Place
from cascadezoo.train.checkpoint import CheckpointStore

__all__ = ["processes", "resume", "round_trip"]

_SECONDS = 300
_FORKS = sys.platform == "linux"
_CHILD = "from cascadezoo.testing.state_checks import child; child()"


def resume(place: Place) -> None:
    """A training that stops and resumes ends with the same state as one that does not.

    Raises:
        CheckError: a value differs: the stage has state outside of parameters and persistent
            buffers.
    """
    whole = make_cascade(place)
    make_trainer(whole).run()
    with tempfile.TemporaryDirectory() as folder:
        store = CheckpointStore(Path(folder))
        stopped = make_cascade(place)
        with contextlib.suppress(StoppedError):
            make_trainer(stopped, store=store, stop=lambda: "the check").run()
        cascade = make_cascade(place)
        make_trainer(cascade, store=store).run()
    for name, stage in whole.named_stages():
        _compare(name, _state(stage), _state(cascade.stage(name)))
    distance = (whole.sample(2) - cascade.sample(2)).abs().max()
    if not distance == 0:
        raise CheckError(
            f"samples differ by {distance:.2g} after a training that was stopped and resumed: keep "
            "state in parameters and persistent buffers, not in Python attributes"
        )


def round_trip(place: Place) -> None:
    """A trained stage that is saved and loaded samples the same image.

    Raises:
        CheckError: it cannot be loaded, or samples another image.
    """
    cascade = make_cascade(place)
    make_trainer(cascade).run()
    (row,) = (row for row in cascade.resolved.stages if row.name == NAME)
    try:
        reload_stage(cascade, row)
    except PluginError as error:
        raise CheckError(error.what) from error


def processes(place: Place) -> None:
    """After a training on two processes, both have the same weights and buffers.

    The running statistics of batch normalisation are not compared: each process has those of its
    own images, and the first one's are saved.

    Raises:
        CheckError: a value differs, or a process fails.
        CheckSkippedError: this PyTorch has no gloo.
    """
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        raise CheckSkippedError("this PyTorch has no gloo")
    make_cascade(place)  # raises here what would end both processes, such as missing weights
    with tempfile.TemporaryDirectory() as folder:
        first, second = _run_two(place, Path(folder))
    _compare_digests(first, second)


def child() -> None:
    """One or both processes of :func:`processes`; writes the digests of the stage's state."""
    torch.set_num_threads(1)
    request = json.loads(sys.argv[-1])
    entry = StageEntry(**request["entry"])
    place = Place.load(entry, request["place"])
    rank, second = request["rank"], 0
    if rank is None:
        # What both import: the stage and, for DistributedDataParallel, the compiler.
        entry.load()
        importlib.import_module("torch._dynamo")
        second = os.fork()
        rank = 0 if second else 1
    files = _Files(Path(request["folder"]), rank)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    try:
        with files.errors.open("w") as errors:
            os.dup2(errors.fileno(), sys.stderr.fileno())
        files.digests.write_text(json.dumps(_trained(place)))
    finally:
        if second:
            os.waitpid(second, 0)


def _trained(place: Place) -> dict[str, str]:
    cascade = make_cascade(place)
    try:
        make_trainer(cascade).run()
    except CascadezooError as error:
        raise SystemExit(" ".join(error.what.split())) from None
    stage = cascade.stage(NAME)
    own = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in stage.named_modules()
        if isinstance(module, nn.modules.batchnorm._NormBase)
        for name in module._buffers
    }
    return {name: _digest(value) for name, value in _state(stage).items() if name not in own}


@dataclass(frozen=True)
class _Files:
    """What a process writes."""

    folder: Path
    rank: int

    @property
    def digests(self) -> Path:
        return self.folder / f"digests-{self.rank}.json"

    @property
    def errors(self) -> Path:
        return self.folder / f"errors-{self.rank}.txt"


def _run_two(place: Place, folder: Path) -> list[dict[str, str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    path = os.pathsep.join(str(Path(part).absolute()) for part in sys.path)
    names = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    names |= {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    entry = place.entry
    fields = ("name", "role", "summary", "impl", "config")
    request = {"entry": {f: getattr(entry, f) for f in fields}, "place": place.dump()}
    workers = [
        subprocess.Popen(  # noqa: S603 - this interpreter, on the checked entry
            [
                sys.executable,
                "-c",
                _CHILD,
                json.dumps({**request, "folder": str(folder), "rank": rank}),
            ],
            env={**os.environ, **names},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        # Importing takes longer than this training, so one process imports and forks the other.
        for rank in ((None,) if _FORKS else (0, 1))
    ]
    end = time.monotonic() + _SECONDS
    try:
        texts = [worker.communicate(timeout=end - time.monotonic())[1] for worker in workers]
    except subprocess.TimeoutExpired:
        raise CheckError(f"a training on two processes takes more than {_SECONDS} s") from None
    finally:
        for worker in workers:
            _end(worker)
    rows = []
    for rank in range(2):
        files = _Files(folder, rank)
        if not files.digests.is_file():
            text = files.errors.read_text() if files.errors.is_file() else "".join(texts)
            last = (text.strip().splitlines() or ["no output"])[-1]
            raise CheckError(f"a training on two processes fails: {last}")
        rows.append(json.loads(files.digests.read_text()))
    return rows


def _end(worker: subprocess.Popen[str]) -> None:
    """End a process and the one that it forked."""
    if _FORKS:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
    worker.kill()
    worker.wait()


def _compare_digests(first: dict[str, str], second: dict[str, str]) -> None:
    names = [name for name in first if first[name] != second.get(name)]
    if names or first.keys() != second.keys():
        name = names[0] if names else next(iter(first.keys() ^ second.keys()))
        raise CheckError(
            f"{name} differs between two processes: compute it from means over all processes, or "
            "from parameters"
        )


def _state(stage: nn.Module) -> dict[str, Tensor]:
    """Everything that a stage holds in tensors, also what checkpoints leave out."""
    return {**stage.state_dict(), **dict(unsaved_buffers(stage))}


def _compare(name: str, whole: dict[str, Tensor], resumed: dict[str, Tensor]) -> None:
    for key, value in whole.items():
        other = resumed.get(key)
        if other is None or not torch.equal(value, other):
            owner = "" if name == NAME else f" of the neighbour {name!r}"
            raise CheckError(
                f"{key}{owner} differs after a training that was stopped and resumed: keep state "
                "in parameters and persistent buffers, not in Python attributes"
            )


def _digest(value: Tensor) -> str:
    whole = value.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(whole.numpy().tobytes()).hexdigest()
