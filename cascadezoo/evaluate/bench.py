"""A trained model with its data and feature networks, each fetched when a metric first asks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.base import ImageData, Split
from cascadezoo.data.split import load_split
from cascadezoo.errors import CascadezooError, DataError, SpecError
from cascadezoo.evaluate.evaluate_metrics import Subject, evaluate_metrics, no_images
from cascadezoo.evaluate.features.base import FeatureExtractor, Precision, load_extractor
from cascadezoo.evaluate.options import EvaluationOptions
from cascadezoo.model_folder.figures import Figure
from cascadezoo.model_folder.metrics_file import AttributionRow, ProblemRow
from cascadezoo.model_folder.trained_spec import trained_spec
from cascadezoo.plugins.manager import get_registry
from cascadezoo.spec import ResolvedSpec
from cascadezoo.spec.lookup import look_up

__all__ = [
    "Bench",
    "LazyExtractor",
    "UnmeasuredMetric",
    "Watch",
    "open_bench",
    "told",
]

_LONGEST_WHY = 300


class Watch(Protocol):
    """Who is told how far it is; ``cascadezoo.train.progress.Progress`` is one."""

    def task(self, name: str, total: int) -> None:
        """Something begins that has so many parts."""

    def advance(self, done: int) -> None:
        """So many of them are done."""

    def say(self, text: str) -> None:
        """Something worth a line."""


@dataclass(frozen=True, slots=True)
class UnmeasuredMetric:
    """A metric that could not be measured, and why."""

    metric: str
    error: CascadezooError

    def row(self) -> ProblemRow:
        """What metrics.json holds of it."""
        return ProblemRow(metric=self.metric, why=told(self.error))


def told(error: CascadezooError) -> str:
    """An error for a file that others read: one line, without the home folder of this machine."""
    text = " ".join(error.what.split()).replace(str(Path.home()), "~")
    return text if len(text) <= _LONGEST_WHY else f"{text[: _LONGEST_WHY - 1]}…"


@dataclass(slots=True)
class Bench:
    """What it takes to measure a model.

    Args:
        cascade: trained, in evaluation mode.
        resolved: its spec, resolved with its data; None where the dataset is not known here.
        watch: told how far it is.
        why: why the dataset is not known.
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
            CascadezooError: they are not to be had; each time with the same error.
        """
        if split not in self._data:
            self._data[split] = self._load(split)
        found = self._data[split]
        if isinstance(found, CascadezooError):
            raise found
        return found

    def _load(self, split: Split) -> ImageData | CascadezooError:
        if self.resolved is None:
            return self.why or DataError(
                "the data of the model are not known here", code="data-unknown"
            )
        try:
            return load_split(self.resolved, split)
        except CascadezooError as error:
            return error

    def extractor(self, name: str) -> FeatureExtractor:
        """An extractor that is loaded when it is first used.

        Raises:
            UnknownNameError: nothing is registered under that name.
            InputError: an argument that it does not take.
        """
        if name not in self._extractors:
            look_up(get_registry().features, name)
            self._extractors[name] = LazyExtractor(name, self.cascade.device)
        return self._extractors[name]

    def subject(self, options: EvaluationOptions) -> Subject:
        """What is measured: the cascade, its images, and the real ones where they are to be had."""
        image = self.cascade.resolved.image
        try:
            real = self.split(options.split)
        except CascadezooError:
            real = no_images((image.channels, image.size, image.size), options.split)

        def sample(first: int, count: int) -> Tensor:
            if first == 0:
                self.watch.task(f"sampling {options.n} images", options.n)
            images: Tensor = self.cascade.sample(
                count, first=first, seed=options.seed, batch_size=count
            )
            self.watch.advance(first + count)
            return images

        return Subject(cascade=self.cascade, real=real, split=self.split, sample=sample)

    def measure(
        self, names: Iterable[str], options: EvaluationOptions
    ) -> tuple[list[Figure], list[UnmeasuredMetric]]:
        """Figures of metrics, and which of them cannot be measured.

        Args:
            names: of registered metrics.
            options: how to measure.
        """
        problems: list[UnmeasuredMetric] = []
        figures = evaluate_metrics(
            names,
            self.subject(options),
            options,
            extractor=self.extractor(options.extractor),
            on_problem=lambda name, error: problems.append(UnmeasuredMetric(name, error)),
        )
        return figures, problems

    def attribute(
        self, options: EvaluationOptions, metric: str = "kid"
    ) -> tuple[list[AttributionRow], str]:
        """What each stage makes of real and of generated images, and which to work on.

        Args:
            options: how to measure. At most half of the real images are compared with, so a
                subset size of None, which takes what fits, is the usual one.
            metric: a distance on features.

        Raises:
            CascadezooError: it cannot be measured.
        """
        from cascadezoo.evaluate.attribution import advice, attribute_stages

        self.split(options.split)  # tells why there is none
        self.watch.say("measuring stage by stage, fed real images and fed generated ones")
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
) -> Bench:
    """Load a model for measuring.

    Args:
        folder: the model folder.
        device: where to compute.
        watch: told how far it is.
        settings: changes of ``data.*`` and ``evaluation.*``; see
            :func:`~cascadezoo.model_folder.trained_spec.trained_spec`.

    Raises:
        InputError: the model cannot be loaded, or a setting cannot be made. A dataset whose plugin
            is not installed is no error: metrics that need it are then left out.
    """
    changes = list(settings)
    cascade = Cascade.from_pretrained(folder, device=device)
    try:
        return Bench(cascade, trained_spec(folder, changes), watch)
    except SpecError as error:
        if changes:
            raise
        first = error.problems[0]
        why = DataError(
            f"the data of the model are not known here: {first}",
            hint=first.hint,
            code="data-unknown",
        )
        return Bench(cascade, None, watch, why)


class LazyExtractor(FeatureExtractor):
    """An extractor that is loaded when something is first asked of it.

    Metrics that bring their own network, or none, are measured where its weights are not to be had.

    Args:
        name: as :func:`~cascadezoo.evaluate.features.base.load_extractor` takes it.
        device: where the network shall be.

    Raises:
        WeightsUnavailableError: its weights are not to be had; by whatever loads it.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name = name
        self.device = device
        self._found: FeatureExtractor | None = None

    def load(self) -> FeatureExtractor:
        """The extractor itself."""
        if self._found is None:
            self._found = load_extractor(self.name, device=self.device)
            for key in ("name", *_TOLD):
                setattr(self, key, getattr(self._found, key))
        return self._found

    def __getattr__(self, key: str) -> Any:
        if key in _TOLD:
            return getattr(self.load(), key)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {key!r}")

    def features(self, images: Tensor) -> Tensor:
        """See :class:`FeatureExtractor`."""
        return self.load().features(images)

    def logits(self, features: Tensor) -> Tensor:
        """See :class:`FeatureExtractor`."""
        return self.load().logits(features)

    def __call__(self, images: Tensor, *, precision: Precision = "fp32") -> Tensor:
        """See :class:`FeatureExtractor`."""
        return self.load()(images, precision=precision)


_TOLD = ("version", "sha256", "num_features", "input_size", "batch_size", "head_sha256")
