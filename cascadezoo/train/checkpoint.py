"""Checkpoints, written atomically: to a temporary folder that is synced and renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cascadezoo.cascade.weights import save_state
from cascadezoo.errors import CheckpointError
from cascadezoo.util.files import sha256_of

__all__ = ["Checkpoint", "CheckpointStore", "Position", "reason_of", "sync"]

WEIGHTS = "weights.safetensors"
AVERAGE = "average.safetensors"
OPTIMIZER = "optimizer.pt"
STATE = "state.json"


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
    """The state that a training needs to resume exactly."""

    position: Position
    training_digest: str
    weights: Mapping[str, Tensor]
    average: Mapping[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)


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

        Raises:
            CheckpointError: it cannot be written, e.g. because the disk is full.
        """
        place = checkpoint.position
        final = self.folder / f"step-{place.global_step:09d}-phase-{place.phase}"
        temporary = self.folder / f".{final.name}.{os.getpid()}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._clear()
            temporary.mkdir()
            save_state(checkpoint.weights, temporary / WEIGHTS)
            save_state(checkpoint.average, temporary / AVERAGE)
            torch.save(checkpoint.optimizer, temporary / OPTIMIZER)
            state = {
                "position": asdict(place),
                "training_digest": checkpoint.training_digest,
                "files": {
                    name: sha256_of(temporary / name) for name in (WEIGHTS, AVERAGE, OPTIMIZER)
                },
            }
            (temporary / STATE).write_text(json.dumps(state, indent=2))
            for path in (*temporary.iterdir(), temporary):
                sync(path)
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
        for old in self._folders()[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)
        return final

    def newest(self) -> Checkpoint | None:
        """The newest intact checkpoint; None without checkpoints.

        Raises:
            CheckpointError: all checkpoints are damaged.
        """
        folders = self._folders()
        faults = []
        for folder in reversed(folders):
            try:
                return self._load(folder)
            except (OSError, SafetensorError, RuntimeError, ValueError, KeyError) as error:
                faults.append(f"{folder.name}: {reason_of(error)}")
        if faults:
            raise CheckpointError(
                f"all checkpoints in {self.folder} are damaged: {'; '.join(faults)}",
                hint="start over with --fresh",
                code="checkpoint-none-whole",
                path=self.folder,
            )
        return None

    def steps(self) -> list[int]:
        """The steps (of the whole training) that have a checkpoint."""
        return [int(folder.name.split("-")[1]) for folder in self._folders()]

    def _load(self, folder: Path) -> Checkpoint:
        state = json.loads((folder / STATE).read_text())
        for name, digest in state["files"].items():
            if sha256_of(folder / name) != digest:
                raise ValueError(f"{name} is changed or truncated")
        return Checkpoint(
            position=Position(**state["position"]),
            training_digest=state["training_digest"],
            weights=load_file(folder / WEIGHTS),
            average=load_file(folder / AVERAGE),
            optimizer=torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True),
        )

    def _folders(self) -> list[Path]:
        return sorted(self.folder.glob("step-*-phase-*")) if self.folder.is_dir() else []

    def _clear(self) -> None:
        """Remove the files of killed processes; the run's lock excludes running ones."""
        for path in self.folder.glob(".step-*.tmp"):
            shutil.rmtree(path, ignore_errors=True)


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def reason_of(error: BaseException) -> str:
    """The reason of an error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]
