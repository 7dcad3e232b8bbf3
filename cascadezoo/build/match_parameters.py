"""Scales the widths of stages to a given number of parameters.

Comparing combinations of stages requires cascades with equal numbers of parameters. Parameters are
counted on the meta device.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from cascadezoo.errors import InputError
from cascadezoo.spec import ResolvedSpec, ResolvedStage, load_spec
from cascadezoo.spec.configs import ConfigError, StageConfig

__all__ = ["MOST_PARAMETERS", "TOLERANCE", "match_cascade", "match_parameters", "settings_between"]

TOLERANCE = 0.1
"""Largest relative difference between the nearest and the requested number of parameters."""

ROUND = 0.02
"""Relative difference up to which widths that are multiples of eight, four or two are preferred:
they suit group normalisation and tensor cores."""

MOST_PARAMETERS = 10**12
"""Largest number that can be requested: more than any machine holds."""


def match_parameters(data: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
    """Scale stages of a spec to given numbers of parameters.

    All widths of a stage (``StageConfig.widths``) are scaled by one factor. Round widths are
    preferred if their number of parameters is within 2 % of the requested one.

    Args:
        data: JSON data of a valid spec.
        counts: the requested number of parameters by the stage's name.

    Returns:
        A copy of the data with new widths in the configs of these stages.

    Raises:
        InputError: a stage does not exist or its kind has no widths or no parameters, or the
            nearest number differs by more than 10 %.
        SpecError: the data do not validate.
    """
    resolved = load_spec(data)
    known = {stage.name: stage for stage in resolved.stages}
    changed: dict[str, dict[str, int]] = {}
    for name, count in counts.items():
        if name not in known:
            listed = ", ".join(known)
            raise InputError(
                f"{resolved.spec.name} has no stage {name!r}",
                hint=f"its stages are {listed}",
                code="input-match-stage-unknown",
                name=name,
            )
        changed[name] = _match_stage(_Scaled(known[name], resolved), count)
    return _with_widths(data, changed)


def match_cascade(data: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Scale a whole cascade to a number of parameters, by one factor for all widths.

    Stages without widths do not change.

    Args:
        data: JSON data of a valid spec.
        count: the requested total number of parameters.

    Returns:
        A copy of the data with new widths in the stages' configs.

    Raises:
        InputError: no stage has widths, or the nearest number differs by more than 10 %.
        SpecError: the data do not validate.
    """
    resolved = load_spec(data)
    _check_count(count)
    rows = [_Scaled(stage, resolved) for stage in resolved.stages]
    scaled = [row for row in rows if row.widths]
    if not scaled:
        raise InputError(
            f"no stage of {resolved.spec.name} can be scaled, because their kinds have no widths",
            hint="choose other kinds: cascadezoo stages list",
            code="input-match-no-widths",
            name=resolved.spec.name,
        )
    fixed = sum(row.count(None) for row in rows if not row.widths)

    def total(factor: float) -> int:
        return fixed + sum(row.count(row.nearest(factor)) for row in scaled)

    low, high = 0.0, 1.0
    while total(high) < count:
        low, high = high, 2 * high
    for _ in range(30):
        middle = (low + high) / 2
        if total(middle) < count:
            low = middle
        else:
            high = middle
    best = min((low, high), key=lambda factor: abs(total(factor) - count))
    _check_near(resolved.spec.name, count, total(best), "the factor of all widths")
    changed = {row.stage.name: row.changes(row.nearest(best)) for row in scaled}
    return _with_widths(data, changed)


