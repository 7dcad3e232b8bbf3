"""Training events, and the callbacks that receive them, for example trackers.

Does not import torch: events contain numbers that were already read from the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from cascadezoo.errors import PluginError
from cascadezoo.plugins.manager import get_registry
from cascadezoo.plugins.tracebacks import blame
from cascadezoo.spec import CallbackSpec

__all__ = [
    "Callback",
    "Callbacks",
    "EpochEvent",
    "Event",
    "FigureEvent",
    "PhaseEvent",
    "StepEvent",
    "TrainingRun",
    "load_callbacks",
]


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """The build that a callback observes.

    Args:
        name: the cascade's name.
        spec: the resolved spec as JSON data.
        folder: the run folder; a callback may write its own files into it.
        device: the training device: ``cpu``, ``cuda:0``.
        precision: ``fp32``, ``bf16`` or ``fp16``.
    """

    name: str
    spec: Mapping[str, Any]
    folder: Path
    device: str = "cpu"
    precision: str = "fp32"


@dataclass(frozen=True, slots=True)
class PhaseEvent:
    """A phase starts, resumes or has ended.

    Args:
        phase: the name of the phase.
        index: its number, from 0.
        state: ``start`` or ``end``.
        step: finished steps of the whole training.
        steps: number of steps in the phase.
    """

    phase: str
    index: int
    state: Literal["start", "end"]
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class StepEvent:
    """Losses were read, once every ``training.log_steps`` steps of the spec.

    Reading losses waits for the device; reading them more often would slow down the training.

    Args:
        phase: the name of the phase.
        step: finished steps of the whole training.
        phase_step: finished steps of the phase.
        epoch: finished epochs of the phase.
        losses: means since the last event, by ``stage.loss``.
        lr: learning rates by stage, with the name of the group if it is not the default.
        teacher_forcing: the probability of true upstream images; None if it does not apply.
        images_per_second: training speed since the last event.
        seconds: time since the last event.
    """

    phase: str
    step: int
    phase_step: int
    epoch: float
    losses: Mapping[str, float]
    lr: Mapping[str, float]
    teacher_forcing: float | None
    images_per_second: float
    seconds: float


@dataclass(frozen=True, slots=True)
class EpochEvent:
    """An epoch has ended.

    Args:
        phase: the name of the phase.
        epoch: its number in the phase, from 1.
        step: finished steps of the whole training.
        losses: means over the epoch, by ``stage.loss``.
        seconds: duration of the epoch.
        whole: False if a stop or the end of the phase cut the epoch short.
    """

    phase: str
    epoch: int
    step: int
    losses: Mapping[str, float]
    seconds: float
    whole: bool


@dataclass(frozen=True, slots=True)
class FigureEvent:
    """A figure was measured.

    Args:
        figure: as in ``metrics.json``: ``name``, ``value``, ``n`` and how it was computed.
        phase: the phase during which it was measured; None after the training.
        step: finished steps of the whole training; None after the training.
    """

    figure: Mapping[str, Any]
    phase: str | None = None
    step: int | None = None


Event = PhaseEvent | StepEvent | EpochEvent | FigureEvent

_METHODS = {
    PhaseEvent: "on_phase",
    StepEvent: "on_step",
    EpochEvent: "on_epoch",
    FigureEvent: "on_figure",
}


class Callback:
    """Receives training events. Override the methods you need.

    With several processes only the first one has callbacks. After a crash, events since the last
    checkpoint are sent again. If a callback raises, the build ends with a checkpoint.

    Args:
        config: the validated config of the entry.
        run: the build.
    """

    def __init__(self, config: Any, run: TrainingRun) -> None:
        self.config = config
        self.run = run

    def on_phase(self, event: PhaseEvent) -> None:
        """Called when a phase starts or has ended."""

    def on_step(self, event: StepEvent) -> None:
        """Called once every ``training.log_steps`` steps."""

    def on_epoch(self, event: EpochEvent) -> None:
        """Called at the end of an epoch."""

    def on_figure(self, event: FigureEvent) -> None:
        """Called when a figure was measured, during or after training."""

    def close(self) -> None:
        """Called once at the end of the build, also after an error."""


class Callbacks:
    """The callbacks of a build. After one fails, none receives further events.

    As a context manager it closes them at the end, and raises the failure of a callback.

    Args:
        rows: callbacks with their names.
    """

    def __init__(self, rows: Iterable[tuple[str, Callback]] = ()) -> None:
        self.rows = list(rows)
        self.failure: PluginError | None = None

    def send(self, event: Event) -> None:
        """Send an event to every callback."""
        method = _METHODS[type(event)]
        for name, callback in self.rows:
            if self.failure is None:
                self._call(name, callback, method, event)

    def check(self) -> None:
        """Raise the failure of a callback.

        Raises:
            PluginError: a callback failed.
        """
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        """Close every callback, also after a failure."""
        rows, self.rows = self.rows, []
        for name, callback in rows:
            self._call(name, callback, "close")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()
        if error is None:
            self.check()

    def _call(self, name: str, callback: Callback, method: str, *args: Event) -> None:
        try:
            getattr(callback, method)(*args)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin code; raised by check()
            failure = failed(name, f"in {method}", error, type(callback).__module__)
            failure.__cause__ = error
            self.failure = self.failure or failure


def load_callbacks(specs: Iterable[CallbackSpec], run: TrainingRun) -> Callbacks:
    """Start the callbacks of a spec.

    Raises:
        UnknownNameError: no callback has this name.
        PluginError: a callback cannot be imported or fails to start; the others are closed.
    """
    callbacks = Callbacks()
    for spec in specs:
        entry = get_registry().callbacks.get(spec.kind).entry
        try:
            config = entry.load_config().model_validate(spec.config)
            callbacks.rows.append((spec.kind, entry.load()(config, run)))
        except PluginError:
            callbacks.close()
            raise
        except (Exception, SystemExit) as error:
            callbacks.close()
            raise failed(spec.kind, "to start", error, entry.impl) from error
    return callbacks


def failed(name: str, when: str, error: BaseException, module: str) -> PluginError:
    """The error for a callback that raised; ``module`` is that of its code."""
    where = blame(error, module.partition(":")[0].partition(".")[0])
    place = "" if where is None else f" [{where}]"
    return PluginError(
        f"callback {name!r} failed {when}: {type(error).__name__}: {error}{place}",
        hint="the training is saved: run the same command again, or disable callbacks with "
        "--set 'training.callbacks=[]'; `cascadezoo plugins list` shows the plugin",
        code="plugin-callback-failed",
        name=name,
    )
