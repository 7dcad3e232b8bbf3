"""Checkpoints, written atomically: to a temporary folder that is synced and renamed.

state.json holds the sha256 of the other files, and the seal, written last, that of state.json, so
that every changed bit is detected. Checkpoints of version 0.1 without a seal can be read.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cascadezoo.cascade.weights import save_state
from cascadezoo.errors import CheckpointError
from cascadezoo.util.files import sha256_of, system_error
from cascadezoo.util.limits import is_sha256

__all__ = ["Checkpoint", "CheckpointStore", "Position", "reason_of", "sync"]

WEIGHTS = "weights.safetensors"
AVERAGE = "average.safetensors"
OPTIMIZER = "optimizer.pt"
STATE = "state.json"
SEAL = "seal"
FORMAT = 2
"""Since format 2 a checkpoint has a seal."""

_DAMAGE = (
    OSError,
    SafetensorError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    EOFError,
    pickle.UnpicklingError,
)
_NAME = re.compile(r"step-(\d{9,})-phase-(\d+)")


@dataclass(frozen=True, slots=True)
class Position:
    """The progress of a training.

    Args:
        phase: index of the current phase, from 0; the number of phases when done.
        step: finished steps of that phase.
        global_step: finished steps of all phases.
        seconds: training time so far.
    """

    phase: int = 0
    step: int = 0
    global_step: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Checkpoint:
    """The state that a training needs to resume exactly.

    Args:
        position: the progress.
        training_digest: the digest of everything in the spec that determines the weights.
        weights: the weights of all stages.
        average: the averaged weights, inside a phase.
        optimizer: the states of the optimizers, inside a phase.
        data_digest: the digest of the training images; None if unknown.
    """

    position: Position
    training_digest: str
    weights: Mapping[str, Tensor]
    average: Mapping[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    data_digest: str | None = None


class CheckpointStore:
    """The checkpoints of a run; keeps the newest ones.

    Args:
        folder: created with the first checkpoint.
        keep: number of checkpoints to keep.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint. The earlier ones stay usable if this fails.

        A whole checkpoint of the same position and training is kept as it is. Checkpoints of later
        positions are removed: they are damaged, since the training resumed before them.

        Raises:
            CheckpointError: it cannot be written, e.g. because the disk is full.
        """
        place = checkpoint.position
        final = self.folder / f"step-{place.global_step:09d}-phase-{place.phase}"
        temporary = self.folder / f".{final.name}.{os.getpid()}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._clear()
            if not self._has(final, checkpoint):
                temporary.mkdir()
                _write(checkpoint, temporary)
                if final.exists():
                    shutil.rmtree(final)
                temporary.rename(final)
                sync(self.folder)
        except (OSError, SafetensorError, RuntimeError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            earlier = self.steps()
            kept = f"the last one is of step {earlier[-1]}" if earlier else "no other one exists"
            raise CheckpointError(
                f"cannot write the checkpoint of step {place.global_step} to {self.folder}: "
                f"{reason_of(error)}; {kept}",
                hint="free disk space, then run the same command again to resume",
                code="checkpoint-not-writable",
                path=self.folder,
                step=place.global_step,
            ) from error
        names = self._folders()
        end = names.index(final) + 1
        for other in (*names[: max(0, end - self.keep)], *names[end:]):
            shutil.rmtree(other, ignore_errors=True)
        return final

    def newest(self, report: Callable[[str, str], None] | None = None) -> Checkpoint | None:
        """The newest whole checkpoint; None without checkpoints.

        Args:
            report: called with name and fault of each damaged checkpoint that is passed over.

        Raises:
            CheckpointError: all checkpoints are damaged.
        """
        faults: dict[str, str] = {}
        for folder in reversed(self._folders()):
            try:
                checkpoint = _read(folder)
            except _DAMAGE as error:
                faults[folder.name] = reason_of(error)
                continue
            if report is not None:
                for name, fault in faults.items():
                    report(name, fault)
            return checkpoint
        if faults:
            rows = "; ".join(f"{name}: {fault}" for name, fault in faults.items())
            raise CheckpointError(
                f"all checkpoints in {self.folder} are damaged: {rows}",
                hint="start over with --fresh",
                code="checkpoint-none-whole",
                path=self.folder,
            )
        return None

    def steps(self) -> list[int]:
        """The steps (of the whole training) that have a checkpoint."""
        return [_place(folder.name)[0] for folder in self._folders()]

    def _has(self, folder: Path, checkpoint: Checkpoint) -> bool:
        """Whether a folder holds a whole checkpoint of the same training and position.

        Replacing it would leave none, for a moment.
        """
        try:
            state = _read_state(folder)
        except _DAMAGE:
            return False
        same = (checkpoint.position.step, checkpoint.training_digest)
        return (state["position"]["step"], state["training_digest"]) == same

    def _folders(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        folders = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(folders, key=lambda path: _place(path.name))

    def _clear(self) -> None:
        """Remove the files of killed processes; the run's lock excludes running ones."""
        for path in self.folder.glob(".step-*.tmp"):
            shutil.rmtree(path, ignore_errors=True)


