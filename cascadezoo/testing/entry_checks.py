"""The checks of entries other than stages: one function for each hook."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.base import ImageData, Split
from cascadezoo.errors import InputError, WeightsUnavailableError
from cascadezoo.evaluate.features.base import FeatureExtractor
from cascadezoo.evaluate.metrics.base import Measured, MetricCascade, MetricFeatures
from cascadezoo.evaluate.samples import Samples
from cascadezoo.plugins.registry import (
    CallbackEntry,
    CommandEntry,
    DataEntry,
    Entry,
    FeatureEntry,
    LossEntry,
    MetricEntry,
    SpecEntry,
    ZooEntry,
)
from cascadezoo.spec import complete, parse_json, resolve
from cascadezoo.spec.configs import DataConfig, ImageShape, Model
from cascadezoo.testing.check_report import (
    CheckError,
    CheckSkippedError,
    Report,
    raise_fault,
    run_checks,
)
from cascadezoo.testing.import_checks import (
    Imported,
    check_docs,
    check_light,
    check_summary,
    import_apart,
    validated_config,
)
from cascadezoo.train.callbacks import Callback
from cascadezoo.zoo.manifest import parse_manifest

__all__ = ["names", "run"]

Check = Callable[[], None]


def run(entry: Entry, settings: Mapping[str, Any], *, skip: Collection[str]) -> Report:
    """Run all checks; see :func:`cascadezoo.testing.check_entry`."""

    @functools.cache
    def imported() -> Imported:
        return import_apart(entry.config)

    def without_torch() -> None:
        if imported().fault is not None:
            raise CheckError(str(imported()))

    def docs() -> None:
        simple = isinstance(entry, (CommandEntry, SpecEntry, ZooEntry))
        raise_fault(check_summary(entry) if simple else check_docs(entry))

    common: tuple[Check, ...] = (
        without_torch,
        lambda: raise_fault(check_light(imported())),
        docs,
    )
    checks = dict(zip(_COMMON, common, strict=True))
    for entry_type, more in _CHECKS.items():
        if isinstance(entry, entry_type):
            for name, check in more.items():
                checks[name] = functools.partial(_guarded, check, entry, settings)
    return run_checks(f"{entry.what} {entry.name}", checks, skip)


def names(entry: Entry) -> list[str]:
    """The names of the checks of an entry."""
    return [
        *_COMMON,
        *(name for cls, more in _CHECKS.items() if isinstance(entry, cls) for name in more),
    ]


def _guarded(check: Callable[[Any, Any], None], entry: Entry, settings: Mapping[str, Any]) -> None:
    with torch.random.fork_rng(devices=[]):
        check(entry, settings)


# --- datasets


def _reads(entry: DataEntry, settings: Mapping[str, Any]) -> None:
    config = validated_config(entry, settings, DataConfig)
    info = config.info()
    splits = {split: _split(entry, config, split) for split in ("train", "test")}
    if splits["train"].digest == splits["test"].digest:
        raise CheckError("training and test images are equal")
    for split, data in splits.items():
        count = info.train if split == "train" else info.test
        if count not in (None, len(data)):
            raise CheckError(f"info() states {count} {split} images, but there are {len(data)}")
        channels, size = data.images.shape[1:3]
        for field, stated, actual in (
            ("size", info.size, size),
            ("channels", info.channels, channels),
        ):
            if stated not in (None, actual):
                raise CheckError(
                    f"info() states {field} {stated}, but the {split} images have {actual}"
                )
        if (info.num_classes or 0) > 0 and data.labels is None:
            raise CheckError(f"info() states {info.num_classes} classes, but {split} has no labels")
        if data.labels is not None:
            low, high = int(data.labels.min()), int(data.labels.max())
            if low < 0 or high >= (info.num_classes or high + 1):
                raise CheckError(
                    f"{split} labels are {low} to {high}, "
                    f"but info() states {info.num_classes} classes"
                )
    names = info.class_names
    if names is not None and len(names) != info.num_classes:
        raise CheckError(f"info() states {len(names)} class names but {info.num_classes} classes")


def _reads_the_same(entry: DataEntry, settings: Mapping[str, Any]) -> None:
    config = validated_config(entry, settings, DataConfig)
    if _split(entry, config, "train").digest != _split(entry, config, "train").digest:
        raise CheckError("two reads give different images or labels; use a seed from the config")


def _split(entry: DataEntry, config: Any, split: Split) -> ImageData:
    data = entry.load()(config, split)
    if not isinstance(data, ImageData):
        raise CheckError(f"load(config, {split!r}) returns {type(data).__name__}, not ImageData")
    if data.split != split:
        raise CheckError(f"load(config, {split!r}) returns the split {data.split!r}")
    return data


# --- metrics


def _measures(entry: MetricEntry, settings: Mapping[str, Any]) -> None:
    config, measure = validated_config(entry, settings, Model), entry.load()
    values = []
    for global_seed in (1, 2):
        features = _features()
        kept = features.generated.clone(), features.real.clone()
        inputs = features if entry.takes == "features" else _cascade(entry)
        torch.manual_seed(global_seed)
        result = measure(config, inputs)
        parts = list(result.values()) if isinstance(result, Mapping) else [result]
        numbers = [part.value if isinstance(part, Measured) else part for part in parts]
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                raise CheckError(f"returns {type(number).__name__}, not a number or Measured")
            if not math.isfinite(number):
                raise CheckError(f"returns {number}, which is not finite")
        if not (torch.equal(kept[0], features.generated) and torch.equal(kept[1], features.real)):
            raise CheckError("changes the features in place")
        values.append(numbers)
    if values[0] != values[1]:
        raise CheckError(
            "returns another number each time; draw from a generator seeded with features.seed"
        )


def _cascade(entry: MetricEntry) -> MetricCascade:
    """An untrained cascade of 16x16 images with labels, and random real images."""
    cascade = Cascade.from_spec(
        {
            "name": "check",
            "data": {"source": "shapes", "config": {"size": 16}, "num_classes": 8},
            "stages": [
                {
                    "name": "coarse",
                    "kind": "flow.v1",
                    "config": {"channels": 8, "multipliers": [1], "steps": 2},
                },
                {"name": "up", "kind": "interpolate.v1"},
            ],
            "evaluation": {"metrics": [], "extractor": "small"},
        }
    ).eval()
    rng = np.random.default_rng(0)

    def split(name: Split) -> ImageData:
        images = rng.integers(0, 256, (96, 3, 16, 16), np.uint8)
        return ImageData(images, np.arange(96, dtype=np.int64) % 8, name)

    def sample(first: int, count: int) -> Tensor:
        return cascade.sample(count, first=first, batch_size=count)

    rows = {name: split(name) for name in ("train", "test")}
    return MetricCascade(
        cascade=cascade,
        samples=Samples(sample, (3, 16, 16), batch_size=32, keep=True),
        real=rows["test"],
        split=rows.__getitem__,
        n=32,
        seed=0,
        batch_size=32,
        extractor=_Classifier() if entry.extractor else _Refusing(),
    )


def _features() -> MetricFeatures:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 96, 16, generator=generator)
    return MetricFeatures(
        generated=rows[0] + 0.5,
        real=rows[1],
        subsets=4,
        subset_size=32,
        extractor=_Classifier(),
    )


class _Classifier(FeatureExtractor):
    """The extractor of these features, which are also its logits."""

    name = "check"
    version = "v1"
    sha256 = "0" * 64
    num_features = 16
    input_size = 8

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :16].float()

    def logits(self, features: Tensor) -> Tensor:
        return features


class _Refusing(_Classifier):
    """The extractor of a metric whose entry states that it uses none."""

    def features(self, images: Tensor) -> Tensor:
        raise CheckError("uses inputs.extractor, but its entry states extractor=False")

    def logits(self, features: Tensor) -> Tensor:
        raise CheckError("uses inputs.extractor, but its entry states extractor=False")


# --- losses


def _computes(entry: LossEntry, settings: Mapping[str, Any]) -> None:
    config = validated_config(entry, settings, Model)
    try:
        loss = entry.load()(config, ImageShape(3, 32))
    except WeightsUnavailableError as error:
        raise CheckSkippedError(error.what) from None
    loss = loss.to(torch.device("cpu"))
    rows = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    estimate = rows[0].requires_grad_()
    value = loss(estimate, rows[1])
    if not isinstance(value, Tensor) or value.shape != () or not bool(torch.isfinite(value)):
        raise CheckError(f"returns {value!r:.80}, not a finite scalar tensor")
    (gradient,) = torch.autograd.grad(value, estimate, allow_unused=True)
    if gradient is None or not bool(gradient.abs().max() > 0):
        raise CheckError("has no gradient with respect to the estimate")


# --- feature extractors


def _extracts(entry: FeatureEntry, settings: Mapping[str, Any]) -> None:
    config = validated_config(entry, settings, Model)
    try:
        extractor = entry.load()(config, torch.device("cpu"))
    except WeightsUnavailableError as error:
        raise CheckSkippedError(error.what) from None
    if not isinstance(extractor, FeatureExtractor):
        raise CheckError(f"load returns {type(extractor).__name__}, not FeatureExtractor")
    if extractor.name.partition(":")[0] != entry.name:
        raise CheckError(f"the extractor has the name {extractor.name!r}")
    images = torch.randint(0, 256, (5, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    images = images.to(torch.uint8)
    whole = extractor(images)
    if not torch.equal(whole, extractor(images)):
        raise CheckError("the same images give other features the second time")
    one = torch.cat([extractor(image[None]) for image in images])
    if not torch.allclose(one, whole, rtol=1e-3, atol=1e-3 * float(whole.abs().max())):
        raise CheckError("the features of an image depend on the other images of its batch")


# --- the rest


def _is_a_manifest(entry: ZooEntry, _settings: Mapping[str, Any]) -> None:
    try:
        parse_manifest(entry.load()(), entry.name)
    except InputError as error:
        raise CheckError(error.what) from None


def _is_a_spec(entry: SpecEntry, _settings: Mapping[str, Any]) -> None:
    try:
        data = complete(parse_json(entry.load(), entry.name), entry.name)
        resolve(data, source=entry.name)
    except InputError as error:
        raise CheckError(str(error)) from None
    if data.get("name") != entry.name:
        raise CheckError(
            f"the spec {entry.impl} has the name {data.get('name')!r}, but its entry {entry.name!r}"
        )


def _is_a_command(entry: CommandEntry, _settings: Mapping[str, Any]) -> None:
    loaded = entry.load()
    if not isinstance(loaded, click.Command):
        raise CheckError(f"{entry.impl} is {type(loaded).__name__}, not click.Command")
    if not (loaded.help or "").strip():
        raise CheckError(f"{entry.impl} has no docstring for --help")


def _is_a_callback(entry: CallbackEntry, settings: Mapping[str, Any]) -> None:
    """Checks without starting: a tracker may contact its server at the start."""
    validated_config(entry, settings, Model)
    loaded = entry.load()
    if not (isinstance(loaded, type) and issubclass(loaded, Callback)):
        raise CheckError(f"{entry.impl} is not a subclass of cascadezoo.Callback")
    known = {name for name in dir(Callback) if not name.startswith("_")}
    for name in vars(loaded):
        if name.startswith("on_") and name not in known:
            raise CheckError(f"{name} is never called; use {', '.join(sorted(known))}")
        if name in known and callable(getattr(loaded, name)):
            try:
                inspect.signature(getattr(loaded, name)).bind(*[None] * (1 + (name != "close")))
            except TypeError as error:
                raise CheckError(f"{name} has the wrong signature: {error}") from None


_COMMON = ("config-without-torch", "import-cost", "docs")
_CHECKS: dict[type[Entry], dict[str, Callable[[Any, Mapping[str, Any]], None]]] = {
    DataEntry: {"data": _reads, "determinism": _reads_the_same},
    MetricEntry: {"measure": _measures},
    LossEntry: {"loss": _computes},
    FeatureEntry: {"features": _extracts},
    ZooEntry: {"manifest": _is_a_manifest},
    SpecEntry: {"spec": _is_a_spec},
    CommandEntry: {"command": _is_a_command},
    CallbackEntry: {"callback": _is_a_callback},
}
