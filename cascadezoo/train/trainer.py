"""The trainer: phases one after another, each a loop over steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor, nn

from cascadezoo.cascade import Cascade
from cascadezoo.data.loader import DeviceLoader
from cascadezoo.draws import derive_seed, seed_global
from cascadezoo.errors import Interrupted, TrainingError
from cascadezoo.spec import PhaseSpec
from cascadezoo.train.checkpoint import Checkpoint, CheckpointStore, Position
from cascadezoo.train.ema import Ema, make_ema
from cascadezoo.train.events import EventLog
from cascadezoo.train.optim import GroupOptimizer, make_optimizers, schedule_factor
from cascadezoo.train.progress import Progress, QuietProgress
from cascadezoo.train.step import ExtraLoss, PhaseWalk
from cascadezoo.train.sums import LossSums, check_finite

__all__ = ["Figures", "Trainer"]

Figures = Callable[[Cascade], list[dict[str, Any]]]
"""Computes figures of a cascade in the course of training, as events keep them."""


@dataclass(slots=True)
class _Phase:
    """What one phase needs while it runs."""

    spec: PhaseSpec
    total: int
    walk: PhaseWalk
    optimizers: list[GroupOptimizer]
    ema: Ema | None


class Trainer:
    """Trains a cascade as its spec says.

    Args:
        cascade: on its device already.
        loader: the training images, in batches of this process's share.
        accelerator: of that device.
        losses: the extra losses, on the device.
        store: where checkpoints go; None writes none.
        events: where figures go.
        progress: what is shown.
        figures: computed every ``figures_every`` epochs.
        figures_every: epochs; None computes none.
        stop: asked after every step; a text stops the training after a checkpoint.
    """

    def __init__(
        self,
        cascade: Cascade,
        loader: DeviceLoader,
        accelerator: Accelerator,
        *,
        losses: list[ExtraLoss] | None = None,
        store: CheckpointStore | None = None,
        events: EventLog | None = None,
        progress: Progress | None = None,
        figures: Figures | None = None,
        figures_every: int | None = None,
        stop: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.cascade = cascade
        self.spec = cascade.spec
        self.training = cascade.spec.training
        self.loader = loader
        self.accelerator = accelerator
        self.losses = losses or []
        self.store = store if accelerator.is_main_process else None
        self.reading = store
        self.events = events or EventLog(None)
        self.progress = progress or QuietProgress()
        self.figures = figures
        self.figures_every = figures_every
        self.stop = stop
        self.position = Position()
        self._learning = {
            name: [p for p in stage.parameters() if p.requires_grad]
            for name, stage in cascade.named_stages()
        }

    @property
    def phases(self) -> list[PhaseSpec]:
        """The phases of the resolved spec."""
        return self.training.phases or []

    def run(self) -> None:
        """Train all phases, going on from the newest checkpoint where there is one.

        Raises:
            Interrupted: ``stop`` asked for it; a checkpoint was written.
            TrainingError: a loss is not finite, or memory ran out.
            CheckpointError: a checkpoint cannot be written or read.
        """
        restored = self.reading.newest() if self.reading else None
        if restored is not None:
            self._restore(restored)
        else:
            # A build that was killed before its first checkpoint may have left some.
            self.events.rewind(-1)
        for index in range(self.position.phase, len(self.phases)):
            self._run_phase(index, restored)
            restored = None
        self._freeze(())
        for parameters in self._learning.values():
            for parameter in parameters:
                parameter.requires_grad_(True)

    # --- one phase

    def _run_phase(self, index: int, restored: Checkpoint | None) -> None:
        phase = self._begin(index)
        if restored is not None and restored.optimizer:
            self._restore_phase(phase, restored)
        first = self.position.step
        self._mark(phase, "start")
        shown = (index, len(self.phases), phase.total, first)
        self.progress.phase(phase.spec.name, *shown)
        try:
            for group in phase.optimizers:
                group.optimizer = self.accelerator.prepare_optimizer(group.optimizer)
            self._loop(phase)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"phase {phase.spec.name!r}: out of memory on {self.cascade.device}",
                hint="lower training.batch_size, or use --precision bf16",
            ) from error
        finally:
            self.accelerator.free_memory()
        if phase.ema is not None:
            phase.ema.swap()
        self._mark(phase, "end")
        self.position = replace(self.position, phase=index + 1, step=0)
        self._save(None)

    def _begin(self, index: int) -> _Phase:
        spec = self.phases[index]
        steps = self.loader.steps_per_epoch
        total = spec.steps or (spec.epochs or 0) * steps
        self._freeze(spec.train)
        trained = {n: s for n, s in self.cascade.named_stages() if n in spec.train}
        optimizers = make_optimizers(spec, trained)
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
        return _Phase(spec, total, walk, optimizers, make_ema(self.training.ema, trained))

    def _freeze(self, train: Iterable[str]) -> None:
        for name, stage in self.cascade.named_stages():
            learns = name in train
            stage.train(learns)
            for parameter in self._learning[name]:
                parameter.requires_grad_(learns)

    # --- the loop

    def _loop(self, phase: _Phase) -> None:
        per_epoch = self.loader.steps_per_epoch
        epochs = math.ceil(phase.total / per_epoch)
        log, epoch_sums = LossSums(), LossSums()
        saved = time.monotonic()
        began = time.monotonic()
        mark = epoch_began = began
        before = self.position.seconds
        measuring = 0.0
        for step in range(self.position.step, phase.total):
            epoch, index = divmod(step, per_epoch)
            losses = self._step(phase, step, epoch, index)
            log.add(losses)
            epoch_sums.add(losses)
            done = step + 1
            self.position = replace(
                self.position, step=done, global_step=self.position.global_step + 1
            )
            self.progress.step(done, epoch + 1, epochs)
            last = done == phase.total
            if done % self.training.log_steps == 0 or last:
                mark = self._log(phase, log, done, mark)
                trained = before + mark - began - measuring
                self.position = replace(self.position, seconds=trained)
            if done % per_epoch == 0 or last:
                now = self._epoch(phase, epoch_sums, done, epoch_began)
                epoch_began = now + self._figures(phase, epoch + 1, last, done % per_epoch == 0)
                mark += epoch_began - now
                measuring += epoch_began - now
            reason = self.stop()
            due = time.monotonic() - saved >= self.training.checkpoint_seconds
            if reason is not None or (due and not last):
                check_finite(phase.spec.name, step, log.read())
                trained = before + time.monotonic() - began - measuring
                self.position = replace(self.position, seconds=trained)
                self._save(phase)
                saved = time.monotonic()
            if reason is not None:
                raise Interrupted(
                    f"stopped by {reason} in phase {phase.spec.name!r} after step {done} of "
                    f"{phase.total}" + ("; a checkpoint is written" if self.store else "")
                )

    def _step(self, phase: _Phase, step: int, epoch: int, index: int) -> Mapping[str, Tensor]:
        # Dropout and the like draw from the global generators; keyed by the step as all else is.
        rank = self.accelerator.process_index
        key = derive_seed(self.spec.seed, phase.spec.name, step, rank)
        seed_global(key, self.accelerator.device)
        images, labels = self.loader.batch(self.position.phase * 1_000_000 + epoch, index)
        if self.cascade.resolved.num_classes is None:
            labels = None
        groups = phase.walk.losses_of(images, labels, step)
        schedule = phase.spec.schedule or self.training.schedule
        factor = schedule_factor(schedule, step, phase.total, self.loader.steps_per_epoch)
        totals = {name: torch.stack(list(rows.values())).sum() for name, rows in groups.items()}
        several = len(phase.optimizers) > 1
        for number, group in enumerate(phase.optimizers):
            total = totals.get(group.group)
            if total is None or not total.requires_grad:
                continue
            if several:
                # Each loss reaches its own group alone, whatever it was computed through.
                more = number < len(phase.optimizers) - 1
                self.accelerator.backward(total, inputs=group.parameters, retain_graph=more)
            else:
                self.accelerator.backward(total)
        for group in phase.optimizers:
            if self.accelerator.num_processes > 1:
                self._share(group.parameters)
            if self.training.clip_norm is not None:
                self.accelerator.clip_grad_norm_(group.parameters, self.training.clip_norm)
            group.set_factor(factor)
            group.optimizer.step()
            group.optimizer.zero_grad(set_to_none=True)
        if phase.ema is not None:
            phase.ema.update(step)
        return {k: v.detach() for rows in groups.values() for k, v in rows.items()}

    def _share(self, parameters: list[nn.Parameter]) -> None:
        """Average the gradients over the processes, in one message.

        Not by DistributedDataParallel: a step walks several stages, may leave some out, and goes
        backward once for each parameter group.
        """
        grads = [p.grad for p in parameters if p.grad is not None]
        if not grads:
            return
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        mean = self.accelerator.reduce(flat, reduction="mean")
        parts = mean.split([grad.numel() for grad in grads])
        for grad, part in zip(grads, parts, strict=True):
            grad.copy_(part.view_as(grad))

    def _log(self, phase: _Phase, sums: LossSums, done: int, mark: float) -> float:
        count = sums.count
        losses = sums.take()
        now = time.monotonic()
        check_finite(phase.spec.name, done - 1, losses)
        rate = count * self.loader.batch_size / max(now - mark, 1e-9)
        self.progress.losses(losses, rate)
        self.events.write(
            "log",
            phase=phase.spec.name,
            phase_index=self.position.phase,
            epoch=done / self.loader.steps_per_epoch,
            step=self.position.global_step,
            losses=losses,
            lr={k: v for group in phase.optimizers for k, v in group.lr().items()},
            teacher_forcing=phase.walk.forcing(done - 1),
            images_per_second=round(rate, 2),
            seconds=round(now - mark, 4),
        )
        return now

    def _epoch(self, phase: _Phase, sums: LossSums, done: int, began: float) -> float:
        per_epoch = self.loader.steps_per_epoch
        count = sums.count
        losses = sums.take()
        now = time.monotonic()
        self.events.write(
            "epoch",
            phase=phase.spec.name,
            phase_index=self.position.phase,
            epoch=math.ceil(done / per_epoch),
            step=self.position.global_step,
            seconds=round(now - began, 4),
            # An epoch that a stop cut in two, or the last of a phase counted in steps, is partial.
            steps=count,
            whole=count == per_epoch,
            losses=losses,
        )
        return now

    def _figures(self, phase: _Phase, epoch: int, last: bool, whole: bool) -> float:
        """Compute the figures in the course of training; returns the seconds that it took."""
        if self.figures is None or self.figures_every is None:
            return 0.0
        if not last and not (whole and epoch % self.figures_every == 0):
            return 0.0
        began = time.monotonic()
        learning = [p for p in self.cascade.parameters() if p.requires_grad]
        modes = {name: stage.training for name, stage in self.cascade.named_stages()}
        if phase.ema is not None:
            phase.ema.swap()
        try:
            rows = self.figures(self.cascade) if self.accelerator.is_main_process else []
        finally:
            if phase.ema is not None:
                phase.ema.swap()
            for name, stage in self.cascade.named_stages():
                stage.train(modes[name])
            for parameter in learning:
                parameter.requires_grad_(True)
        self.accelerator.wait_for_everyone()
        for row in rows:
            self.events.write(
                "figure",
                phase=phase.spec.name,
                phase_index=self.position.phase,
                epoch=epoch,
                step=self.position.global_step,
                figure=row,
            )
        return time.monotonic() - began

    def _mark(self, phase: _Phase, state: str) -> None:
        self.events.write(
            "phase",
            phase=phase.spec.name,
            phase_index=self.position.phase,
            step=self.position.global_step,
            steps_per_epoch=self.loader.steps_per_epoch,
            state=state,
        )

    # --- checkpoints

    def _save(self, phase: _Phase | None) -> None:
        if self.store is None:
            return
        optimizer: dict[str, Any] = {}
        if phase is not None:
            optimizer = {g.group: g.optimizer.state_dict() for g in phase.optimizers}
            if self.accelerator.scaler is not None:
                optimizer["scaler"] = self.accelerator.scaler.state_dict()
        self.store.save(
            Checkpoint(
                position=self.position,
                training_digest=self.spec.training_digest(),
                weights=self.cascade.stages.state_dict(),
                average=phase.ema.state_dict() if phase is not None and phase.ema else {},
                optimizer=optimizer,
            )
        )

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.cascade.stages.load_state_dict(dict(checkpoint.weights))
        self.position = checkpoint.position
        self.events.rewind(self.position.global_step)

    def _restore_phase(self, phase: _Phase, checkpoint: Checkpoint) -> None:
        for group in phase.optimizers:
            group.optimizer.load_state_dict(checkpoint.optimizer[group.group])
        if phase.ema is not None:
            phase.ema.load_state_dict(checkpoint.average)
        if self.accelerator.scaler is not None and "scaler" in checkpoint.optimizer:
            self.accelerator.scaler.load_state_dict(checkpoint.optimizer["scaler"])
