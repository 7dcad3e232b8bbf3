"""Where a cascade loses quality: the images of each stage on real and on generated input."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.cascade.sampling import SampleOptions, truncates
from cascadezoo.cascade.stage_calls import upstream_target
from cascadezoo.errors import InputError
from cascadezoo.evaluate.advice import advice
from cascadezoo.evaluate.evaluate_metrics import Subject
from cascadezoo.evaluate.evaluate_sampler import figure_of
from cascadezoo.evaluate.features.base import FeatureExtractor, Precision
from cascadezoo.evaluate.metrics.base import Metric, MetricFeatures, load_metric
from cascadezoo.evaluate.options import EvaluationOptions
from cascadezoo.evaluate.partial_cascades import RealFeed, upto
from cascadezoo.evaluate.real_features import choose_real, real_features
from cascadezoo.model_folder.figures import Figure

__all__ = ["StageAttribution", "advice", "attribute_stages"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageAttribution:
    """The quality of a stage on real and on generated input.

    Args:
        stage: the stage's name.
        role: its role.
        real: distance to the targets on real input, resized to the stage's input; None for a
            generator.
        generated: distance to the targets on the output of the stages before it.
        mismatch: ``generated`` minus ``real``; None for a generator.
        share: the part of the whole cascade's figure that arises between the previous row and this
            one. Shares add up to 1. A negative share is an improvement. None if the whole figure is
            within its spread.
    """

    stage: str
    role: str
    real: Figure | None
    generated: Figure
    mismatch: float | None
    share: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The row as metrics.json stores it."""
        return {
            "stage": self.stage,
            "role": self.role,
            "real": None if self.real is None else self.real.to_dict(),
            "generated": self.generated.to_dict(),
            "mismatch": self.mismatch,
            "share": self.share,
        }


