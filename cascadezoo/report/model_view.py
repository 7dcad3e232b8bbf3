"""The content of a report about one model: samples, and records from its folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.base import ImageData
from cascadezoo.data.pixels import to_float, to_uint8
from cascadezoo.data.split import load_split
from cascadezoo.errors import CascadezooError, InputError
from cascadezoo.evaluate.features.base import FeatureExtractor
from cascadezoo.evaluate.real_features import choose_real, real_features
from cascadezoo.model_folder.trained_spec import trained_spec
from cascadezoo.report.charts import Chart
from cascadezoo.report.course import Course, read_course
from cascadezoo.report.epoch_pictures import read_epoch_pictures
from cascadezoo.report.images import to_pil
from cascadezoo.report.page_pictures import sheet
from cascadezoo.report.projection import Method, Projection, class_chart, project
from cascadezoo.report.recorded_metrics import Recorded, read_recorded
from cascadezoo.report.trajectory import sample_trajectory
from cascadezoo.spec import ResolvedSpec

__all__ = ["ModelView", "Request", "Shown", "view_features", "view_model", "view_run"]

ROWS = 4
COLUMNS = 9
STRIP = 8
COURSE = 6
STATES = 7
_BATCH = 64

PIXELS = "pixels"
"""The name of features that are the pixels themselves."""

Shown = Sequence[tuple[str, str, Image.Image]]
"""Name, note and picture of each column."""


class Request(Protocol):
    """Returns keywords of :meth:`Cascade.sample`."""

    def __call__(self, n: int, first: int = 0) -> Mapping[str, Any]:
        """Return the keywords for ``n`` images from number ``first`` on, except these two."""


@dataclass(slots=True)
class ModelView:
    """One model of a report.

    Args:
        name: its name on the page.
        reference: the user's name of the model.
        resolved: its spec.
        recorded: its metrics.json; None if missing.
        course: the course of its training; None without a run folder.
        plan: the stages of its plan, with the fields of ``StagePlan``.
        samples: a sheet of samples.
        count: number of samples on the sheet.
        strip: its stages side by side.
        trajectories: states by stage, for stages that sample in steps.
        epochs: pictures of the training by topic: samples, reconstructions.
        projection: features in a plane.
        by_class: plots of real images by class: their features, and their latents.
        lacks: reasons for missing parts, by topic: samples, strip, trajectories, course, features.
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
    epochs: dict[str, Shown] = field(default_factory=dict)
    projection: Projection | None = None
    by_class: list[Chart] = field(default_factory=list)
    lacks: dict[str, str] = field(default_factory=dict)


def view_run(
    name: str, reference: str, resolved: ResolvedSpec, run: Path, plan: Sequence[Mapping[str, Any]]
) -> ModelView:
    """Return the view of an unfinished run: its course, without a model.

    Raises:
        RunFolderError: its events cannot be read.
    """
    view = ModelView(name, reference, resolved, plan=plan)
    reason = "the training is not finished, so the model does not exist yet"
    view.lacks |= dict.fromkeys(("samples", "strip", "trajectories", "features"), reason)
    _read_course(view, run)
    return view


def view_model(
    name: str,
    reference: str,
    cascade: Cascade,
    folder: Path,
    *,
    plan: Sequence[Mapping[str, Any]] = (),
    n: int | None = None,
    request: Request,
    on_task: Callable[[str, int], None] = lambda task, total: None,
) -> ModelView:
    """Sample images, stages and trajectories of a model, and read its records.

    Args:
        name: its name on the page.
        reference: the user's name of the model.
        cascade: the loaded model.
        folder: its model folder; if it is part of a run folder, the run's events are read.
        plan: the stages of its plan.
        n: number of samples; None is four rows.
        request: the sampling options.
        on_task: called before each long task with its name and number of images.

    Raises:
        SampleError: the model does not support the request.
        ModelError: metrics.json is invalid.
        RunFolderError: the events cannot be read.
    """
    view = ModelView(name, reference, cascade.resolved, read_recorded(folder), plan=plan)
    run = folder.parent
    if folder.name == "model" and (run / "run.json").is_file():
        _read_course(view, run)
    else:
        view.lacks["course"] = "the model is not in a run folder, which records the training"
    n = n or ROWS * _columns(cascade.resolved)
    on_task(f"{name}: {n} samples", n)
    stages = cascade.sample(n, batch_size=min(n, _BATCH), return_stages=True, **request(n))
    _samples(view, stages[cascade.names[-1]])
    _strip(view, cascade, stages)
    _trajectories(view, cascade, request, on_task)
    return view


