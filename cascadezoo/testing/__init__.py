"""Checks of the plugin contract, for your tests and for ``cascadezoo plugins check``.

::

    from cascadezoo.testing import assert_stage


    def test_keeps_the_contract():
        assert_stage("wave.v1", {"channels": 8})

Nothing heavy is imported before a check runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cascadezoo.plugins.manager import get_registry
from cascadezoo.plugins.registry import Entry, StageEntry
from cascadezoo.testing.check_report import CheckResult, Report

if TYPE_CHECKING:
    from cascadezoo.spec.configs import ImageShape

__all__ = [
    "CheckResult",
    "Report",
    "assert_entry",
    "assert_stage",
    "assert_survives_kill",
    "check_entry",
    "check_names",
    "check_stage",
]


def check_stage(
    stage: str | StageEntry,
    config: Mapping[str, Any] | None = None,
    *,
    size: int | None = None,
    channels: int = 3,
    num_classes: int | None = 4,
    output: ImageShape | None = None,
    neighbour: Mapping[str, Any] | None = None,
    skip: Collection[str] = (),
) -> Report:
    """Check a stage kind against the contract. A small config takes some seconds on a CPU.

    The checks are ``config``, ``config-without-torch``, ``import-cost``, ``docs``, ``shapes``,
    ``no-labels``, ``plan``, ``gradients``, ``determinism``, ``global-rng``, ``batch-split``,
    ``save-load``, ``joint-training``, ``resume``, ``round-trip``, ``processes``, ``bf16`` and
    ``compile``.

    Args:
        stage: an installed kind, or an entry, installed or not.
        config: settings of the kind; a small network is faster and equally suitable.
        size: height and width of the images that the stage makes; None uses the smallest of 16,
            32 and 64 that fits the config.
        channels: channels of these images.
        num_classes: number of labels; None for data without labels.
        output: the shape of its images or latents, instead of ``size`` and ``channels``.
        neighbour: kind and config of the stage that it is trained with, as in a spec; None uses a
            built-in one. A decoder that accepts only certain generators needs it.
        skip: names of checks to skip.

    Returns:
        The result of every check. Failures of the stage do not raise.

    Raises:
        UnknownNameError: the kind is not installed.
        ValueError: ``skip`` contains an unknown name.
    """
    from cascadezoo.testing.stage_checks import run

    entry = get_registry().stages.get(stage).entry if isinstance(stage, str) else stage
    return run(
        entry,
        config or {},
        size=size,
        channels=channels,
        num_classes=num_classes,
        skip=skip,
        output=output,
        neighbour=neighbour,
    )


def assert_stage(
    stage: str | StageEntry,
    config: Mapping[str, Any] | None = None,
    *,
    size: int | None = None,
    channels: int = 3,
    num_classes: int | None = 4,
    output: ImageShape | None = None,
    neighbour: Mapping[str, Any] | None = None,
    skip: Collection[str] = (),
) -> None:
    """:func:`check_stage` for tests.

    Raises:
        AssertionError: a check failed; the error lists all failures.
    """
    check_stage(
        stage,
        config,
        size=size,
        channels=channels,
        num_classes=num_classes,
        output=output,
        neighbour=neighbour,
        skip=skip,
    ).require()


def check_entry(
    entry: Entry,
    config: Mapping[str, Any] | None = None,
    *,
    place: Mapping[str, Any] | None = None,
    skip: Collection[str] = (),
) -> Report:
    """Check any entry of a plugin against the contract of its hook.

    Datasets are read, metrics and losses computed on random numbers, feature extractors loaded,
    zoos validated, commands and callbacks imported.

    Args:
        entry: a stage, dataset, loss, metric, feature extractor, zoo, command or callback.
        config: settings; the defaults if omitted.
        place: for a stage, further arguments of :func:`check_stage` by name.
        skip: names of checks to skip.

    Raises:
        ValueError: ``skip`` contains an unknown name.
    """
    if isinstance(entry, StageEntry):
        return check_stage(entry, config, skip=skip, **(place or {}))
    from cascadezoo.testing.entry_checks import run

    return run(entry, config or {}, skip=skip)


def assert_entry(
    entry: Entry, config: Mapping[str, Any] | None = None, *, skip: Collection[str] = ()
) -> None:
    """:func:`check_entry` for tests.

    Raises:
        AssertionError: a check failed; the error lists all failures.
    """
    check_entry(entry, config, skip=skip).require()


def assert_survives_kill(
    spec: Mapping[str, Any], folder: str | Path, *, seconds: int = 600
) -> Path:
    """Build a tiny cascade twice, once killed and resumed, and compare models and samples.

    The builds run in processes of their own, on the CPU. The kill is SIGKILL, right after the first
    checkpoint; the spec needs some dozens of steps.

    Args:
        spec: a spec as JSON data; its checkpoints are written after every step.
        folder: an empty folder for the run folders ``whole`` and ``killed``.
        seconds: the time that each build may take.

    Returns:
        The model folder of the resumed build.

    Raises:
        AssertionError: a build fails or ends before the kill, or the models or samples differ.
    """
    from cascadezoo.testing.killed_build import run

    return run(spec, Path(folder), seconds)


def check_names(entries: Iterable[Entry]) -> set[str]:
    """The names of the checks for these entries."""
    from cascadezoo.testing import entry_checks as others
    from cascadezoo.testing import stage_checks as stages

    names: set[str] = set()
    for entry in entries:
        names |= set(stages.NAMES if isinstance(entry, StageEntry) else others.names(entry))
    return names
