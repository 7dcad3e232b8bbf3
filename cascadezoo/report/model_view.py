"""What a report shows of one model: drawn from it, and read out of its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.split import load_split
from cascadezoo.errors import CascadezooError, InputError
from cascadezoo.evaluate.features.base import FeatureExtractor
from cascadezoo.evaluate.real_features import real_features
from cascadezoo.report.course import Course, read_course
from cascadezoo.report.images import to_pil
from cascadezoo.report.projection import Method, Projection, project
from cascadezoo.report.recorded_metrics import Recorded, read_recorded
from cascadezoo.report.thumbnail_sheet import sheet
from cascadezoo.report.trajectory import sample_trajectory
from cascadezoo.spec import ResolvedSpec, resolve

__all__ = ["ModelView", "Request", "Shown", "view_features", "view_model", "view_run"]

ROWS = 4
COLUMNS = 9
STRIP = 8
COURSE = 6
STATES = 7
_BATCH = 64

Shown = Sequence[tuple[str, str, Image.Image]]
"""Name, note and picture of columns that stand side by side."""


class Request(Protocol):
    """Makes the keywords of :meth:`Cascade.sample`."""

    def __call__(self, n: int, first: int = 0) -> Mapping[str, Any]:
        """For ``n`` images from number ``first`` on, without ``n`` and ``first`` themselves."""


@dataclass(slots=True)
class ModelView:
    """One model of a report.

    Args:
        name: what it is called on the page.
        reference: as it was named.
        resolved: its spec.
        recorded: its metrics.json; None where there is none.
        course: the events of its run; None of a model without its run folder.
        plan: the stages of its plan, as ``StagePlan`` names them.
        samples: a sheet of samples.
        count: how many samples are on it.
        strip: its stages side by side.
        trajectories: of each stage that iterates.
        projection: of features.
        lacks: what is not shown and why, by topic: samples, strip, trajectories, course, features.
    """

    name: str
    reference: str
    resolved: ResolvedSpec
    recorded: Recorded | None = None
    course: Course | None = None
    plan: Sequence[Mapping[str, Any]] = ()
    samples: Image.Image | None = None
    count: int = 0
    strip: Shown = ()
    trajectories: dict[str, Shown] = field(default_factory=dict)
    projection: Projection | None = None
    lacks: dict[str, str] = field(default_factory=dict)


def view_run(
    name: str, reference: str, resolved: ResolvedSpec, run: Path, plan: Sequence[Mapping[str, Any]]
) -> ModelView:
    """A run whose training is not finished: its course, and nothing of a model.

    Raises:
        RunFolderError: its events cannot be read.
    """
    made = ModelView(name, reference, resolved, plan=plan)
    reason = "the training is not finished, so that there is no model yet"
    made.lacks |= dict.fromkeys(("samples", "strip", "trajectories", "features"), reason)
    _read_course(made, run)
    return made


def view_model(
    name: str,
    reference: str,
    cascade: Cascade,
    folder: Path,
    *,
    plan: Sequence[Mapping[str, Any]] = (),
    n: int | None = None,
    request: Request,
    told: Callable[[str, int], None] = lambda task, total: None,
) -> ModelView:
    """Draw samples, stages and trajectories of a model, and read what was recorded of it.

    Args:
        name: what it is called on the page.
        reference: as it was named.
        cascade: the loaded model.
        folder: its model folder; where it lies in a run folder, the run's events are read.
        plan: the stages of its plan.
        n: how many samples; None takes four rows.
        request: how to sample.
        told: called before what takes time, with what it is and how many images.

    Raises:
        SampleError: the request cannot be served.
        ModelError: metrics.json is not what it should be.
        RunFolderError: the events cannot be read.
    """
    made = ModelView(name, reference, cascade.resolved, read_recorded(folder), plan=plan)
    run = folder.parent
    if folder.name == "model" and (run / "run.json").is_file():
        _read_course(made, run)
    else:
        made.lacks["course"] = "this is a model without its run; the run's folder has the course"
    n = n or ROWS * _columns(cascade.resolved)
    told(f"{name}: {n} samples", n)
    stages = cascade.sample(n, batch_size=min(n, _BATCH), return_stages=True, **request(n))
    _samples(made, stages[cascade.names[-1]])
    _strip(made, cascade, stages)
    _trajectories(made, cascade, request, told)
    return made


def view_features(
    view: ModelView,
    cascade: Cascade,
    n: int,
    extractor: FeatureExtractor,
    method: Method,
    *,
    insist: bool,
    request: Request,
    advance: Callable[[int], None] = lambda done: None,
) -> None:
    """Add features of real and of sampled images to a view, or why they are not there.

    Args:
        view: to add to.
        cascade: its model.
        n: how many samples; at most as many real images are taken.
        extractor: of the features.
        method: how they are laid into a plane.
        insist: raise what stands in the way of the real images.
        request: see :func:`view_model`.
        advance: called with the number of images done.

    Raises:
        CascadezooError: the data cannot be had, where they are insisted on.
        InputError: the model's images are not finite or too few.
    """
    split = cascade.spec.evaluation.split
    try:
        resolved = resolve(cascade.spec.to_dict(), source=view.reference)
        real = load_split(resolved, split)
    except CascadezooError as error:
        if insist:
            raise
        view.lacks["features"] = f"the real images cannot be had: {error.what}"
        return
    rows: list[Tensor] = []
    for first in range(0, n, _BATCH):
        count = min(_BATCH, n - first)
        images = cascade.sample(count, first=first, batch_size=count, **request(count, first))
        rows.append(extractor(images))
        advance(first + count)
    known = real_features(real, extractor, count=min(n, len(real)))
    view.projection = project(
        known, torch.cat(rows), method, extractor=extractor.name, split=real.split
    )


def _read_course(view: ModelView, run: Path) -> None:
    events = run / "events.jsonl"
    if events.is_file():
        view.course = read_course(events)
    else:
        view.lacks["course"] = f"the run folder has no {events.name}"


def _samples(view: ModelView, images: Tensor) -> None:
    try:
        pictures = to_pil(images)
    except InputError as error:
        view.lacks["samples"] = error.what
        return
    view.samples = sheet(pictures, _columns(view.resolved))
    view.count = len(pictures)


def _columns(resolved: ResolvedSpec) -> int:
    """One for each label, where they fit: image i has the label i, modulo their number."""
    classes = resolved.num_classes or 0
    return classes if 4 <= classes <= 12 else COLUMNS


def _strip(view: ModelView, cascade: Cascade, stages: Mapping[str, Tensor]) -> None:
    if len(stages) < 2:
        view.lacks["strip"] = "the cascade has a single stage"
        return
    shown = [s for s in cascade.resolved.stages if not s.output.latent]
    try:
        view.strip = [
            (s.name, str(s.output), sheet(to_pil(stages[s.name][:STRIP]), STRIP)) for s in shown
        ]
    except InputError as error:
        view.lacks["strip"] = error.what


def _trajectories(
    view: ModelView,
    cascade: Cascade,
    request: Request,
    told: Callable[[str, int], None],
) -> None:
    named = [n for n, stage in cascade.named_stages() if "steps" in stage.sampling_options]
    if not named:
        view.lacks["trajectories"] = "no stage iterates: each makes its image in one go"
    for name in named:
        told(f"{view.name}: the course of {name}", COURSE)
        states = sample_trajectory(
            cascade, COURSE, stage=name, columns=STATES, options=request(COURSE)
        )
        try:
            view.trajectories[name] = [
                (step.removeprefix("step "), "", sheet(to_pil(images), 1))
                for step, images in states.items()
            ]
        except InputError as error:
            view.lacks["trajectories"] = error.what
