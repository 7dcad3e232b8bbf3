"""The trainer: runs the phases in order, each as a loop over steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.accelerator import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from cascadezoo.cascade.cascade import Cascade, channels_last
from cascadezoo.data.base import ImageData
from cascadezoo.data.loader import BatchLoader
from cascadezoo.errors import DataError, RunFolderError, StoppedError, TrainingError
from cascadezoo.nn.compiled import uncompile_failed
from cascadezoo.spec import PhaseSpec
from cascadezoo.train.callbacks import Callbacks, SamplesEvent
from cascadezoo.train.checkpoint import Checkpoint, CheckpointStore, Position
from cascadezoo.train.ema import make_ema
from cascadezoo.train.events import DAMAGED, EventLog
from cascadezoo.train.exchange import GradientExchange
from cascadezoo.train.extra_losses import ExtraLoss
from cascadezoo.train.graphs import graphed
from cascadezoo.train.loss_sums import LossSums, check_finite
from cascadezoo.train.memory import is_out_of_memory, reset_peak
from cascadezoo.train.optim import (
    apply_gradients,
    check_groups,
    check_shardable,
    make_optimizers,
    schedule_factor,
)
from cascadezoo.train.phase import Batches, PhaseRun, epoch_steps
from cascadezoo.train.phase_end import finish_phase, stages_to_finish
from cascadezoo.train.progress import Progress, QuietProgress
from cascadezoo.train.recorder import Recorder
from cascadezoo.train.reflow import PairLoader, PairStore, pairs_of
from cascadezoo.train.sharded_tensors import whole_value
from cascadezoo.train.stage_state import StageState, check_declarations
from cascadezoo.train.step import PhaseWalk
from cascadezoo.train.stopwatch import Stopwatch
from cascadezoo.util.processes import Peers, is_lost_peer, lost_peers
from cascadezoo.util.rng import derive_seed, seed_global

if TYPE_CHECKING:
    from cascadezoo.train.sharding import ShardedCascade

__all__ = ["Figures", "Samples", "Trainer"]

_OTHER = (
    "restore the spec, data and plugins of that training, choose another folder with -o DIR, or "
    "start over with --fresh"
)

Figures = Callable[[Cascade], list[dict[str, Any]]]
"""Computes figures of a cascade during training, as rows of events."""

Samples = Callable[[Cascade], Mapping[str, NDArray[np.uint8]]]
"""Samples images of a cascade, uint8 [N, H, W, C] by stage."""


class Trainer:
    """Trains a cascade according to its spec.

    Args:
        cascade: the cascade, already on its device.
        loader: the training images, in batches of this process's share.
        accelerator: the accelerator of this device.
        data: the images of the loader; required if a stage overrides ``finish_phase``, which
            reads them at the end of a phase that trained the stage.
        losses: the extra losses, on the device.
        store: stores checkpoints; None writes none.
        events: records events.
        progress: displays the progress.
        figures: computes figures every ``figures_every`` epochs. All processes call it; the rows of
            the first one are recorded.
        figures_every: number of epochs; None computes no figures.
        pictures: draws pictures beside the figures, from the number and name of the phase and the
            epoch; only in the first process.
        stop: called after every step; a text stops the training after a checkpoint.
        callbacks: receive events; only in the first process.
        samples: samples images for the callbacks at the end of each phase; given to all processes
            or to none.
        graphs: replay the trained networks from CUDA graphs.
    """

    def __init__(
        self,
        cascade: Cascade,
        loader: BatchLoader,
        accelerator: Accelerator,
        *,
        data: ImageData | None = None,
        losses: list[ExtraLoss] | None = None,
        store: CheckpointStore | None = None,
        events: EventLog | None = None,
        progress: Progress | None = None,
        figures: Figures | None = None,
        figures_every: int | None = None,
        pictures: Callable[[Cascade, int, str, int], None] | None = None,
        stop: Callable[[], str | None] = lambda: None,
        callbacks: Callbacks | None = None,
        samples: Samples | None = None,
        graphs: bool = False,
    ) -> None:
        self.sharded: ShardedCascade | None = None
        if cascade.spec.training.parallel == "fsdp" and accelerator.num_processes > 1:
            check_shardable(cascade.spec.training, dict(cascade.named_stages()), accelerator.scaler)
            # Its part of torch takes a second to import.
            from cascadezoo.train.sharding import ShardedCascade

            self.sharded = ShardedCascade(cascade)
            cascade = self.sharded.cascade
        # The memory layout for tensor cores; saved weights are contiguous in any case.
        self.cascade = cascade if self.sharded else channels_last(cascade)
        self.graphs = graphs
        self.spec = cascade.spec
        self.training = cascade.spec.training
        self.loader = loader
        self.accelerator = accelerator
        self.data = data
        self.losses = losses or []
        self.store = store if accelerator.is_main_process else None
        self.saved = store
        self.pairs: PairStore | None = None
        if store is not None:
            self.pairs = PairStore(store.folder, self.spec.training_digest())
        self.events = events or EventLog(None)
        self.progress = progress or QuietProgress()
        self.callbacks = callbacks or Callbacks()
        self.record = Recorder(self.events, self.progress, self.callbacks)
        self.samples = samples
        self.figures = figures
        self.figures_every = figures_every
        self.pictures = pictures
        self.stop = stop
        self.position = Position()
        self.peers = Peers()
        self._learning = {
            name: [p for p in stage.parameters() if p.requires_grad]
            for name, stage in cascade.named_stages()
        }
        check_groups(self.phases, dict(cascade.named_stages()))
        check_declarations(stage for _, stage in cascade.named_stages())
        self._updated = False
        # Made for all phases, so that a batch size that cannot be split stops the first.
        self._loaders = [
            loader if p.batch_size is None else loader.with_batch_size(p.batch_size)
            for p in self.phases
        ]
        uneven = [
            made for made in self._loaders if made.local_batch_size % self.training.accumulate
        ]
        if uneven:
            world, parts = accelerator.num_processes, self.training.accumulate
            raise DataError(
                f"{world} processes cannot split a batch of {uneven[0].batch_size} images into "
                f"{parts} equal parts each",
                hint=f"set training.batch_size to a multiple of {world * parts}",
                code="data-batch-uneven",
                batch_size=uneven[0].batch_size,
                world=world,
                accumulate=parts,
            )
        finish = [name for phase in self.phases for name in stages_to_finish(cascade, phase.train)]
        if finish and data is None:
            raise ValueError(f"{finish[0]} needs training images for finish_phase; pass data")

    @property
    def phases(self) -> list[PhaseSpec]:
        """The phases of the resolved spec."""
        return self.training.phases or []

    def run(self) -> None:
        """Train all phases, from the newest checkpoint if there is one.

        Raises:
            StoppedError: ``stop`` returned a reason; a checkpoint was written.
            TrainingError: a loss is not finite, or memory ran out.
            CheckpointError: a checkpoint cannot be written or read.
            RunFolderError: the checkpoint is of another spec, of other data or of other code, or
                the events cannot be read or written.
            DiskFullError: the events cannot be written.
            PluginError: a callback failed; a checkpoint was written.
            TrainingError: another process has ended.
        """
        with lost_peers():
            self._run()

    def _run(self) -> None:
        reset_peak(self.cascade.device)
        faults: dict[str, str] = {}
        restored = self.saved.newest(faults.__setitem__) if self.saved else None
        if restored is not None:
            self._restore(restored)
        # A build that was killed before its first checkpoint may have left events.
        damaged = self.events.rewind(self.position.global_step if restored else -1)
        self._say_damage(faults, damaged)
        if self.store is not None and self.pairs is not None:
            self.pairs.clear(before=self.position.phase)
        for index in range(self.position.phase, len(self.phases)):
            self._run_phase(index, restored)
            restored = None
        self._freeze(())
        for parameters in self._learning.values():
            for parameter in parameters:
                parameter.requires_grad_(True)
        if self.sharded is not None:
            self.sharded.restore()

    # --- one phase

    def _run_phase(self, index: int, restored: Checkpoint | None) -> None:
        phase = self._begin(index)
        if restored is not None and restored.optimizer:
            self._restore_phase(phase, restored)
        try:
            phase.batches.pairs = self._pairs(phase)
            self.record.mark(phase, "start", self.position.global_step)
            self.callbacks.check()
            counts = (index, len(self.phases), phase.total, self.position.step)
            self.progress.phase(phase.spec.name, *counts)
            trained = [(n, s) for n, s in self.cascade.named_stages() if n in phase.spec.train]
            with graphed(trained if self.graphs else ()):
                self._loop(phase)
            phase.state.check()
            if phase.ema is not None:
                phase.ema.swap()
            phase.state.share_batch_statistics()
            self._finish(phase)
            self._samples(phase)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingError(
                f"phase {phase.spec.name!r}: out of memory on {self.cascade.device}",
                hint="lower training.batch_size, raise training.accumulate, set "
                "training.recompute, or use --precision bf16",
                code="training-out-of-memory",
                name=phase.spec.name,
            ) from error
        finally:
            # Collecting all of Python's garbage takes up to a second. On a CPU it comes by itself.
            if self.cascade.device.type != "cpu":
                self.accelerator.free_memory()
        self.record.mark(phase, "end", self.position.global_step)
        self.position = replace(self.position, phase=index + 1, step=0)
        self._save(None)
        self.callbacks.check()
        if self.store is not None and self.pairs is not None:
            self.pairs.clear(before=index + 1)

    def _begin(self, index: int) -> PhaseRun:
        spec = self.phases[index]
        loader = self._loaders[index]
        per_epoch = epoch_steps(spec, loader)
        total = spec.steps or (spec.epochs or 0) * per_epoch
        self._freeze(spec.train)
        trained = {n: s for n, s in self.cascade.named_stages() if n in spec.train}
        walk = PhaseWalk(
            self.cascade,
            spec,
            total,
            losses=self.losses,
            seed=self.spec.seed,
            autocast=self.accelerator.autocast,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )
        optimizers = make_optimizers(spec, trained)
        return PhaseRun(
            spec=spec,
            index=index,
            total=total,
            per_epoch=per_epoch,
            walk=walk,
            optimizers=optimizers,
            ema=make_ema(self.training.ema, spec, trained),
            batches=Batches(loader, index, self.cascade.resolved.num_classes is not None),
            # FSDP exchanges gradients itself.
            exchange=GradientExchange(() if self.sharded else optimizers),
            state=StageState(
                self.cascade,
                walk.learning,
                phase=spec.name,
                total=total,
                seed=self.spec.seed,
                parameters=self.sharded is None,
            ),
        )

    def _pairs(self, phase: PhaseRun) -> PairLoader | None:
        if phase.spec.reflow is None:
            return None
        began = time.monotonic()
        loader = phase.batches.loader
        with self._whole() as cascade:
            pairs = pairs_of(
                cascade,
                phase.spec,
                phase.index,
                self.accelerator,
                self.pairs,
                resumed=self.position.step > 0,
                batch_size=loader.local_batch_size,
                check=lambda: self._check_stop(f"making the pairs of phase {phase.spec.name!r}"),
                progress=self.progress,
            )
        self._freeze(phase.spec.train)
        self._add_seconds(began)
        return PairLoader(
            pairs,
            batch_size=loader.batch_size,
            key=(self.spec.seed, phase.spec.name, "pairs"),
            device=self.accelerator.device,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )

    def _finish(self, phase: PhaseRun) -> None:
        """Let stages measure their targets; a stop leaves the phase as after its last step."""
        names = stages_to_finish(self.cascade, phase.spec.train)
        if not names or self.data is None:
            return
        began = time.monotonic()
        try:
            with self._whole() as cascade:
                finish_phase(
                    cascade,
                    names,
                    self.data,
                    phase=phase.spec.name,
                    batch_size=phase.batches.loader.local_batch_size,
                    check=lambda: self._check_stop(f"ending phase {phase.spec.name!r}"),
                    progress=self.progress,
                )
            phase.state.broadcast(names)
        except StoppedError as error:
            if phase.ema is not None:
                phase.ema.swap()
            self._save(phase)
            raise StoppedError(
                self._with_checkpoint(error.what), code=error.code, **error.fields
            ) from None
        self._add_seconds(began)

    def _check_stop(self, doing: str) -> None:
        """Raise if a stop was requested. All processes call this together, so they agree."""
        reason = self.peers.agree(self.stop(), failed=False, due=False, now=True).reason
        if reason is not None:
            raise StoppedError(
                f"stopped by {reason} while {doing}",
                code="interrupted-doing",
                reason=reason,
                doing=doing,
            )

    def _add_seconds(self, began: float) -> None:
        seconds = self.position.seconds + time.monotonic() - began
        self.position = replace(self.position, seconds=seconds)

    def _with_checkpoint(self, what: str) -> str:
        return what + ("; a checkpoint was written" if self.store else "")

    def _freeze(self, train: Iterable[str]) -> None:
        for name, stage in self.cascade.named_stages():
            learns = name in train
            stage.train(learns)
            for parameter in self._learning[name]:
                parameter.requires_grad_(learns)

    # --- the loop

    def _loop(self, phase: PhaseRun) -> None:
        epochs = math.ceil(phase.total / phase.per_epoch)
        log, epoch_sums = LossSums(shared=True), LossSums(shared=True)
        watch = Stopwatch(self.position.seconds)
        for step in range(self.position.step, phase.total):
            losses = self._step_or_save(phase, step)
            log.add(losses)
            log.flags.update(phase.walk.checks.take_flags())
            epoch_sums.add(losses)
            done = step + 1
            epoch = math.ceil(done / phase.per_epoch)
            last = done == phase.total
            whole = done % phase.per_epoch == 0
            at = self.position.global_step + 1
            self.position = replace(self.position, step=done, global_step=at)
            self.progress.step(done, epoch, epochs)
            if done % self.training.log_steps == 0 or last:
                watch.log_began = self.record.log(phase, log, done, at, watch.log_began)
                seconds = watch.trained(watch.log_began)
                self.position = replace(self.position, seconds=seconds)
            if whole or last:
                now = self.record.epoch(phase, epoch_sums, done, at, watch.epoch_began)
                watch.next_epoch(now, self._figures(phase, epoch, last, whole))
            agreed = self.peers.agree(
                self.stop(),
                failed=self.callbacks.failure is not None,
                due=watch.checkpoint_due(self.training.checkpoint_seconds),
                now=last,
            )
            reason = agreed.reason
            if reason is not None or agreed.failed or (agreed.due and not last):
                losses_read = log.read()
                phase.walk.checks.read(log.finite)
                check_finite(phase.spec.name, step, losses_read)
                phase.state.check()
                self.position = replace(self.position, seconds=watch.trained())
                self._save(phase)
                watch.checkpoint_written()
            self.callbacks.check()
            if agreed.failed and reason is None:
                raise TrainingError(
                    "a callback of the first process failed", code="training-process-lost"
                )
            if reason is not None:
                where = f"in phase {phase.spec.name!r} after step {done} of {phase.total}"
                raise StoppedError(
                    self._with_checkpoint(f"stopped by {reason} {where}"),
                    code="interrupted-training",
                    reason=reason,
                    phase=phase.spec.name,
                    step=done,
                )

    def _step_or_save(self, phase: PhaseRun, step: int) -> Mapping[str, Tensor]:
        """One training step. If another process ends meanwhile, the last step is saved."""
        versions, self._updated = phase.state.versions(), False
        try:
            return self._step(phase, step)
        except RuntimeError as error:
            # Before the optimizer's step, the weights still are those of the last step. Buffers are
            # if forward has not changed them.
            if (
                self.sharded is None
                and is_lost_peer(error)
                and not self._updated
                and phase.state.versions() == versions
            ):
                self._save(phase)
            raise

    def _step(self, phase: PhaseRun, step: int) -> Mapping[str, Tensor]:
        """One training step; returns the losses by name, on the device."""
        self._seed(phase, step)
        batch = phase.batches.batch(*divmod(step, phase.per_epoch))
        try:
            losses = self._gradients(phase, batch, step)
        except Exception as error:
            if not uncompile_failed(self.cascade, error):
                raise
            for group in phase.optimizers:
                group.optimizer.zero_grad(set_to_none=True)
            self._seed(phase, step)
            losses = self._gradients(phase, batch, step)
        phase.walk.checks.end(losses, (row for g in phase.optimizers for row in g.learning(step)))
        schedule = phase.spec.schedule or self.training.schedule
        factor = schedule_factor(schedule, step, phase.total, phase.per_epoch)
        for group in phase.optimizers:
            group.set_factor(factor)
        self._updated = True
        apply_gradients(self.accelerator, phase.optimizers, self.training.clip_norm)
        phase.state.finish_step(step, phase.walk.statistics)
        if phase.ema is not None:
            phase.ema.update(step)
        return losses

    def _gradients(
        self, phase: PhaseRun, batch: tuple[Tensor, Tensor | None, Tensor | None], step: int
    ) -> Mapping[str, Tensor]:
        """Add up the gradients of all parts of a batch; return the mean losses by name."""
        parts = self.training.accumulate
        if parts == 1:
            losses = self._losses(phase, *batch, step)
            self._backward(phase, losses, step, last=True)
            return {k: v.detach() for rows in losses.values() for k, v in rows.items()}
        sums: dict[str, Tensor] = {}
        for part in range(parts):
            images, labels, noise = (None if b is None else b.chunk(parts)[part] for b in batch)
            assert images is not None  # noqa: S101 - for mypy: a batch has images
            losses = self._losses(phase, images, labels, noise, step, part=part, parts=parts)
            self._backward(phase, losses, step, last=part == parts - 1)
            for name, loss in ((k, v) for rows in losses.values() for k, v in rows.items()):
                sums[name] = loss.detach() / parts + sums.get(name, 0.0)
        return sums

    def _losses(
        self,
        phase: PhaseRun,
        images: Tensor,
        labels: Tensor | None,
        noise: Tensor | None,
        step: int,
        **share: int,
    ) -> dict[str, dict[str, Tensor]]:
        def compute() -> dict[str, dict[str, Tensor]]:
            return phase.walk.losses_of(images, labels, step, noise, **share)

        return compute() if self.sharded is None else self.sharded.run(compute)

    def _whole(self) -> AbstractContextManager[Cascade]:
        """The cascade with all weights, which this process may run on its own inside the block."""
        return nullcontext(self.cascade) if self.sharded is None else self.sharded.whole()

    def _seed(self, phase: PhaseRun, step: int) -> None:
        """Seed the global generators, which dropout uses, by the step."""
        rank = self.accelerator.process_index
        key = derive_seed(self.spec.seed, phase.spec.name, step, rank)
        seed_global(key, self.accelerator.device)

    def _backward(
        self, phase: PhaseRun, losses: Mapping[str, Mapping[str, Tensor]], step: int, *, last: bool
    ) -> None:
        """Propagate the losses of each group only to the parameters of that group.

        The last part of a batch exchanges the gradients of the processes.
        """
        totals = {name: torch.stack(list(rows.values())).sum() for name, rows in losses.items()}
        if self.training.accumulate > 1:
            totals = {name: total / self.training.accumulate for name, total in totals.items()}
        rows = [(g, totals[g.group], g.due(step)) for g in phase.optimizers if g.group in totals]
        rows = [(group, total, due) for group, total, due in rows if total.requires_grad and due]
        for left, (group, total, due) in zip(reversed(range(len(rows))), rows, strict=True):
            # A single group needs no list of parameters, which costs time.
            lone = len(phase.optimizers) == 1 and due is group.parameters
            inputs = None if lone else due
            if last:
                total = phase.exchange.watch(group.group, step, total)
            self.accelerator.backward(total, inputs=inputs, retain_graph=left > 0)

    def _figures(self, phase: PhaseRun, epoch: int, last: bool, whole: bool) -> float:
        """Compute the figures during training; return the seconds this took."""
        if self.figures is None or self.figures_every is None:
            return 0.0
        if not last and not (whole and epoch % self.figures_every == 0):
            return 0.0
        began = time.monotonic()
        learning = [p for p in self.cascade.parameters() if p.requires_grad]
        modes = {name: stage.training for name, stage in self.cascade.named_stages()}
        if phase.ema is not None:
            phase.ema.swap()
        phase.state.share_batch_statistics()  # all processes sample, and only one model is kept
        try:
            with self._whole() as cascade:
                rows = self.figures(cascade)
                if self.pictures is not None:
                    self.pictures(cascade, phase.index, phase.spec.name, epoch)
        finally:
            if phase.ema is not None:
                phase.ema.swap()
            for name, stage in self.cascade.named_stages():
                stage.train(modes[name])
            for parameter in learning:
                parameter.requires_grad_(True)
        self.accelerator.wait_for_everyone()
        self.record.figures(phase, rows, epoch, self.position.global_step)
        return time.monotonic() - began

    def _samples(self, phase: PhaseRun) -> None:
        """Send images to the callbacks: of the stages up to the last one that was trained so far.

        The generators of random numbers are seeded before each step, so sampling changes nothing.
        """
        if self.samples is None:
            return
        with self._whole() as cascade:
            images = self.samples(cascade) if self.accelerator.is_main_process else {}
        self.accelerator.wait_for_everyone()
        names = list(self.cascade.names)
        trained = {name for spec in self.phases[: phase.index + 1] for name in spec.train}
        until = max(names.index(name) for name in trained)
        shown = {name: images[name] for name in names[: until + 1] if name in images}
        if shown:
            self.callbacks.send(SamplesEvent(phase.spec.name, self.position.global_step, shown))

    # --- checkpoints

    def _save(self, phase: PhaseRun | None) -> None:
        if self.store is None and self.sharded is None:
            return
        optimizer: dict[str, Any] = {}
        if phase is not None:
            optimizer = {g.group: g.optimizer.state_dict() for g in phase.optimizers}
            if self.accelerator.scaler is not None:
                optimizer["scaler"] = self.accelerator.scaler.state_dict()
        weights = self.cascade.stages.state_dict()
        average = phase.ema.state_dict() if phase is not None and phase.ema else {}
        if self.sharded is not None:
            keep = self.store is not None
            weights, average = whole_value(weights, keep=keep), whole_value(average, keep=keep)
            optimizer = whole_value(optimizer, keep=keep)
        if self.store is None:
            return
        self.store.save(
            Checkpoint(
                position=self.position,
                training_digest=self.spec.training_digest(),
                weights=weights,
                average=average,
                optimizer=optimizer,
                data_digest=None if self.data is None else self.data.digest,
            )
        )

    def _say_damage(self, checkpoints: Mapping[str, str], events: int) -> None:
        """Show and record what a resumed training lost."""
        step = self.position.global_step
        for name, fault in checkpoints.items():
            self.progress.say(f"checkpoint {name} is damaged ({fault}); resuming from step {step}")
            self.events.write(
                "checkpoint-damaged", checkpoint=name, reason=fault, resumed_step=step
            )
        if events:
            self.progress.say(f"events.jsonl: {events} damaged rows were dropped")
            self.events.write(DAMAGED, rows=events)

    def _restore(self, checkpoint: Checkpoint) -> None:
        folder = None if self.saved is None else self.saved.folder
        if checkpoint.training_digest != self.spec.training_digest():
            raise RunFolderError(
                f"the checkpoint in {folder} belongs to a training of another spec",
                hint=_OTHER,
                code="run-folder-checkpoint-other-spec",
                path=folder,
            )
        data = None if self.data is None else self.data.digest
        if checkpoint.data_digest is not None and data not in (None, checkpoint.data_digest):
            raise RunFolderError(
                f"the checkpoint in {folder} belongs to a training on other images: the data have "
                "changed",
                hint=_OTHER,
                code="run-folder-checkpoint-other-data",
                path=folder,
            )
        with self._same_architecture():
            if self.sharded is not None:
                self.sharded.load(checkpoint.weights)
            else:
                self.cascade.stages.load_state_dict(dict(checkpoint.weights))
        self.position = checkpoint.position

    def _restore_phase(self, phase: PhaseRun, checkpoint: Checkpoint) -> None:
        with self._same_architecture():
            for group in phase.optimizers:
                group.load_state(checkpoint.optimizer[group.group])
            if phase.ema is not None:
                phase.ema.load_state_dict(checkpoint.average)
            if self.accelerator.scaler is not None and "scaler" in checkpoint.optimizer:
                self.accelerator.scaler.load_state_dict(checkpoint.optimizer["scaler"])

    @contextmanager
    def _same_architecture(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, KeyError) as error:
            folder = None if self.saved is None else self.saved.folder
            raise RunFolderError(
                f"the checkpoint in {folder} belongs to stages of another architecture: "
                f"{(str(error).splitlines() or [''])[-1].strip()}",
                hint=_OTHER,
                code="run-folder-checkpoint-other-architecture",
                path=folder,
            ) from error