def settings_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the ``--set`` settings that change the widths of ``before`` to those of ``after``.

    Args:
        before: JSON data of a spec.
        after: the result of :func:`match_parameters` or :func:`match_cascade` for it.
    """
    rows = []
    for old, new in zip(before["stages"], after["stages"], strict=True):
        former = old.get("config") or {}
        for field, value in (new.get("config") or {}).items():
            if field not in former or former[field] != value:
                rows.append(f"stages.{new['name']}.config.{field}={value}")
    return rows


@dataclass
class _Scaled:
    """A stage and its number of parameters at other widths."""

    stage: ResolvedStage
    resolved: ResolvedSpec

    def __post_init__(self) -> None:
        self.config: StageConfig = self.stage.config
        self.widths = self.config.widths
        self._counts: dict[int | None, int] = {}

    @property
    def step(self) -> int:
        """The number that divides the first width."""
        return self.config.width_step(self.widths[0])

    @property
    def base(self) -> int:
        """The first width in the spec."""
        return int(getattr(self.config, self.widths[0]))

    def nearest(self, factor: float) -> int:
        """The valid first width nearest to the scaled one."""
        return max(1, round(factor * self.base / self.step)) * self.step

    def changes(self, lead: int) -> dict[str, int]:
        """All widths if the first is ``lead``."""
        rows = {self.widths[0]: lead}
        for field in self.widths[1:]:
            step = self.config.width_step(field)
            ratio = int(getattr(self.config, field)) / self.base
            rows[field] = max(1, round(lead * ratio / step)) * step
        return rows

    def count(self, lead: int | None) -> int:
        """The number of parameters if the first width is ``lead``; None keeps all widths."""
        from cascadezoo.cascade.assemble import build_stage

        if lead not in self._counts:
            stage = self.stage
            if lead is not None:
                stage = replace(stage, config=self._config(lead))
            built = build_stage(stage, self.resolved.num_classes, "meta", self.resolved.spec.seed)
            self._counts[lead] = sum(p.numel() for p in built.parameters())
        return self._counts[lead]

    def _config(self, lead: int) -> StageConfig:
        changes = self.changes(lead)
        raw = {**self.config.model_dump(mode="json"), **changes}
        try:
            return type(self.config).model_validate(raw).fit(self.stage.output)
        except (ValidationError, ConfigError) as error:
            shown = ", ".join(f"{field} {value}" for field, value in changes.items())
            raise InputError(
                f"stage {self.stage.name!r} ({self.stage.kind}) does not accept {shown}: {error}",
                code="input-match-width-invalid",
                name=self.stage.name,
                kind=self.stage.kind,
            ) from error


def _match_stage(row: _Scaled, count: int) -> dict[str, int]:
    _check_count(count)
    name, kind = row.stage.name, row.stage.kind
    if row.config.parameterless:
        raise InputError(
            f"stage {name!r} ({kind}) has no parameters to match",
            hint=f"leave out {name!r}",
            code="input-match-no-parameters",
            name=name,
            kind=kind,
        )
    if not row.widths:
        raise InputError(
            f"stage {name!r} ({kind}) cannot be scaled, because its kind has no widths",
            hint=f"leave out {name!r}",
            code="input-match-stage-no-widths",
            name=name,
            kind=kind,
        )
    best = None
    for multiple in (8, 4, 2, 1):
        lead = _nearest(row.count, count, multiple * row.step)
        if abs(row.count(lead) - count) <= ROUND * count:
            best = lead
            break
        if best is None or abs(row.count(lead) - count) < abs(row.count(best) - count):
            best = lead
    widths = row.changes(best or row.step)
    shown = ", ".join(f"{field} {value}" for field, value in widths.items())
    _check_near(f"stage {name!r} ({kind})", count, row.count(best), shown)
    return widths


def _nearest(count_of: Callable[[int], int], count: int, step: int) -> int:
    """The multiple of ``step`` with the nearest number of parameters; counts must not decrease."""
    high = 1
    while count_of(high * step) < count:
        high *= 2
    low = high // 2  # too few, or zero
    while high - low > 1:
        middle = (low + high) // 2
        if count_of(middle * step) < count:
            low = middle
        else:
            high = middle
    near = (n * step for n in (low, high) if n > 0)
    return min(near, key=lambda width: abs(count_of(width) - count))


def _check_count(count: int) -> None:
    if not 1 <= count <= MOST_PARAMETERS:
        raise InputError(
            f"cannot match {count} parameters",
            hint=f"give a number from 1 to {MOST_PARAMETERS:,}",
            code="input-match-count-invalid",
            count=count,
        )


def _check_near(name: str, count: int, nearest: int, shown: str) -> None:
    if abs(nearest - count) > TOLERANCE * count:
        raise InputError(
            f"{name} cannot have about {count:,} parameters: the nearest number is {nearest:,} "
            f"({shown})",
            hint=f"request {nearest:,}, or change other fields that determine the number",
            code="input-match-unreachable",
            count=count,
            nearest=nearest,
        )


def _with_widths(
    data: Mapping[str, Any], changed: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    result: dict[str, Any] = copy.deepcopy(dict(data))
    stages: Iterable[dict[str, Any]] = result["stages"]
    for stage in stages:
        if stage["name"] in changed:
            stage["config"] = {**(stage.get("config") or {}), **changed[stage["name"]]}
    load_spec(result)  # stages may depend on the configs of their neighbours
    return result
