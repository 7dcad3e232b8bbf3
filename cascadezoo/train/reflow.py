"""Reflow: a generator's own pairs of noise and image, made once and stored with the checkpoints.

Liu, Gong and Liu 2023, "Flow Straight and Fast", section 3.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.accelerator import Accelerator
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.cascade.stage_calls import guard, require_tensor
from cascadezoo.cascade.weights import save_tensors
from cascadezoo.errors import CheckpointError
from cascadezoo.spec import PhaseSpec, ReflowSpec
from cascadezoo.stages.base import SampleRequest
from cascadezoo.train.checkpoint import reason_of, sync
from cascadezoo.train.progress import Progress
from cascadezoo.util.rng import ImageDraw, derive_seed

__all__ = ["PairLoader", "PairStore", "Pairs", "make_pairs", "pairs_of"]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Noise and the images that the generator makes from it, in host memory.

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

    def digest(self) -> str:
        """The sha256 of all tensors with their shapes."""
        digest = hashlib.sha256()
        for tensor in (self.noise, self.images, self.labels):
            if tensor is not None:
                digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()


class PairLoader:
    """Training batches of pairs, shuffled every epoch by the phase's key.

    The pairs stay in host memory; only the batch moves to the device. Each epoch drops other pairs
    that do not fill a batch.

    Args:
        pairs: at least one batch of pairs.
        batch_size: pairs of a step in all processes together.
        key: the key of the order.
        device: the device of the batches.
        rank: index of this process.
        world: number of processes that share a batch.
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
            index: index of the batch in the epoch, below ``steps_per_epoch``.

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
        selected = values.index_select(0, rows)
        if self.device.type != "cuda":
            return selected.to(self.device)
        return selected.pin_memory().to(self.device, non_blocking=True)


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
    """Let the generator make the pairs of a phase. Processes share the work; each gets all pairs.

    Pair ``i`` depends only on (seed, phase, i) and the weights, up to rounding. Its label is
    ``i % num_classes``.

    Args:
        cascade: the cascade with the initial weights of the phase; set to eval mode.
        phase: the phase.
        reflow: the number of pairs and the sampling options.
        accelerator: the accelerator of this process.
        batch_size: maximum number of pairs at a time in this process.
        check: called before each block in every process; may raise.
        progress: displays the progress.

    Raises:
        SampleError: the generator does not support the steps, guidance or sampler.
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
        # The same count in every process; pairs beyond the last one are dropped.
        count = min(batch_size, math.ceil((reflow.pairs - start) / world))
        first = start + rank * count
        draw = ImageDraw(cascade.spec.seed, f"{phase.name}/{name}/pairs", first, count, device)
        drawn = draw.randn(count, *size)
        end = min(start + count * world, reflow.pairs)
        noise[start:end] = accelerator.gather(drawn)[: end - start].cpu()
        labels = None
        if classes is not None:
            labels = torch.arange(first, first + count, device=device) % classes
        request = SampleRequest(count, draw, labels, **reflow.settings())
        with guard(stage, "make_pairs"):
            made = stage.make_pairs(drawn, request)
        require_tensor(
            stage,
            "make_pairs",
            "the images",
            made,
            shape=tuple(drawn.shape),
            device=drawn.device,
            dtype=None,
        )
        made = made.float()
        images[start:end] = accelerator.gather(made)[: end - start].cpu()
        progress.advance(end)
        start = end
    every = None if classes is None else torch.arange(reflow.pairs) % classes
    return Pairs(noise, images, every)


class PairStore:
    """Stores pairs as files, one per phase.

    Args:
        folder: the folder of the checkpoints; created if missing.
        digest: digest of the training that the pairs belong to.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self.folder = folder
        self.digest = digest

    def path(self, phase: int) -> Path:
        """The file of a phase's pairs."""
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
            metadata = {"training": self.digest, "sha256": pairs.digest()}
            save_tensors(rows, temporary, metadata)
            sync(temporary)
            temporary.rename(path)
            sync(self.folder)
        except (OSError, SafetensorError) as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise CheckpointError(
                f"cannot write the {len(pairs)} pairs of phase {phase} to {self.folder}: "
                f"{reason_of(error)}",
                hint="free disk space, then run the same command again to resume",
                code="checkpoint-pairs-not-writable",
                path=self.folder,
                count=len(pairs),
            ) from error

    def load(self, phase: int) -> Pairs | None:
        """Load the pairs of a phase; None if this training has none.

        Raises:
            CheckpointError: the file cannot be read or is damaged.
        """
        path = self.path(phase)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("training") != self.digest:
                    return None
                labels = file.get_tensor("labels") if "labels" in file.keys() else None  # noqa: SIM118
                pairs = Pairs(file.get_tensor("noise"), file.get_tensor("images"), labels)
            # Files of version 0.1 without a sha256 can be read.
            if "sha256" in metadata and metadata["sha256"] != pairs.digest():
                raise ValueError("changed or truncated")
            return pairs
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"cannot read the pairs in {path}: {reason_of(error)}",
                hint="start over with --fresh",
                code="checkpoint-pairs-unreadable",
                path=path,
            ) from error

    def clear(self, before: int) -> None:
        """Remove the pairs of earlier phases, and the files of killed processes."""
        for path in self.folder.glob("pairs-*.safetensors"):
            number = path.stem.removeprefix("pairs-")
            if number.isdecimal() and int(number) < before:
                path.unlink(missing_ok=True)
        # safetensors writes to .tmp* first.
        for path in (*self.folder.glob(".pairs-*.tmp"), *self.folder.glob(".tmp*")):
            path.unlink(missing_ok=True)


def pairs_of(
    cascade: Cascade,
    phase: PhaseSpec,
    index: int,
    accelerator: Accelerator,
    store: PairStore | None,
    *,
    resumed: bool,
    batch_size: int,
    check: Callable[[], None] = lambda: None,
    progress: Progress,
) -> Pairs:
    """Load the pairs of a phase, or make them with the current weights and store them.

    Args:
        cascade: the cascade with the current weights.
        phase: a phase with ``reflow``.
        index: its index.
        accelerator: the accelerator of this process; the main process writes.
        store: stores the pairs; None keeps them only in memory.
        resumed: whether steps of the phase are done, so that its pairs cannot be made again.
        batch_size: as for :func:`make_pairs`.
        check: as for :func:`make_pairs`.
        progress: as for :func:`make_pairs`.

    Raises:
        CheckpointError: the pairs are missing, or cannot be read or written.
    """
    if phase.reflow is None:
        raise ValueError(f"phase {phase.name!r} has no reflow")
    try:
        pairs = None if store is None else store.load(index)
    except CheckpointError as error:
        if resumed:
            raise
        progress.say(f"{error.what}; making them again")
        pairs = None
    if pairs is None and resumed:
        raise CheckpointError(
            f"cannot resume phase {phase.name!r}: its training pairs are missing",
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
