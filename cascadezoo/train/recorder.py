"""Records the losses, epochs and figures of a phase."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any, Literal

from cascadezoo.train.callbacks import (
    Callbacks,
    EpochEvent,
    FigureEvent,
    PhaseEvent,
    StepEvent,
)
from cascadezoo.train.events import EventLog
from cascadezoo.train.loss_sums import LossSums, check_finite
from cascadezoo.train.memory import peak_memory
from cascadezoo.train.phase import PhaseRun
from cascadezoo.train.progress import Progress

__all__ = ["Recorder"]


class Recorder:
    """Writes events, updates the display and calls callbacks.

    Args:
        events: the event file.
        progress: the display.
        callbacks: the callbacks; None for none.
    """

    def __init__(
        self,
        events: EventLog,
        progress: Progress,
        callbacks: Callbacks | None = None,
    ) -> None:
        self.events = events
        self.progress = progress
        self.callbacks = callbacks or Callbacks()

    def mark(self, phase: PhaseRun, state: Literal["start", "end"], step: int) -> None:
        """Record the start or end of a phase at a step of the whole training."""
        self._write("phase", phase, step=step, steps_per_epoch=phase.per_epoch, state=state)
        self.callbacks.send(PhaseEvent(phase.spec.name, phase.index, state, step, phase.total))

    def log(self, phase: PhaseRun, sums: LossSums, done: int, step: int, since: float) -> float:
        """Read and record the losses. Waits for the device.

        Args:
            phase: the phase.
            sums: the losses since the last call.
            done: finished steps of the phase.
            step: finished steps of the whole training.
            since: time of the last call by the monotonic clock.

        Returns:
            The current time.

        Raises:
            TrainingError: a loss is not finite, or a first estimate.
            PluginError: the first estimate of a plugin's stage is not finite.
        """
        count = sums.count
        losses = sums.take()
        now = time.monotonic()
        phase.walk.checks.read(sums.finite)
        check_finite(phase.spec.name, done - 1, losses)
        rate = count * phase.batches.loader.batch_size / max(now - since, 1e-9)
        self.progress.losses(losses, rate)
        event = StepEvent(
            phase=phase.spec.name,
            step=step,
            phase_step=done,
            epoch=done / phase.per_epoch,
            losses=losses,
            lr={k: v for group in phase.optimizers for k, v in group.lr().items()},
            teacher_forcing=phase.walk.forcing(done - 1),
            images_per_second=round(rate, 2),
            seconds=round(now - since, 4),
        )
        self._write(
            "log",
            phase,
            epoch=event.epoch,
            step=step,
            losses=losses,
            lr=event.lr,
            teacher_forcing=event.teacher_forcing,
            images_per_second=event.images_per_second,
            seconds=event.seconds,
        )
        self.callbacks.send(event)
        return now

    def epoch(self, phase: PhaseRun, sums: LossSums, done: int, step: int, began: float) -> float:
        """Record the end of an epoch. Arguments and result are as for :meth:`log`."""
        count = sums.count
        losses = sums.take()
        now = time.monotonic()
        event = EpochEvent(
            phase=phase.spec.name,
            epoch=math.ceil(done / phase.per_epoch),
            step=step,
            losses=losses,
            seconds=round(now - began, 4),
            # An epoch is partial after a stop, or as the last of a phase given in steps.
            whole=count == phase.per_epoch,
        )
        self._write(
            "epoch",
            phase,
            epoch=event.epoch,
            step=step,
            seconds=event.seconds,
            steps=count,
            whole=event.whole,
            losses=losses,
            **peak_memory(phase.walk.cascade.device),
        )
        self.callbacks.send(event)
        return now

    def figures(
        self, phase: PhaseRun, rows: Iterable[dict[str, Any]], epoch: int, step: int
    ) -> None:
        """Record figures that were measured during the phase."""
        for row in rows:
            self._write("figure", phase, epoch=epoch, step=step, figure=row)
            self.callbacks.send(FigureEvent(row, phase.spec.name, step))

    def _write(self, event: str, phase: PhaseRun, **fields: Any) -> None:
        self.events.write(event, phase=phase.spec.name, phase_index=phase.index, **fields)
