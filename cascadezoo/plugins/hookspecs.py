"""The hooks of cascadezoo. A plugin implements hooks in the module of its entry point.

Each hook returns entries and imports nothing heavy, so you can test a plugin with a plain call.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from cascadezoo.plugins.registry import (
    CallbackEntry,
    CommandEntry,
    DataEntry,
    FeatureEntry,
    LossEntry,
    MetricEntry,
    SpecEntry,
    StageEntry,
    ZooEntry,
)

__all__ = ["ENTRY_POINT_GROUP", "hookimpl", "hookspec"]

ENTRY_POINT_GROUP = "cascadezoo"

hookspec = pluggy.HookspecMarker("cascadezoo")
hookimpl = pluggy.HookimplMarker("cascadezoo")
"""Marks a function of a plugin as an implementation of the hook of its name; a marker of pluggy."""


@hookspec
def register_stages() -> Iterable[StageEntry]:  # type: ignore[empty-body]
    """Stage kinds: generators, upsamplers, refiners, decoders."""


@hookspec
def register_datasets() -> Iterable[DataEntry]:  # type: ignore[empty-body]
    """Datasets that ``data.source`` of a spec may name."""


@hookspec
def register_losses() -> Iterable[LossEntry]:  # type: ignore[empty-body]
    """Losses between a stage's estimate and its target, for ``training.losses`` of a spec."""


@hookspec
def register_metrics() -> Iterable[MetricEntry]:  # type: ignore[empty-body]
    """Metrics that ``evaluation.metrics`` of a spec may name."""


@hookspec
def register_features() -> Iterable[FeatureEntry]:  # type: ignore[empty-body]
    """Feature extractors that ``evaluation.extractor`` of a spec may name."""


@hookspec
def register_zoos() -> Iterable[ZooEntry]:  # type: ignore[empty-body]
    """Lists of pretrained models, in the form of ``zoo_manifest.json``."""


@hookspec
def register_specs() -> Iterable[SpecEntry]:  # type: ignore[empty-body]
    """Specs that ``build``, ``plan`` and similar commands accept by name."""


@hookspec
def register_commands() -> Iterable[CommandEntry]:  # type: ignore[empty-body]
    """Additional commands ``cascadezoo NAME``."""


@hookspec
def register_callbacks() -> Iterable[CallbackEntry]:  # type: ignore[empty-body]
    """Callbacks, for example trackers, that ``training.callbacks`` of a spec may name."""