def view_features(
    view: ModelView,
    cascade: Cascade,
    folder: Path,
    n: int,
    extractor: FeatureExtractor | None,
    method: Method,
    *,
    required: bool,
    trust_data: bool = False,
    request: Request,
    advance: Callable[[int], None] = lambda done: None,
) -> None:
    """Add features of real and sampled images to a view, or the reason why they are missing.

    Args:
        view: the view to change.
        cascade: its model.
        folder: its model folder.
        n: number of samples, and largest number of real images.
        extractor: the feature extractor; None takes the pixels.
        method: the projection onto a plane.
        required: raise errors of the real images instead of recording them in the view, and
            download missing data.
        trust_data: also open files that the model names.
        request: see :func:`view_model`.
        advance: called with the number of sampled images.

    Raises:
        CascadezooError: the data are unavailable and ``required`` is true.
        InputError: the model's images are not finite or too few.
    """
    split = cascade.spec.evaluation.split
    try:
        resolved = trained_spec(folder, trust_data=trust_data, requested=required)
        real = load_split(resolved, split)
    except CascadezooError as error:
        if required:
            raise
        view.lacks["features"] = f"the real images are unavailable: {error.what}"
        return
    rows: list[Tensor] = []
    for first in range(0, n, _BATCH):
        count = min(_BATCH, n - first)
        images = cascade.sample(count, first=first, batch_size=count, **request(count, first))
        rows.append(_pixels(to_uint8(images)) if extractor is None else extractor(images))
        advance(first + count)
    chosen = choose_real(len(real), min(n, len(real)))
    if extractor is None:
        known = _pixels(torch.from_numpy(real.images[chosen]))
    else:
        known = real_features(real, extractor, count=len(chosen))
    name = PIXELS if extractor is None else extractor.name
    view.projection = project(known, torch.cat(rows), method, extractor=name, split=real.split)
    if real.labels is not None and cascade.resolved.num_classes is not None:
        labels = [int(label) for label in real.labels[chosen]]
        chart = class_chart(
            view.projection, labels, cascade.class_names, f"{view.name}: real images by class"
        )
        view.by_class = [] if chart is None else [chart]
        view.by_class += _latents(view.name, cascade, real, chosen, labels, method)


def _pixels(images: Tensor) -> Tensor:
    """uint8 [N, C, H, W] to vectors [N, C * H * W] in 0..1, on the CPU."""
    return images.cpu().flatten(1).float() / 255


def _latents(
    name: str,
    cascade: Cascade,
    real: ImageData,
    chosen: NDArray[np.int64],
    labels: Sequence[int],
    method: Method,
) -> Iterator[Chart]:
    """The latents of real images by class, for each stage that makes latents."""
    latent = [place for place, s in enumerate(cascade.resolved.stages) if s.output.latent]
    rows: dict[int, list[Tensor]] = {place: [] for place in latent}
    with torch.no_grad():
        for first in range(0, len(chosen) if latent else 0, _BATCH):
            images = torch.from_numpy(real.images[chosen[first : first + _BATCH]])
            targets = cascade.targets(to_float(images).to(cascade.device))
            for place in latent:
                rows[place].append(targets[place].float().flatten(1).cpu())
    for place in latent:
        vectors, stage = torch.cat(rows[place]), cascade.resolved.stages[place]
        if vectors.shape[1] < 2:
            continue
        plane = project(vectors, vectors[:1], method, extractor="", split=real.split)
        title = f"{name}: latents for {stage.name} ({stage.output}) by class"
        chart = class_chart(plane, labels, cascade.class_names, title)
        if chart is not None:
            yield chart


def _read_course(view: ModelView, run: Path) -> None:
    for picture in read_epoch_pictures(run / "pictures"):
        row = (f"{picture.phase}, epoch {picture.epoch}", "", picture.image)
        view.epochs[picture.topic] = [*view.epochs.get(picture.topic, ()), row]
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
    """One column per label if they fit: image i has label i modulo their number."""
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
    on_task: Callable[[str, int], None],
) -> None:
    named = [n for n, stage in cascade.named_stages() if "steps" in stage.sampling_options]
    if not named:
        view.lacks["trajectories"] = "no stage samples in steps"
    for name in named:
        on_task(f"{view.name}: trajectory of {name}", COURSE)
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
