"""The built-in trackers: TensorBoard, Weights & Biases and trackio, through Accelerate.

A tracker records losses, learning rates, figures, sample grids, the spec and the final card. What
it needs to go on with the same run lies in ``trackers/`` of the run folder.
"""

from __future__ import annotations

import contextlib
import html
import json
import math
import secrets
import sys
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from cascadezoo.errors import InputError, SpecError
from cascadezoo.spec.faults import problems_of
from cascadezoo.spec.requires import absent_packages, install_line
from cascadezoo.train.callbacks import (
    Callback,
    EpochEvent,
    FigureEvent,
    ModelEvent,
    PhaseEvent,
    SamplesEvent,
    StepEvent,
    TrainingRun,
)
from cascadezoo.train.tracker_configs import (
    TensorBoardConfig,
    TrackerConfig,
    TrackioConfig,
    WandbConfig,
)
from cascadezoo.util.files import write_atomically

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

__all__ = ["TensorBoardTracker", "Tracker", "TrackioTracker", "WandbTracker"]


class Tracker(Callback):
    """Base class of the built-in trackers.

    Args:
        config: the settings; None makes them of the others.
        run: the build; None for an object that is passed to ``build_cascade``.
        settings: the fields of the config, by name.

    Raises:
        InputError: the tracker's package is not installed.
        SpecError: a setting is invalid.
    """

    Config: ClassVar[type[TrackerConfig]]
    config: TrackerConfig

    def __init__(
        self,
        config: TrackerConfig | None = None,
        run: TrainingRun | None = None,
        **settings: Any,
    ) -> None:
        if config is None:
            try:
                config = self.Config(**settings)
            except ValidationError as error:
                problems = problems_of(error, settings, "", self.Config)
                raise SpecError(problems, source=type(self).__name__) from None
        if absent := absent_packages(config):
            raise InputError(
                f"{type(self).__name__} needs a package that is not installed: {', '.join(absent)}",
                hint=install_line(absent),
                code="input-package-missing",
                name=absent[0],
            )
        super().__init__(config, run)
        self.samples = config.samples
        self._step = 0
        self._figures: dict[str, Any] = {}
        self._tracker: GeneralTracker | None = None

    @property
    def folder(self) -> Path:
        """The folder of all trackers in the run folder."""
        return self.run.folder / "trackers"

    def begin(self, run: TrainingRun) -> None:
        """Start the tracker, or continue with the run of a build that resumes."""
        super().begin(run)
        self._step, self._figures = 0, {}  # an object may be passed to several builds
        self.folder.mkdir(exist_ok=True)

    @abstractmethod
    def _open(self) -> GeneralTracker:
        """The tracker of Accelerate, not started."""

    @abstractmethod
    def _show(self, name: str, picture: NDArray[np.uint8]) -> None:
        """Record a picture, uint8 [H, W, C]."""

    @abstractmethod
    def _tell(self, name: str, text: str) -> None:
        """Record a text in Markdown."""

    def _start(self) -> GeneralTracker:
        if self._tracker is None:
            # Some announce themselves on stdout, which belongs to the command's result.
            with contextlib.redirect_stdout(sys.stderr):
                tracker = self._open()
                tracker.start()
            self._tracker = tracker
        return self._tracker

    def _log(self, rows: Mapping[str, Any]) -> None:
        # A figure may be nan; servers refuse it or show nothing.
        values = {
            name: value for name, value in rows.items() if value is not None and _is_finite(value)
        }
        self._start().log(values, step=self._step)

    def on_phase(self, event: PhaseEvent) -> None:
        """Record which phase runs."""
        self._step = event.step
        self._log({"phase": event.index + (event.state == "end")})

    def on_step(self, event: StepEvent) -> None:
        """Record losses, learning rates, teacher forcing and speed."""
        self._step = event.step
        self._log(
            {
                **{f"loss/{name}": value for name, value in event.losses.items()},
                **{f"lr/{name}": value for name, value in event.lr.items()},
                "teacher_forcing": event.teacher_forcing,
                "images_per_second": event.images_per_second,
            }
        )

    def on_epoch(self, event: EpochEvent) -> None:
        """Record the mean losses of an epoch."""
        self._step = event.step
        self._log({f"epoch/{name}": value for name, value in event.losses.items()})

    def on_figure(self, event: FigureEvent) -> None:
        """Record a figure, at the step at which it was measured."""
        row = {f"figure/{event.figure['name']}": event.figure["value"]}
        if event.step is None:
            self._figures |= row  # recorded with the model, whose step is known
        else:
            self._step = event.step
            self._log(row)

    def on_samples(self, event: SamplesEvent) -> None:
        """Record a grid of samples for each stage."""
        self._step = event.step
        for stage, images in event.images.items():
            self._show(f"samples/{stage}", _sheet(images))

    def on_model(self, event: ModelEvent) -> None:
        """Record the final figures and the metric card."""
        self._step = event.step
        self._log(self._figures)
        self._tell("card", event.card)

    def close(self) -> None:
        """Send or write what is left."""
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            with contextlib.redirect_stdout(sys.stderr):
                tracker.finish()


