"""A trained model with its data and feature networks, which are loaded on first use."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.base import ImageData, Split
from cascadezoo.data.python_data import DataInput, read_given
from cascadezoo.data.python_spec import SOURCE, recorded, source_of
from cascadezoo.data.split import load_split
from cascadezoo.errors import CascadezooError, DataError, SpecError
from cascadezoo.evaluate.evaluate_metrics import Subject, evaluate_metrics, no_images, sampler
from cascadezoo.evaluate.features.base import (
    FeatureExtractor,
    Precision,
    load_extractor,
    logits_of,
)
from cascadezoo.evaluate.options import EvaluationOptions
from cascadezoo.evaluate.samples import SampleFn
from cascadezoo.model_folder.figures import Figure
from cascadezoo.model_folder.metrics_file import AttributionRow, ProblemRow
from cascadezoo.model_folder.trained_spec import dataless_spec, trained_spec
from cascadezoo.plugins.manager import get_registry
from cascadezoo.spec import ResolvedSpec
from cascadezoo.spec.configs import DataConfig
from cascadezoo.spec.lookup import look_up

__all__ = [
    "Bench",
    "LazyExtractor",
    "UnmeasuredMetric",
    "Watch",
    "open_bench",
    "public_reason",
]

_LONGEST_WHY = 300


class Watch(Protocol):
    """Receives the progress, for example ``cascadezoo.train.progress.Progress``."""

    def task(self, name: str, total: int) -> None:
        """A task of ``total`` parts begins."""

    def advance(self, done: int) -> None:
        """``done`` parts of the task are finished."""

    def say(self, text: str) -> None:
        """Show a message."""


@dataclass(frozen=True, slots=True)
class UnmeasuredMetric:
    """A metric that cannot be measured, with the reason."""

    metric: str
    error: CascadezooError

    def row(self) -> ProblemRow:
        """The row as metrics.json stores it."""
        return ProblemRow(metric=self.metric, why=public_reason(self.error))


def public_reason(error: CascadezooError) -> str:
    """An error as one line for a published file, without the path of the home folder."""
    text = " ".join(error.what.split()).replace(str(Path.home()), "~")
    return text if len(text) <= _LONGEST_WHY else f"{text[: _LONGEST_WHY - 1]}…"


@dataclass(slots=True)
class Bench:
    """Everything that the measurement of a model needs.

    Args:
        cascade: the trained cascade, in evaluation mode.
        resolved: its spec, resolved with its data; None if the dataset is unknown.
        watch: receives the progress.
        why: the reason why the dataset is unknown or must not be opened.
    """

    cascade: Cascade
    resolved: ResolvedSpec | None
    watch: Watch
    why: CascadezooError | None = None
    _data: dict[Split, ImageData | CascadezooError] = field(default_factory=dict)
    _extractors: dict[str, FeatureExtractor] = field(default_factory=dict)

    def split(self, split: Split) -> ImageData:
        """The real images of a split, read once.

        Raises:
            CascadezooError: they are unavailable; every call raises the same error.
        """
        if split not in self._data:
            self._data[split] = self._load(split)
        data = self._data[split]
        if isinstance(data, CascadezooError):
            raise data
        return data

    def _load(self, split: Split) -> ImageData | CascadezooError:
        if self.resolved is None or self.why is not None:
            return self.why or DataError("the dataset of the model is unknown", code="data-unknown")
        try:
            return load_split(self.resolved, split)
        except CascadezooError as error:
            return error

    def extractor(self, name: str) -> FeatureExtractor:
        """An extractor that is loaded on first use.

        Raises:
            UnknownNameError: the extractor is not registered.
            InputError: the extractor does not accept the argument.
        """
        if name not in self._extractors:
            look_up(get_registry().features, name)
            self._extractors[name] = LazyExtractor(name, self.cascade.device)
        return self._extractors[name]

    def subject(self, options: EvaluationOptions, draw: SampleFn | None = None) -> Subject:
        """The subject of a measurement: the cascade, its samples and available real images."""
        image = self.cascade.resolved.image
        try:
            real = self.split(options.split)
        except CascadezooError:
            real = no_images((image.channels, image.size, image.size), options.split)

        draw = draw or sampler(self.cascade, options.seed)

        def sample(first: int, count: int) -> Tensor:
            if first == 0:
                self.watch.task(f"sampling {options.n} images", options.n)
            images = draw(first, count)
            self.watch.advance(first + count)
            return images

        return Subject(cascade=self.cascade, real=real, split=self.split, sample=sample)

    def measure(
        self, names: Iterable[str], options: EvaluationOptions, draw: SampleFn | None = None
    ) -> tuple[list[Figure], list[UnmeasuredMetric]]:
        """Measure metrics; return their figures and the metrics that cannot be measured.

        Args:
            names: names of registered metrics.
            options: how to measure.
            draw: draws the images; None samples them from the cascade in this process.
        """
        problems: list[UnmeasuredMetric] = []
        figures = evaluate_metrics(
            names,
            self.subject(options, draw),
            options,
            extractor=self.extractor(options.extractor),
            on_problem=lambda name, error: problems.append(UnmeasuredMetric(name, error)),
        )
        return figures, problems

    def attribute(
        self, options: EvaluationOptions, metric: str = "kid"
    ) -> tuple[list[AttributionRow], str]:
        """Measure each stage on real and on generated input; return the rows and the advice.

        Args:
            options: how to measure. The comparison uses at most half of the real images, so None
                is the usual subset size: it chooses a size that fits.
            metric: a distance on features.

        Raises:
            CascadezooError: the stages cannot be measured.
        """
        from cascadezoo.evaluate.attribution import advice, attribute_stages

        self.split(options.split)  # raises the reason if unavailable
        self.watch.say("measuring each stage on real and on generated input")
        rows = attribute_stages(
            self.subject(options),
            options,
            extractor=self.extractor(options.extractor),
            metric=metric,
        )
        return [AttributionRow.model_validate(row.to_dict()) for row in rows], advice(rows)


def open_bench(
    folder: Path,
    device: torch.device,
    watch: Watch,
    *,
    settings: Iterable[str] = (),
    trust_data: bool = False,
    data: DataInput | None = None,
    split: Split | None = None,
) -> Bench:
    """Load a model to measure it.

    The metrics that need the data are left out if the plugin of the dataset is not installed, or
    if the data must not be opened.

    Args:
        folder: the model folder.
        device: the device to use.
        watch: receives the progress.
        settings: changes to ``data.*`` and ``evaluation.*``; see
            :func:`~cascadezoo.model_folder.trained_spec.trained_spec`.
        trust_data: also open files that the model names.
        data: real images in place of the model's dataset, which then is not opened; see
            :data:`~cascadezoo.data.python_data.DataInput`.
        split: the split that data without splits are; None is that of the spec's evaluation.

    Raises:
        DataError: ``data`` cannot be used, or are not the images of the model's training.
        InputError: the model cannot be loaded, its images do not fit into memory, or a setting is
            invalid.
    """
    changes = list(settings)
    cascade = Cascade.from_pretrained(folder, device=device)
    cascade.require_memory()  # before its real images are read in the same size
    if isinstance(data, DataConfig):
        changes.append(f"data.source={json.dumps(source_of(data))}")
        changes.append(f"data.config={data.model_dump_json()}")
    elif data is not None:
        return _given_bench(cascade, dataless_spec(folder, changes), watch, data, split)
    try:
        return Bench(cascade, trained_spec(folder, changes, trust_data=trust_data), watch)
    except DataError as refused:
        return Bench(cascade, dataless_spec(folder, changes), watch, refused)
    except SpecError as error:
        if changes:
            raise
        first = error.problems[0]
        why = DataError(
            f"the dataset of the model is unknown: {first}",
            hint=first.hint,
            code="data-unknown",
        )
        return Bench(cascade, None, watch, why)


def _given_bench(
    cascade: Cascade, resolved: ResolvedSpec, watch: Watch, data: DataInput, split: Split | None
) -> Bench:
    spec = resolved.spec
    given = read_given(data, size=resolved.image.size, alone=split or spec.evaluation.split)
    if spec.data.source == SOURCE:
        given.require(recorded(spec.data.config, spec.name))
    why = DataError(
        "data contains no images of that split",
        hint='pass data={"train": ..., "test": ...}',
        code="data-not-given",
    )
    rows: dict[Split, ImageData | CascadezooError] = {
        name: given.split(resolved, name) for name in given.splits
    }
    return Bench(cascade, resolved, watch, why, rows)


class LazyExtractor(FeatureExtractor):
    """An extractor that is loaded on first use.

    Metrics that do not use it can therefore be measured without its weights. Every access that
    loads it may raise ``WeightsUnavailableError``.

    Args:
        name: the name, as in :func:`~cascadezoo.evaluate.features.base.load_extractor`.
        device: the device of the network.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name = name
        self.device = device
        self._loaded: FeatureExtractor | None = None

    def load(self) -> FeatureExtractor:
        """The extractor itself."""
        if self._loaded is None:
            self._loaded = load_extractor(self.name, device=self.device)
            for key in ("name", *_ATTRIBUTES):
                setattr(self, key, getattr(self._loaded, key))
        return self._loaded

    def __getattr__(self, key: str) -> Any:
        if key in _ATTRIBUTES:
            return getattr(self.load(), key)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {key!r}")

    def features(self, images: Tensor) -> Tensor:
        """See :class:`FeatureExtractor`."""
        return self.load().features(images)

    def logits(self, features: Tensor) -> Tensor:
        """See :class:`FeatureExtractor`."""
        return logits_of(self.load(), features)

    def __call__(self, images: Tensor, *, precision: Precision = "fp32") -> Tensor:
        """See :class:`FeatureExtractor`."""
        return self.load()(images, precision=precision)


_ATTRIBUTES = ("version", "sha256", "num_features", "input_size", "batch_size", "head_sha256")
