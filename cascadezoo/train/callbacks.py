"""Training events, and the callbacks that receive them, for example trackers.

Does not import torch: events contain numbers that were already read from the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from cascadezoo.errors import CascadezooError, InputError, PluginError
from cascadezoo.plugins.manager import get_registry
from cascadezoo.plugins.tracebacks import blame
from cascadezoo.spec import CallbackSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "Callback",
    "Callbacks",
    "EpochEvent",
    "Event",
    "FigureEvent",
    "ModelEvent",
    "PhaseEvent",
    "SamplesEvent",
    "StepEvent",
    "TrainingRun",
    "check_callbacks",
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


@dataclass(frozen=True, slots=True)
class SamplesEvent:
    """Images were sampled at the end of a phase, because a callback asked for them.

    Args:
        phase: the name of the phase.
        step: finished steps of the whole training.
        images: uint8 [N, H, W, C] by stage, from the generator up to the last stage that was
            trained so far, without latents. The same seed each time.
    """

    phase: str
    step: int
    images: Mapping[str, NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class ModelEvent:
    """The model was written.

    Args:
        folder: its folder.
        card: its metric card, the text of README.md.
        metrics: the content of metrics.json.
        step: finished steps of the whole training.
    """

    folder: Path
    card: str
    metrics: Mapping[str, Any]
    step: int


Event = PhaseEvent | StepEvent | EpochEvent | FigureEvent | SamplesEvent | ModelEvent

_METHODS = {
    PhaseEvent: "on_phase",
    StepEvent: "on_step",
    EpochEvent: "on_epoch",
    FigureEvent: "on_figure",
    SamplesEvent: "on_samples",
    ModelEvent: "on_model",
}


class Callback:
    """Receives training events. Override the methods you need.

    Pass an object to ``build_cascade(spec, callbacks=[MyCallback()])``, or register an entry, which
    a spec names in ``training.callbacks``. With several processes only the first one has callbacks.
    After a crash, events since the last checkpoint are sent again. If a callback raises, the build
    ends with a checkpoint.

    Args:
        config: the validated config of the entry; None for an object.
        run: the build; None for an object, which gets it by :meth:`begin`.

    Attributes:
        samples: number of images to sample at the end of each phase for :meth:`on_samples`; the
            largest number that a callback asks for is sampled once for all.
        run: the build, set before the first event.
    """

    samples: int = 0
    run: TrainingRun

    def __init__(self, config: Any = None, run: TrainingRun | None = None) -> None:
        self.config = config
        if run is not None:
            self.run = run

    def begin(self, run: TrainingRun) -> None:
        """Called once before the training, also when a build resumes."""
        self.run = run

    def on_phase(self, event: PhaseEvent) -> None:
        """Called when a phase starts or has ended."""

    def on_step(self, event: StepEvent) -> None:
        """Called once every ``training.log_steps`` steps."""

    def on_epoch(self, event: EpochEvent) -> None:
        """Called at the end of an epoch."""

    def on_figure(self, event: FigureEvent) -> None:
        """Called when a figure was measured, during or after training."""

    def on_samples(self, event: SamplesEvent) -> None:
        """Called at the end of a phase if :attr:`samples` is above 0."""

    def on_model(self, event: ModelEvent) -> None:
        """Called when the model was written, after all figures."""

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

    @property
    def samples(self) -> int:
        """Number of images that the callbacks ask for at the end of each phase."""
        return max((getattr(callback, "samples", 0) for _, callback in self.rows), default=0)

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
        function = getattr(callback, method, None)
        if function is None:  # a plugin for an earlier version, which is no Callback
            return
        try:
            function(*args)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin code; raised by check()
            failure = failed(name, f"in {method}", error, type(callback).__module__)
            failure.__cause__ = error
            self.failure = self.failure or failure


def check_callbacks(callbacks: object) -> list[Callback]:
    """Check objects that a program passes as callbacks.

    Raises:
        InputError: one is not a :class:`Callback`, or they are no list.
    """
    if isinstance(callbacks, (Callback, type)) or not isinstance(callbacks, Iterable):
        name = callbacks.__name__ if isinstance(callbacks, type) else type(callbacks).__name__
        raise InputError(
            f"callbacks is {name}, not a list",
            hint=f"pass a list of objects: callbacks=[{name}()]",
            code="input-callback-type",
            type=name,
        )
    rows = list(callbacks)
    for row in rows:
        if isinstance(row, Callback):
            continue
        name = row.__name__ if isinstance(row, type) else type(row).__name__
        what = f"the class {name}" if isinstance(row, type) else f"{name}, which is no Callback"
        raise InputError(
            f"callbacks contains {what}",
            hint=f"pass an object: callbacks=[{name}()]"
            if isinstance(row, type)
            else "derive its class from cascadezoo.Callback; callbacks of plugins are named in "
            "training.callbacks of the spec",
            code="input-callback-type",
            type=name,
        )
    return rows


def load_callbacks(
    specs: Iterable[CallbackSpec], run: TrainingRun, objects: Iterable[Callback] = ()
) -> Callbacks:
    """Start the callbacks of a spec, and those that a program passes.

    Raises:
        UnknownNameError: no callback has this name.
        PluginError: a callback cannot be imported or fails to start; the others are closed.
    """
    callbacks = Callbacks()
    try:
        for spec in specs:
            entry = get_registry().callbacks.get(spec.kind).entry
            with _starting(spec.kind, entry.impl):
                config = entry.load_config().model_validate(spec.config)
                callback = entry.load()(config, run)
            _begin(callbacks, spec.kind, callback, run)
        for callback in objects:
            _begin(callbacks, type(callback).__name__, callback, run)
    except CascadezooError:
        callbacks.close()
        raise
    return callbacks


def _begin(callbacks: Callbacks, name: str, callback: Callback, run: TrainingRun) -> None:
    callbacks.rows.append((name, callback))
    begin = getattr(callback, "begin", None)
    if begin is not None:
        with _starting(name, type(callback).__module__):
            begin(run)


@contextmanager
def _starting(name: str, module: str) -> Iterator[None]:
    try:
        yield
    except CascadezooError:
        raise
    except (Exception, SystemExit) as error:
        raise failed(name, "to start", error, module) from error


def failed(name: str, when: str, error: BaseException, module: str) -> PluginError:
    """The error for a callback that raised; ``module`` is that of its code."""
    where = blame(error, module.partition(":")[0].partition(".")[0])
    place = "" if where is None else f" [{where}]"
    return PluginError(
        f"callback {name!r} failed {when}: {type(error).__name__}: {error}{place}",
        hint="the training is saved: run the same command again, or disable callbacks with "
        "--set 'training.callbacks=[]'; `cascadezoo plugins list` shows the plugin. In Python, "
        "leave the object out of callbacks",
        code="plugin-callback-failed",
        name=name,
    )
