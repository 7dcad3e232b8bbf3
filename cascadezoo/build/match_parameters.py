"""Parameter counts on demand: the widths of stages that make a cascade of so many parameters.

The study asks whether the number of parameters or the combination of stages matters, so its cells
must be built with equal numbers. Everything is counted on the meta device.
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
"""How far the nearest number of parameters may be from the one asked for, as a share of it."""

ROUND = 0.02
"""As far as this, a width that is a multiple of eight (or four, or two) is taken for the nearest:
groups of normalisation and tensor cores like such."""

MOST_PARAMETERS = 10**12
"""More than any machine holds; what is asked for must be less, as tensors have no larger sizes."""


def match_parameters(data: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
    """Scale stages of a spec to numbers of parameters.

    All widths of a stage (``StageConfig.widths``) grow or shrink together. Round widths are
    preferred where the number is within 2 % then; otherwise the nearest number is taken.

    Args:
        data: JSON data of a spec that validates.
        counts: how many parameters each stage shall have, by the stage's name.

    Returns:
        A copy of the data, the widths in the configs of these stages changed.

    Raises:
        InputError: there is no such stage; its kind has no widths or no parameters; the nearest
            number is more than 10 % off.
        SpecError: the data do not validate.
    """
    resolved = load_spec(data)
    known = {stage.name: stage for stage in resolved.stages}
    changed: dict[str, dict[str, int]] = {}
    for name, count in counts.items():
        if name not in known:
            listed = ", ".join(known)
            raise InputError(
                f"{name!r} is not a stage of {resolved.spec.name}",
                hint=listed,
                code="input-match-stage-unknown",
                name=name,
            )
        changed[name] = _match_stage(_Scaled(known[name], resolved), count)
    return _with_widths(data, changed)


def match_cascade(data: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Scale a whole cascade to a number of parameters, by one factor for all widths.

    Stages whose number cannot be chosen keep theirs.

    Args:
        data: JSON data of a spec that validates.
        count: how many parameters there shall be in all.

    Returns:
        A copy of the data, the widths in the stages' configs changed.

    Raises:
        InputError: no stage has widths; the nearest number is more than 10 % off.
        SpecError: the data do not validate.
    """
    resolved = load_spec(data)
    _check_count(count)
    rows = [_Scaled(stage, resolved) for stage in resolved.stages]
    scaled = [row for row in rows if row.widths]
    if not scaled:
        raise InputError(
            f"no stage of {resolved.spec.name} can be scaled: their kinds have no widths",
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
    """The ``--set`` settings that make the widths of ``after`` of a spec like ``before``.

    Args:
        before: JSON data of a spec.
        after: what :func:`match_parameters` or :func:`match_cascade` made of it.
    """
    rows = []
    for old, new in zip(before["stages"], after["stages"], strict=True):
        was = old.get("config") or {}
        for field, value in (new.get("config") or {}).items():
            if field not in was or was[field] != value:
                rows.append(f"stages.{new['name']}.config.{field}={value}")
    return rows


@dataclass
class _Scaled:
    """A stage, and how many parameters it has at other widths."""

    stage: ResolvedStage
    resolved: ResolvedSpec

    def __post_init__(self) -> None:
        self.config: StageConfig = self.stage.config
        self.widths = self.config.widths
        self._counts: dict[int | None, int] = {}

    @property
    def step(self) -> int:
        """What the first width must be a multiple of."""
        return self.config.width_step(self.widths[0])

    @property
    def base(self) -> int:
        """The first width of the spec."""
        return int(getattr(self.config, self.widths[0]))

    def nearest(self, factor: float) -> int:
        """The first width, scaled by a factor, as far as it may be."""
        return max(1, round(factor * self.base / self.step)) * self.step

    def changes(self, lead: int) -> dict[str, int]:
        """All widths, where the first is ``lead``."""
        rows = {self.widths[0]: lead}
        for field in self.widths[1:]:
            step = self.config.width_step(field)
            ratio = int(getattr(self.config, field)) / self.base
            rows[field] = max(1, round(lead * ratio / step)) * step
        return rows

    def count(self, lead: int | None) -> int:
        """The number of parameters where the first width is ``lead``; None changes none."""
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
                f"stage {self.stage.name!r} ({self.stage.kind}) cannot have {shown}: {error}",
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
            hint=f"leave {name!r} out",
            code="input-match-no-parameters",
            name=name,
            kind=kind,
        )
    if not row.widths:
        raise InputError(
            f"the number of parameters of stage {name!r} ({kind}) cannot be chosen: its kind has "
            "no widths",
            hint=f"leave {name!r} out",
            code="input-match-stage-no-widths",
            name=name,
            kind=kind,
        )
    best = None
    for several in (8, 4, 2, 1):
        lead = _nearest(row.count, count, several * row.step)
        if abs(row.count(lead) - count) <= ROUND * count:
            best = lead
            break
        if best is None or abs(row.count(lead) - count) < abs(row.count(best) - count):
            best = lead
    found = row.changes(best or row.step)
    shown = ", ".join(f"{field} {value}" for field, value in found.items())
    _check_near(f"stage {name!r} ({kind})", count, row.count(best), shown)
    return found


def _nearest(counted: Callable[[int], int], count: int, step: int) -> int:
    """The multiple of ``step`` whose number of parameters, which never falls, is nearest."""
    high = 1
    while counted(high * step) < count:
        high *= 2
    low = high // 2  # too few, or zero
    while high - low > 1:
        middle = (low + high) // 2
        if counted(middle * step) < count:
            low = middle
        else:
            high = middle
    near = (n * step for n in (low, high) if n > 0)
    return min(near, key=lambda width: abs(counted(width) - count))


def _check_count(count: int) -> None:
    if not 1 <= count <= MOST_PARAMETERS:
        raise InputError(
            f"{count} is no number of parameters to match",
            hint=f"give one from 1 to {MOST_PARAMETERS:,}",
            code="input-match-count-invalid",
            count=count,
        )


def _check_near(what: str, count: int, found: int, shown: str) -> None:
    if abs(found - count) > TOLERANCE * count:
        raise InputError(
            f"{what} cannot have about {count:,} parameters: the nearest is {found:,} ({shown})",
            hint=f"ask for {found:,}, or change what its number of parameters follows from besides",
            code="input-match-unreachable",
            count=count,
            nearest=found,
        )


def _with_widths(
    data: Mapping[str, Any], changed: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    made: dict[str, Any] = copy.deepcopy(dict(data))
    stages: Iterable[dict[str, Any]] = made["stages"]
    for stage in stages:
        if stage["name"] in changed:
            stage["config"] = {**(stage.get("config") or {}), **changed[stage["name"]]}
    load_spec(made)  # stages may look at their neighbours' configs
    return made