def _place(name: str) -> tuple[int, int]:
    """Step of the whole training and phase of a checkpoint, from the name of its folder."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name} is not the name of a checkpoint")
    return int(match[1]), int(match[2])


def _write(checkpoint: Checkpoint, folder: Path) -> None:
    save_state(checkpoint.weights, folder / WEIGHTS)
    save_state(checkpoint.average, folder / AVERAGE)
    # Given a path, torch hides the operating system's error.
    with (folder / OPTIMIZER).open("wb") as file:
        torch.save(checkpoint.optimizer, file)
    state = {
        "format": FORMAT,
        "position": asdict(checkpoint.position),
        "training_digest": checkpoint.training_digest,
        "data_digest": checkpoint.data_digest,
        "files": {name: sha256_of(folder / name) for name in (WEIGHTS, AVERAGE, OPTIMIZER)},
    }
    text = json.dumps(state, indent=2).encode()
    (folder / STATE).write_bytes(text)
    (folder / SEAL).write_bytes(_seal(text))
    for path in (*folder.iterdir(), folder):
        sync(path)


def _read(folder: Path) -> Checkpoint:
    """Read a checkpoint; raises one of ``_DAMAGE`` if it is not whole."""
    state = _read_state(folder)
    return Checkpoint(
        position=Position(**state["position"]),
        training_digest=state["training_digest"],
        weights=load_file(folder / WEIGHTS),
        average=load_file(folder / AVERAGE),
        optimizer=torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True),
        data_digest=state.get("data_digest"),
    )


def _read_state(folder: Path) -> dict[str, Any]:
    """Read state.json, and compare the seal and every file with their sha256."""
    text = (folder / STATE).read_bytes()
    sealed = (folder / SEAL).exists()
    if sealed and (folder / SEAL).read_bytes() != _seal(text):
        raise ValueError(f"{STATE} or {SEAL} is changed or truncated")
    state = json.loads(text)
    fault = _fault(state, folder.name)
    if fault is not None:
        raise ValueError(f"{STATE} is damaged: {fault}")
    if not sealed and "format" in state:
        raise ValueError(f"{SEAL} is missing")
    for name, digest in state["files"].items():
        if sha256_of(folder / name) != digest:
            raise ValueError(f"{name} is changed or truncated")
    return dict(state)


def _seal(text: bytes) -> bytes:
    return f"{hashlib.sha256(text).hexdigest()}\n".encode()


def _fault(state: object, name: str) -> str | None:
    """The fault of the content of state.json; None if it has none."""
    if not isinstance(state, dict):
        return "it is no JSON object"
    place, files = state.get("position"), state.get("files")
    if not isinstance(place, dict) or place.keys() != {one.name for one in fields(Position)}:
        return "position"
    counts = [place[key] for key in ("phase", "step", "global_step")]
    if not all(type(count) is int and count >= 0 for count in counts):
        return "position"
    if type(place["seconds"]) not in (int, float) or not 0 <= place["seconds"] < math.inf:
        return "position.seconds"
    if (place["global_step"], place["phase"]) != _place(name):
        return f"position is not that of {name}"
    if not isinstance(files, dict) or files.keys() != {WEIGHTS, AVERAGE, OPTIMIZER}:
        return "files"
    digests = [*files.values(), state.get("training_digest")]
    if state.get("data_digest") is not None:
        digests.append(state["data_digest"])
    if not all(isinstance(digest, str) and is_sha256(digest) for digest in digests):
        return "a sha256"
    return None


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def reason_of(error: BaseException) -> str:
    """The reason of an error in one line."""
    cause = system_error(error)
    if cause is not None and cause.strerror:
        return cause.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]
