"""Writes down what a phase does: its losses, epochs and figures."""

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
    """Puts figures into the events and onto the display, and tells callbacks of them.

    Args:
        events: where figures go.
        progress: what is shown.
        batch_size: images of a step, of all processes together.
        callbacks: None has none.
    """

    def __init__(
        self,
        events: EventLog,
        progress: Progress,
        batch_size: int,
        callbacks: Callbacks | None = None,
    ) -> None:
        self.events = events
        self.progress = progress
        self.batch_size = batch_size
        self.callbacks = callbacks or Callbacks()

    def mark(self, phase: PhaseRun, state: Literal["start", "end"], step: int) -> None:
        """A phase starts or ends at a step of the whole training."""
        self._write("phase", phase, step=step, steps_per_epoch=phase.per_epoch, state=state)
        self.callbacks.tell(PhaseEvent(phase.spec.name, phase.index, state, step, phase.total))

    def log(self, phase: PhaseRun, sums: LossSums, done: int, step: int, since: float) -> float:
        """Read and write down the losses; waits for the device.

        Args:
            phase: the phase.
            sums: the losses since the last time.
            done: the steps of the phase that are done.
            step: those of the whole training.
            since: when the last time was, of the monotonic clock.

        Returns:
            The time.

        Raises:
            TrainingError: a loss is not finite.
        """
        count = sums.count
        losses = sums.take()
        now = time.monotonic()
        check_finite(phase.spec.name, done - 1, losses)
        rate = count * self.batch_size / max(now - since, 1e-9)
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
        self.callbacks.tell(event)
        return now

    def epoch(self, phase: PhaseRun, sums: LossSums, done: int, step: int, began: float) -> float:
        """Write down an epoch, as :meth:`log` does; returns the time."""
        count = sums.count
        losses = sums.take()
        now = time.monotonic()
        event = EpochEvent(
            phase=phase.spec.name,
            epoch=math.ceil(done / phase.per_epoch),
            step=step,
            losses=losses,
            seconds=round(now - began, 4),
            # An epoch that a stop cut in two, or the last of a phase counted in steps, is partial.
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
        self.callbacks.tell(event)
        return now

    def figures(
        self, phase: PhaseRun, rows: Iterable[dict[str, Any]], epoch: int, step: int
    ) -> None:
        """Write down figures that were measured in the course of the phase."""
        for row in rows:
            self._write("figure", phase, epoch=epoch, step=step, figure=row)
            self.callbacks.tell(FigureEvent(row, phase.spec.name, step))

    def _write(self, event: str, phase: PhaseRun, **fields: Any) -> None:
        self.events.write(event, phase=phase.spec.name, phase_index=phase.index, **fields)
