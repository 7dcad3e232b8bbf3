"""Registers the built-in entries, through the same entry-point group as any plugin.

Entries are declared beside their implementation, as ``ENTRIES``: those of a stage in the
``__init__.py`` of its folder, the others in the ``entries.py`` of their folder (trackers:
``tracker_entries.py``). These modules import no torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cascadezoo.plugins.hookspecs import hookimpl
from cascadezoo.plugins.registry import (
    CallbackEntry,
    DataEntry,
    FeatureEntry,
    LossEntry,
    MetricEntry,
    SpecEntry,
    StageEntry,
    ZooEntry,
)

_PACKAGE = Path(__file__).parents[1]


@hookimpl
def register_stages() -> Iterable[StageEntry]:
    """The built-in stage kinds: the entries of each folder in ``cascadezoo/stages``."""
    folder = _PACKAGE / "stages"
    for name in sorted(path.name for path in folder.iterdir()):
        if (folder / name / "__init__.py").is_file():
            yield from _declared(f"cascadezoo.stages.{name}")


@hookimpl
def register_datasets() -> Iterable[DataEntry]:
    """The built-in datasets."""
    return _declared("cascadezoo.data.entries")


@hookimpl
def register_losses() -> Iterable[LossEntry]:
    """The built-in extra losses."""
    return _declared("cascadezoo.train.entries")


@hookimpl
def register_metrics() -> Iterable[MetricEntry]:
    """The built-in metrics."""
    return _declared("cascadezoo.evaluate.metrics.entries")


@hookimpl
def register_features() -> Iterable[FeatureEntry]:
    """The built-in feature extractors."""
    return _declared("cascadezoo.evaluate.features.entries")


@hookimpl
def register_zoos() -> Iterable[ZooEntry]:
    """The shipped zoo."""
    return _declared("cascadezoo.zoo.entries")


@hookimpl
def register_callbacks() -> Iterable[CallbackEntry]:
    """The built-in trackers."""
    return _declared("cascadezoo.train.tracker_entries")


@hookimpl
def register_specs() -> Iterable[SpecEntry]:
    """The specs in ``cascadezoo/spec/presets``. Their descriptions are in the files."""
    names = sorted(path.name for path in (_PACKAGE / "spec" / "presets").iterdir())
    return [
        SpecEntry(name=name[:-5], summary="", impl=f"cascadezoo.spec.presets:{name}")
        for name in names
        if name.endswith(".json")
    ]


def _declared(module: str) -> tuple[Any, ...]:
    # Imported by name: the packages that declare entries are layers above this one.
    entries: tuple[Any, ...] = importlib.import_module(module).ENTRIES
    return entries
