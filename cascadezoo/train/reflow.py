"""Reflow: a generator's own pairs of noise and image, made once, kept beside the checkpoints.

Liu, Gong and Liu 2023, "Flow Straight and Fast", section 3.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.accelerator import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.errors import CheckpointError
from cascadezoo.spec import PhaseSpec, ReflowSpec
from cascadezoo.stages.base import SampleRequest
from cascadezoo.train.checkpoint import reason_of, sync
from cascadezoo.train.progress import Progress
from cascadezoo.util.rng import ImageDraw, derive_seed

__all__ = ["PairLoader", "PairStore", "Pairs", "make_pairs", "pairs_of"]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Noise and what the generator makes of it, in host memory.

    Args:
        noise: float32 [N, C, H, W], standard normal.
        images: float32, of the same shape.
        labels: int64 [N]; None without labels.
    """

    noise: Tensor
    images: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.noise)


class PairLoader:
    """Training batches of pairs: shuffled every epoch, as the phase's key says.

    The pairs stay in host memory, from where only the batch is moved. An epoch drops the pairs
    that do not fill a batch; which ones changes with every epoch.

    Args:
        pairs: at least a batch of them.
        batch_size: pairs of a step, of all processes together.
        key: what the order follows from.
        device: where the batches are wanted.
        rank: this process's number.
        world: how many processes share a batch.
    """

    def __init__(
        self,
        pairs: Pairs,
        *,
        batch_size: int,
        key: tuple[str | int, ...],
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.pairs = pairs
        self.batch_size = batch_size
        self.steps_per_epoch = len(pairs) // batch_size
        self.device = torch.device(device)
        self._local = batch_size // world
        self._key, self._rank = key, rank
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def batch(self, epoch: int, index: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """This process's share of a batch.

        Args:
            epoch: from 0.
            index: the batch's number in the epoch, below ``steps_per_epoch``.

        Returns:
            Noise and images, float32 [batch_size / world, C, H, W], and labels, int64, or None.
        """
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(derive_seed(*self._key, "order", epoch))
            self._order = torch.randperm(len(self.pairs), generator=generator)
            self._epoch = epoch
        start = index * self.batch_size + self._rank * self._local
        rows = self._order[start : start + self._local]
        labels = self.pairs.labels
        return (
            self._take(self.pairs.noise, rows),
            self._take(self.pairs.images, rows),
            None if labels is None else self._take(labels, rows),
        )

    def _take(self, values: Tensor, rows: Tensor) -> Tensor:
        taken = values.index_select(0, rows)
        if self.device.type != "cuda":
            return taken.to(self.device)
        return taken.pin_memory().to(self.device, non_blocking=True)


@torch.no_grad()
def make_pairs(
    cascade: Cascade,
    phase: PhaseSpec,
    reflow: ReflowSpec,
    accelerator: Accelerator,
    *,
    batch_size: int,
    check: Callable[[], None] = lambda: None,
    progress: Progress,
) -> Pairs:
    """Let the generator make the pairs of a phase; processes share the work and get them all.

    Pair ``i`` follows from (seed, phase, i) and the weights alone, up to rounding. It has the
    label ``i % num_classes``.

    Args:
        cascade: with the weights that the phase begins with; it is put into eval mode.
        phase: the phase.
        reflow: how many, and how they are sampled.
        accelerator: of this process.
        batch_size: at most so many at a time in this process.
        check: called before each block, in every process alike; may raise.
        progress: told how far it is.

    Raises:
        SampleError: steps, guidance or sampler that the generator cannot serve.
    """
    name = cascade.names[0]
    stage, shape = cascade.stage(name), cascade.resolved.stages[0].output
    classes, device = cascade.resolved.num_classes, cascade.device
    rank, world = accelerator.process_index, accelerator.num_processes
    size = (shape.channels, shape.size, shape.size)
    noise, images = torch.empty(reflow.pairs, *size), torch.empty(reflow.pairs, *size)
    cascade.eval()
    progress.task(f"{name} makes {reflow.pairs} pairs", reflow.pairs)
    start = 0
    while start < reflow.pairs:
        check()
        # The same count in every process; what goes beyond the last pair is dropped.
        count = min(batch_size, math.ceil((reflow.pairs - start) / world))
        first = start + rank * count
        draw = ImageDraw(cascade.spec.seed, f"{phase.name}/{name}/pairs", first, count, device)
        given = draw.randn(count, *size)
        end = min(start + count * world, reflow.pairs)
        noise[start:end] = accelerator.gather(given)[: end - start].cpu()
        labels = None
        if classes is not None:
            labels = torch.arange(first, first + count, device=device) % classes
        request = SampleRequest(count, draw, labels, **reflow.settings())
        made = stage.make_pairs(given, request).float()
        images[start:end] = accelerator.gather(made)[: end - start].cpu()
        progress.advance(end)
        start = end
    every = None if classes is None else torch.arange(reflow.pairs) % classes
    return Pairs(noise, images, every)


class PairStore:
    """The pairs of phases as files, one a phase.

    Args:
        folder: that of the checkpoints; made if it is not there.
        digest: of the training that the pairs belong to.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self.folder = folder
        self.digest = digest

    def path(self, phase: int) -> Path:
        """Where the pairs of a phase lie."""
        return self.folder / f"pairs-{phase}.safetensors"

    def save(self, phase: int, pairs: Pairs) -> None:
        """Write the pairs of a phase.

        Raises:
            CheckpointError: they cannot be written, e.g. because the disk is full.
        """
        path = self.path(phase)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        rows = {"noise": pairs.noise, "images": pairs.images}
        if pairs.labels is not None:
            rows["labels"] = pairs.labels
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(rows, temporary, metadata={"training": self.digest})
            sync(temporary)
            temporary.rename(path)
            sync(self.folder)
        except (OSError, SafetensorError) as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise CheckpointError(
                f"the {len(pairs)} pairs of phase {phase} cannot be written to {self.folder}: "
                f"{reason_of(error)}",
                hint="make room there, then run the same command again to go on",
                code="checkpoint-pairs-not-writable",
                path=self.folder,
                count=len(pairs),
            ) from error

    def load(self, phase: int) -> Pairs | None:
        """The pairs of a phase; None where there are none of this training.

        Raises:
            CheckpointError: the file cannot be read.
        """
        path = self.path(phase)
        try:
            with safe_open(path, framework="pt") as file:
                if (file.metadata() or {}).get("training") != self.digest:
                    return None
                labels = file.get_tensor("labels") if "labels" in file.keys() else None  # noqa: SIM118
                return Pairs(file.get_tensor("noise"), file.get_tensor("images"), labels)
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"the pairs in {path} cannot be read: {reason_of(error)}",
                hint="start over with --fresh",
                code="checkpoint-pairs-unreadable",
                path=path,
            ) from error

    def clear(self, before: int) -> None:
        """Remove the pairs of the phases before that one, and what killed processes left."""
        for path in self.folder.glob("pairs-*.safetensors"):
            number = path.stem.removeprefix("pairs-")
            if number.isdecimal() and int(number) < before:
                path.unlink(missing_ok=True)
        for rest in self.folder.glob(".pairs-*.tmp"):
            rest.unlink(missing_ok=True)


def pairs_of(
    cascade: Cascade,
    phase: PhaseSpec,
    index: int,
    accelerator: Accelerator,
    store: PairStore | None,
    *,
    going_on: bool,
    batch_size: int,
    check: Callable[[], None] = lambda: None,
    progress: Progress,
) -> Pairs:
    """The pairs of a phase: those that are kept, else made with the weights as they are, and kept.

    Args:
        cascade: with the weights that the phase begins with, or goes on with.
        phase: a phase with ``reflow``.
        index: its number.
        accelerator: of this process; the main one writes.
        store: where the pairs are kept; None keeps them in memory only.
        going_on: whether steps of the phase are done, so that its pairs cannot be made again.
        batch_size: as for :func:`make_pairs`, like what follows.
        check: likewise.
        progress: likewise.

    Raises:
        CheckpointError: they are gone, or cannot be read or written.
    """
    if phase.reflow is None:
        raise ValueError(f"phase {phase.name!r} has no reflow")
    pairs = None if store is None else store.load(index)
    if pairs is None and going_on:
        raise CheckpointError(
            f"phase {phase.name!r} cannot go on: the pairs that it trains on are gone",
            hint="start over with --fresh",
            code="checkpoint-pairs-gone",
            name=phase.name,
        )
    if pairs is None:
        pairs = make_pairs(
            cascade,
            phase,
            phase.reflow,
            accelerator,
            batch_size=batch_size,
            check=check,
            progress=progress,
        )
        if store is not None and accelerator.is_main_process:
            store.save(index, pairs)
    return pairs
