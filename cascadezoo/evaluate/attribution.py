"""Where a cascade loses quality: each stage's images, fed real and fed generated upstream ones."""

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
    """What a stage makes of real upstream images, and of generated ones.

    Args:
        stage: its name.
        role: its role.
        real: how far what it makes of real images, made as small as it receives them, is from its
            targets; None of a generator.
        generated: how far what it makes of what the stages before it drew is.
        mismatch: by how much the second is worse; None of a generator.
        share: the part of the whole cascade's figure that comes in between the stage before it in
            these rows and this one. Shares add up to 1; negative where a stage mends; None where
            the whole figure is within its spread.
    """

    stage: str
    role: str
    real: Figure | None
    generated: Figure
    mismatch: float | None
    share: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """What metrics.json holds."""
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
    """Measure each stage that makes images, fed real ones and fed generated ones.

    Both are compared with the stage's targets: real images made as small as its own. The real
    images that stages are fed are others than those that are compared with, so that none is
    compared with itself. Generated images are drawn of the cascade, once; what stops at a noise
    level for the stage after it is drawn once more, to its end.

    Args:
        subject: the cascade and the real images; its ``sample`` is not asked.
        options: how to measure. A stage makes ``options.n`` images, at most half of the real
            images. The split is that of the subject's real images.
        extractor: what turns images into features, whatever their size.
        metric: a distance on features: ``kid``, ``fid``.

    Returns:
        A row for each stage that makes images, from the generator on. Latents are no images.

    Raises:
        InputError: the metric is no distance on features, there are too few real images, or
            images are not finite.
        UnknownNameError: nothing is registered under the metric's name.
    """
    found = load_metric(metric)
    if found.takes != "features" or found.entry.better != "lower":
        raise InputError(
            f"stages are compared by a distance between features, and {metric} is none",
            hint="choose kid or fid",
            code="input-attribution-metric",
            name=metric,
        )
    total = len(subject.real)
    count = min(options.n, total // 2)
    if count < 1:
        raise InputError(
            f"{options.n} images cannot be attributed with {total} real ones",
            hint="take at least one image, and data of at least two",
            code="input-attribution-count",
            n=options.n,
            total=total,
        )
    n_real = total - count if found.entry.real == "all" else count
    size = options.subset_size_for(count, n_real)
    if found.name == "kid" and min(count, n_real) < size:
        raise InputError(
            f"half of the {total} real images are fed to the stages, which leaves no {size} "
            "for a subset",
            hint=f"set subset_size to at most {count}",
            code="input-attribution-subset",
            needed=size,
        )
    run = _Run(subject, found, extractor, replace(options, n=count), size)
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
        reference = self._reference(n_real)
        drawn = self._generated()
        made: list[StageAttribution] = []
        for stage in self.cascade.resolved.stages:
            if stage.name not in reference:
                continue
            targets = reference[stage.name]
            generated = self._figure(stage.name, "generated", drawn.pop(stage.name), targets, short)
            real = None
            if stage.name != self.cascade.names[0]:
                fed = self._fed_real(stage.name)
                real = self._figure(stage.name, "real", fed, targets, short)
            made.append(
                StageAttribution(
                    stage=stage.name,
                    role=stage.entry.role,
                    real=real,
                    generated=generated,
                    mismatch=None if real is None else generated.value - real.value,
                )
            )
        return _with_shares(made)

    def _reference(self, count: int) -> dict[str, _Features]:
        """Features of each stage's targets: of the first real images in their fixed order."""
        known = time.perf_counter()
        last = real_features(
            self.subject.real,
            self.extractor,
            count=count,
            precision=self.options.precision,
            cache=self.options.cache,
        )
        whole = _Features(self.extractor, self.options.precision)
        whole.parts, whole.seconds = [last], time.perf_counter() - known
        rows = choose_real(len(self.subject.real), count)
        feed = RealFeed(self.cascade, self.subject.real, rows, self.options.seed)
        owners = self._owners(feed.images(0, 1))
        found = {self.cascade.names[-1]: whole}
        for owner in {owners[name] for name in self.measured} - found.keys():
            features = found[owner] = _Features(self.extractor, self.options.precision)
            for first, number in self._batches(count):
                features.add(feed.targets(owner, first, number))
        return {name: found[owners[name]] for name in self.measured}

    @torch.no_grad()
    def _owners(self, images: Tensor) -> dict[str, str]:
        """By stage, the last one with the same targets: a refiner asks for its own upstream."""
        names = self.cascade.names
        owners = {names[-1]: names[-1]}
        for name, after in reversed(list(itertools.pairwise(names))):
            target = self.cascade.stage(after).upstream_target(images)
            owners[name] = owners[after] if target is images else name
            images = target
        return owners

    def _generated(self) -> dict[str, _Features]:
        """Features of what each stage makes of what the one before it made."""
        names, wanted = self.cascade.names, self.measured
        stopped = [
            name
            for name, after in itertools.pairwise(names)
            if name in wanted and truncates(self.cascade.stage(after), None)
        ]
        found = {name: _Features(self.extractor, self.options.precision) for name in wanted}
        for first, count in self._batches(self.options.n):
            request: SampleOptions = {
                "first": first,
                "seed": self.options.seed,
                "batch_size": count,
            }
            stages = self.cascade.sample(count, return_stages=True, **request)
            for name in stopped:
                stages[name] = upto(self.cascade, name).sample(count, **request)
            for name in wanted:
                found[name].add(stages[name])
        return found

    def _fed_real(self, name: str) -> _Features:
        """Features of what a stage makes of real images: of the last ones in their fixed order."""
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
        self, stage: str, fed: str, made: _Features, targets: _Features, short: bool
    ) -> Figure:
        began = time.perf_counter()
        generated, real = made.whole(), targets.whole()
        given = MetricFeatures(
            generated=generated,
            real=real,
            seed=self.options.seed,
            subsets=self.options.subsets,
            subset_size=self.subset_size,
            extractor=self.extractor,
        )
        found = self.metric(given)
        if "" not in found:
            raise InputError(
                f"the metric {self.metric.name} gives no figure but {', '.join(found)}",
                hint="choose kid or fid",
                code="input-attribution-metric",
                name=self.metric.name,
            )
        notes = [f"{stage} fed {fed} images, against its targets", found[""].note]
        if short:
            notes.append(f"{len(self.subject.real)} real images give no more than n = {made.count}")
        figure = figure_of(
            self.metric.name,
            replace(found[""], note="; ".join(note for note in notes if note)),
            self.subject.real,
            self.options,
            extractor=self.extractor,
            seconds=made.seconds + targets.seconds + time.perf_counter() - began,
            part=f"{stage}-{fed}",
            n_real=len(real),
            subset_size=self.subset_size,
        )
        size = self.cascade.stage(stage).geometry.output.size
        return figure.model_copy(update={"resolution": size})


class _Features:
    """Features of images that come in batches, and how long they took."""

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
        # Joined for good, so that the parts do not take the same memory once more.
        self.parts = [torch.cat(self.parts)]
        return self.parts[0]


def _with_shares(rows: Sequence[StageAttribution]) -> list[StageAttribution]:
    last = rows[-1].generated
    if last.value <= (last.std or 0.0):
        return list(rows)
    before = 0.0
    found = []
    for row in rows:
        found.append(replace(row, share=(row.generated.value - before) / last.value))
        before = row.generated.value
    return found
