"""The contract as checks: for anybody's pytest, and for ``cascadezoo plugins check``.

::

    from cascadezoo.testing import assert_stage


    def test_keeps_the_contract():
        assert_stage("wave.v1", {"channels": 8})

Nothing heavy is imported before a check runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from cascadezoo.plugins.manager import get_registry
from cascadezoo.plugins.registry import Entry, StageEntry
from cascadezoo.testing.check_report import CheckResult, Report

__all__ = [
    "CheckResult",
    "Report",
    "assert_entry",
    "assert_stage",
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
    skip: Collection[str] = (),
) -> Report:
    """Hold a stage kind against the contract: some seconds on a CPU for a small config.

    Checked are ``config``, ``config-without-torch``, ``import-cost``, ``docs``, ``shapes``,
    ``no-labels``, ``plan``, ``gradients``, ``determinism``, ``batch-split``, ``save-load``,
    ``joint-training``, ``bf16`` and ``compile``.

    Args:
        stage: an installed kind, or an entry, installed or not.
        config: settings of the kind; a small network is checked as well as a large one, sooner.
        size: height and width of the images that the stage makes; None takes the smallest of 16,
            32 and 64 that the config fits.
        channels: of these images.
        num_classes: how many labels the data have; None has none.
        skip: names of checks to leave out.

    Returns:
        What every check found. Nothing that the stage does raises.

    Raises:
        UnknownNameError: no such kind is installed.
        ValueError: ``skip`` names no check.
    """
    from cascadezoo.testing.stage_checks import run

    entry = get_registry().stages.get(stage).entry if isinstance(stage, str) else stage
    return run(
        entry, config or {}, size=size, channels=channels, num_classes=num_classes, skip=skip
    )


def assert_stage(
    stage: str | StageEntry,
    config: Mapping[str, Any] | None = None,
    *,
    size: int | None = None,
    channels: int = 3,
    num_classes: int | None = 4,
    skip: Collection[str] = (),
) -> None:
    """:func:`check_stage` for tests.

    Raises:
        AssertionError: with everything that is wrong.
    """
    check_stage(
        stage, config, size=size, channels=channels, num_classes=num_classes, skip=skip
    ).require()


def check_entry(
    entry: Entry, config: Mapping[str, Any] | None = None, *, skip: Collection[str] = ()
) -> Report:
    """Hold anything that a plugin registers against what its hook promises.

    Datasets are read, metrics and losses computed on random numbers, feature extractors loaded,
    zoos validated, commands and callbacks imported.

    Args:
        entry: a stage, dataset, loss, metric, feature extractor, zoo, command or callback.
        config: settings; the defaults where there are none.
        skip: names of checks to leave out.

    Raises:
        ValueError: ``skip`` names no check.
    """
    if isinstance(entry, StageEntry):
        return check_stage(entry, config, skip=skip)
    from cascadezoo.testing.entry_checks import run

    return run(entry, config or {}, skip=skip)


def assert_entry(
    entry: Entry, config: Mapping[str, Any] | None = None, *, skip: Collection[str] = ()
) -> None:
    """:func:`check_entry` for tests.

    Raises:
        AssertionError: with everything that is wrong.
    """
    check_entry(entry, config, skip=skip).require()


def check_names(entries: Iterable[Entry]) -> set[str]:
    """The names of the checks that there are for these entries."""
    from cascadezoo.testing import entry_checks as others
    from cascadezoo.testing import stage_checks as stages

    names: set[str] = set()
    for entry in entries:
        names |= set(stages.NAMES if isinstance(entry, StageEntry) else others.names(entry))
    return names