def attribute_stages(
    subject: Subject,
    options: EvaluationOptions,
    *,
    extractor: FeatureExtractor,
    metric: str = "kid",
) -> list[StageAttribution]:
    """Measure each stage that makes images, on real and on generated input.

    Both outputs are compared with the stage's targets: real images resized to its output. The real
    images for the input differ from those for the comparison, so no image is compared with itself.
    The cascade samples the generated images once. A stage that stops at a noise level for the next
    stage is sampled again without the stop.

    Args:
        subject: the cascade and the real images; its ``sample`` is not used.
        options: how to measure. A stage makes ``options.n`` images, but at most half as many as
            there are real images. The split is that of the subject's real images.
        extractor: the feature extractor, for images of any size.
        metric: a distance on features: ``kid``, ``fid``.

    Returns:
        One row per stage that makes images, from the generator on. Latents do not count as images.

    Raises:
        InputError: the metric is not a distance on features, there are too few real images, or
            images are not finite.
        UnknownNameError: the metric is not registered.
    """
    loaded = load_metric(metric)
    if loaded.takes != "features" or loaded.entry.better != "lower":
        raise InputError(
            f"metric {metric} is not a distance between features, so it cannot compare stages",
            hint="choose kid or fid",
            code="input-attribution-metric",
            name=metric,
        )
    total = len(subject.real)
    count = min(options.n, total // 2)
    if count < 1:
        raise InputError(
            f"cannot measure stages with n = {options.n} and {total} real images",
            hint="use at least 1 image and a dataset of at least 2",
            code="input-attribution-count",
            n=options.n,
            total=total,
        )
    n_real = total - count if loaded.entry.real == "all" else count
    size = options.subset_size_for(count, n_real)
    if loaded.name == "kid" and min(count, n_real) < size:
        raise InputError(
            f"subsets of {size} are too large: half of the {total} real images are input to the "
            "stages",
            hint=f"set subset_size to at most {count}",
            code="input-attribution-subset",
            needed=size,
        )
    run = _Run(subject, loaded, extractor, replace(options, n=count), size)
    return run.rows(n_real, short=count < options.n)


@dataclass(frozen=True, slots=True)
class _Run:
    subject: Subject
    metric: Metric
    extractor: FeatureExtractor
    options: EvaluationOptions
    subset_size: int

    @property
    def cascade(self) -> Cascade:
        return self.subject.cascade

    @property
    def measured(self) -> list[str]:
        """The stages that make images, from the generator on."""
        stages = self.cascade.resolved.stages
        return [stage.name for stage in stages if not stage.output.latent]

    def rows(self, n_real: int, *, short: bool) -> list[StageAttribution]:
        """One row per measured stage.

        Args:
            n_real: number of real images to compare with.
            short: whether the dataset allows fewer images than requested.
        """
        reference = self._reference(n_real)
        sampled = self._generated()
        rows: list[StageAttribution] = []
        for stage in self.cascade.resolved.stages:
            if stage.name not in reference:
                continue
            targets = reference[stage.name]
            generated = self._figure(
                stage.name, "generated", sampled.pop(stage.name), targets, short
            )
            real = None
            if stage.name != self.cascade.names[0]:
                output = self._on_real(stage.name)
                real = self._figure(stage.name, "real", output, targets, short)
            rows.append(
                StageAttribution(
                    stage=stage.name,
                    role=stage.entry.role,
                    real=real,
                    generated=generated,
                    mismatch=None if real is None else generated.value - real.value,
                )
            )
        return _with_shares(rows)

    def _reference(self, count: int) -> dict[str, _Features]:
        """Features of each stage's targets, from the first real images in their fixed order."""
        began = time.perf_counter()
        last = real_features(
            self.subject.real,
            self.extractor,
            count=count,
            precision=self.options.precision,
            cache=self.options.cache,
        )
        whole = _Features(self.extractor, self.options.precision)
        whole.parts, whole.seconds = [last], time.perf_counter() - began
        rows = choose_real(len(self.subject.real), count)
        feed = RealFeed(self.cascade, self.subject.real, rows, self.options.seed)
        owners = self._owners(feed.images(0, 1))
        targets = {self.cascade.names[-1]: whole}
        for owner in {owners[name] for name in self.measured} - targets.keys():
            features = targets[owner] = _Features(self.extractor, self.options.precision)
            for first, number in self._batches(count):
                features.add(feed.targets(owner, first, number))
        return {name: targets[owners[name]] for name in self.measured}

    @torch.no_grad()
    def _owners(self, images: Tensor) -> dict[str, str]:
        """By stage, the last stage with the same targets: a refiner shares those of its input."""
        names = self.cascade.names
        owners = {names[-1]: names[-1]}
        for name, after in reversed(list(itertools.pairwise(names))):
            target = upstream_target(self.cascade.stage(after), images)
            owners[name] = owners[after] if target is images else name
            images = target
        return owners

    def _generated(self) -> dict[str, _Features]:
        """Features of the output of each stage in the whole cascade."""
        names, measured = self.cascade.names, self.measured
        stopped = [
            name
            for name, after in itertools.pairwise(names)
            if name in measured and truncates(self.cascade.stage(after), None)
        ]
        features = {name: _Features(self.extractor, self.options.precision) for name in measured}
        for first, count in self._batches(self.options.n):
            request: SampleOptions = {
                "first": first,
                "seed": self.options.seed,
                "batch_size": count,
            }
            stages = self.cascade.sample(count, return_stages=True, **request)
            for name in stopped:
                stages[name] = upto(self.cascade, name).sample(count, **request)
            for name in measured:
                features[name].add(stages[name])
        return features

    def _on_real(self, name: str) -> _Features:
        """Features of a stage's output on the last real images in their fixed order."""
        total, n = len(self.subject.real), self.options.n
        rows = choose_real(total, total)[total - n :]
        feed = RealFeed(self.cascade, self.subject.real, rows, self.options.seed)
        features = _Features(self.extractor, self.options.precision)
        for first, count in self._batches(n):
            features.add(feed.run(name, name, first, count))
        return features

    def _batches(self, n: int) -> Iterator[tuple[int, int]]:
        for first in range(0, n, self.options.batch_size):
            yield first, min(self.options.batch_size, n - first)

    def _figure(
        self, stage: str, source: str, output: _Features, targets: _Features, short: bool
    ) -> Figure:
        began = time.perf_counter()
        generated, real = output.whole(), targets.whole()
        features = MetricFeatures(
            generated=generated,
            real=real,
            seed=self.options.seed,
            subsets=self.options.subsets,
            subset_size=self.subset_size,
            extractor=self.extractor,
        )
        results = self.metric(features)
        if "" not in results:
            raise InputError(
                f"metric {self.metric.name} returns only parts ({', '.join(results)}), no value of "
                "its own",
                hint="choose kid or fid",
                code="input-attribution-metric",
                name=self.metric.name,
            )
        notes = [f"{stage} on {source} input, compared with its targets", results[""].note]
        if short:
            notes.append(f"{len(self.subject.real)} real images limit n to {output.count}")
        figure = figure_of(
            self.metric.name,
            replace(results[""], note="; ".join(note for note in notes if note)),
            self.subject.real,
            self.options,
            extractor=self.extractor,
            seconds=output.seconds + targets.seconds + time.perf_counter() - began,
            part=f"{stage}-{source}",
            n_real=len(real),
            subset_size=self.subset_size,
        )
        size = self.cascade.stage(stage).geometry.output.size
        return figure.model_copy(update={"resolution": size})


class _Features:
    """Features of batches of images, and the seconds that they took."""

    def __init__(self, extractor: FeatureExtractor, precision: Precision) -> None:
        self.extractor = extractor
        self.precision: Precision = precision
        self.parts: list[Tensor] = []
        self.seconds = 0.0

    @property
    def count(self) -> int:
        return sum(map(len, self.parts))

    def add(self, images: Tensor) -> None:
        began = time.perf_counter()
        self.parts.append(self.extractor(images, precision=self.precision))
        if self.extractor.device.type == "cuda":
            torch.cuda.synchronize(self.extractor.device)
        self.seconds += time.perf_counter() - began

    def whole(self) -> Tensor:
        # Replace the parts, so that the features are not in memory twice.
        self.parts = [torch.cat(self.parts)]
        return self.parts[0]


def _with_shares(rows: Sequence[StageAttribution]) -> list[StageAttribution]:
    last = rows[-1].generated
    if last.value <= (last.std or 0.0):
        return list(rows)
    before = 0.0
    shared = []
    for row in rows:
        shared.append(replace(row, share=(row.generated.value - before) / last.value))
        before = row.generated.value
    return shared