class TensorBoardTracker(Tracker):
    """Writes event files for TensorBoard: ``tensorboard --logdir runs``.

    A resumed build writes a further file into the same folder, which replaces the events after the
    checkpoint.
    """

    Config = TensorBoardConfig
    _purge: int | None = None

    def begin(self, run: TrainingRun) -> None:
        """Start the tracker. Its file is made by the first event."""
        super().begin(run)
        self._purge = None

    def on_phase(self, event: PhaseEvent) -> None:
        """Start with the first phase, whose step states which events are repeated."""
        if self._tracker is None:
            self._step = event.step
            # Hides events of this step and later ones. Those of the checkpoint are kept.
            self._purge = event.step + 1
            self._start()
            self._tell("spec", f"```json\n{json.dumps(self.run.spec, indent=2)}\n```")
        super().on_phase(event)

    def _open(self) -> GeneralTracker:
        from accelerate import tracking

        return tracking.TensorBoardTracker("tensorboard", str(self.folder), purge_step=self._purge)

    def _show(self, name: str, picture: NDArray[np.uint8]) -> None:
        tracker: Any = self._start()
        tracker.log_images({name: picture[None]}, step=self._step, dataformats="NHWC")

    def _tell(self, name: str, text: str) -> None:
        self._start().log({name: text}, step=self._step)


class WandbTracker(Tracker):
    """Records in Weights & Biases. A resumed build continues the same run."""

    Config = WandbConfig
    config: WandbConfig

    def begin(self, run: TrainingRun) -> None:
        """Start or continue the run."""
        super().begin(run)
        self._start()

    def _open(self) -> GeneralTracker:
        import wandb
        from accelerate import tracking

        return tracking.WandBTracker(
            self.config.project,
            entity=self.config.entity,
            mode=self.config.mode,
            id=_run_id(self.folder / "wandb.json"),
            resume="allow",
            name=self.run.name,
            dir=str(self.folder),
            config=dict(self.run.spec),
            settings=wandb.Settings(console="off"),
        )

    def _show(self, name: str, picture: NDArray[np.uint8]) -> None:
        tracker: Any = self._start()
        tracker.log_images({name: [_picture(picture)]}, step=self._step)

    def _tell(self, name: str, text: str) -> None:
        import wandb

        page = wandb.Html(f"<pre>{html.escape(text)}</pre>", inject=False)
        self._start().log({name: page}, step=self._step)


class TrackioTracker(Tracker):
    """Records in trackio: ``trackio show``. A resumed build continues the same run."""

    Config = TrackioConfig
    config: TrackioConfig

    def begin(self, run: TrainingRun) -> None:
        """Start or continue the run."""
        super().begin(run)
        self._start()

    def _open(self) -> GeneralTracker:
        from accelerate import tracking

        number = _run_id(self.folder / "trackio.json")
        return tracking.TrackioTracker(
            self.config.project,
            name=f"{self.run.name}-{number[:8]}",
            resume="allow",
            config=dict(self.run.spec),
        )

    def _show(self, name: str, picture: NDArray[np.uint8]) -> None:
        import trackio

        self._start().log({name: trackio.Image(_picture(picture))}, step=self._step)

    def _tell(self, name: str, text: str) -> None:
        import trackio

        self._start().log({name: trackio.Markdown(text)}, step=self._step)


def _run_id(path: Path) -> str:
    """The number of the run, the same for each start of a build until ``--fresh`` removes it."""
    try:
        return str(json.loads(path.read_bytes())["id"])
    except FileNotFoundError:
        number = secrets.token_hex(16)
        write_atomically(path, json.dumps({"id": number}).encode())
        return number


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _sheet(images: NDArray[np.uint8], pad: int = 1) -> NDArray[np.uint8]:
    """Images side by side, about square: uint8 [H, W, C] of uint8 [N, h, w, C]."""
    count, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + pad), columns * (width + pad), channels), 255, np.uint8)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        top, left = row * (height + pad), column * (width + pad)
        sheet[top : top + height, left : left + width] = image
    return sheet[: rows * (height + pad) - pad, : columns * (width + pad) - pad]


def _picture(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
