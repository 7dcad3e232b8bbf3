"""The search grid: parameters of stages, their values, and the order of the settings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.diffusion.levels import restart_path
from cascadezoo.errors import InputError
from cascadezoo.spec.configs import Option
from cascadezoo.stages.base import Stage
from cascadezoo.stages.process_config import ProcessConfig

__all__ = ["PARAMETERS", "Parameter", "Setting", "SettingGrid", "Value", "make_grid", "show"]

Value = bool | int | float | str
Setting = Mapping[str, Value]
"""A value for each searched parameter, by the requested name."""

LARGEST = 10_000
"""Largest number of settings in a grid."""
FIELDS = ("steps", "guidance", "sampler")
"""The parameters that are keywords of ``Cascade.sample``; the others are options."""


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number) or number < 0:
        raise ValueError(text)
    return number


def _switch(text: str) -> bool:
    switches = {"true": True, "false": False}
    if text not in switches:
        raise ValueError(text)
    return switches[text]


_READ: dict[str, tuple[Callable[[str], Value], str]] = {
    "s": (_number, "a noise level from the stage's s_min to its s_max"),
    "steps": (_whole, "an integer of at least 1"),
    "guidance": (_number, "a number of at least 0"),
    "sampler": (str, "the name of a sampler"),
    "eta": (_number, "a number from 0 to 1"),
    "restart": (_number, "a noise level from 0 (no restart) to 1"),
    "sampling_schedule": (str, "the name of a schedule"),
    "truncated": (_switch, "true or false"),
}

PARAMETERS = tuple(_READ)
"""The parameters that can be searched."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One searched parameter.

    Args:
        name: the requested name: ``s``, or ``up.s`` for only one stage.
        key: the option: ``s``.
        stages: the stages that it applies to, in the order of the cascade.
        values: the values to try.
    """

    name: str
    key: str
    stages: tuple[str, ...]
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class SettingGrid:
    """All settings to try.

    The parameters of the first stages vary slowest, so that the images of these stages are reused.

    Args:
        parameters: in the order of their stages.
        settings: the product of their values.
    """

    parameters: tuple[Parameter, ...]
    settings: tuple[Setting, ...]

    def options(self, setting: Setting) -> dict[str, dict[str, Value]]:
        """Return the options of a setting by stage."""
        rows: dict[str, dict[str, Value]] = {}
        for parameter in self.parameters:
            for stage in parameter.stages:
                rows.setdefault(stage, {})[parameter.key] = setting[parameter.name]
        return rows


def make_grid(
    cascade: Cascade,
    over: Sequence[str],
    values: Mapping[str, Sequence[str]] | None = None,
    *,
    skip: Sequence[str] = (),
) -> SettingGrid:
    """Make the grid of settings to try.

    Args:
        cascade: the trained cascade.
        over: names of parameters; ``STAGE.NAME`` for only one stage.
        values: their values as text; by default, values that suit the stage's config.
        skip: stages that are not run.

    Raises:
        InputError: a parameter is unknown or no stage supports it, or a value is invalid.
    """
    names = list(dict.fromkeys(over))
    if not names:
        raise InputError(
            "no parameter to search was named",
            hint=f"name parameters: --over {','.join(PARAMETERS)}",
            code="input-tune-nothing",
        )
    texts = dict(values or {})
    for name in texts:
        if name not in names:
            raise InputError(
                f"{name!r} has values but is not searched",
                hint=f"search it too: --over {','.join([*names, name])}",
                code="input-tune-values-unsearched",
                name=name,
            )
    parameters = [_parameter(cascade, name, texts.get(name), skip) for name in names]
    _refuse_duplicates(parameters)
    parameters.sort(key=lambda p: cascade.names.index(p.stages[0]))
    count = math.prod(len(p.values) for p in parameters)
    if count > LARGEST:
        raise InputError(
            f"a search of {count} settings is too large: at most {LARGEST} are possible",
            hint="give fewer values with --values",
            code="input-tune-too-many",
            count=count,
        )
    settings = tuple(
        dict(zip([p.name for p in parameters], row, strict=True))
        for row in itertools.product(*(p.values for p in parameters))
    )
    return SettingGrid(tuple(parameters), settings)


def show(value: Value) -> str:
    """Format a value as on the command line.

    >>> show(0.30000000000000004), show(True), show(25), show("ddim")
    ('0.3', 'true', '25', 'ddim')
    """
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _parameter(
    cascade: Cascade, name: str, texts: Sequence[str] | None, skip: Sequence[str]
) -> Parameter:
    stage, dot, key = name.rpartition(".")
    option = _declared(cascade, key, stage)
    if key not in _READ and option is None:
        raise InputError(
            f"unknown parameter {name!r}",
            hint=f"use {', '.join(PARAMETERS)}",
            code="input-tune-unknown",
            name=name,
        )
    if dot and stage not in cascade.names:
        raise InputError(
            f"{name!r}: {cascade.spec.name} has no stage {stage!r}",
            hint=f"its stages are {', '.join(cascade.names)}",
            code="input-tune-stage-unknown",
            name=stage,
        )
    run = [n for n in cascade.names if n not in skip]
    supporting = [n for n in run if _supports(cascade, n, key)]
    chosen = [n for n in supporting if not dot or n == stage]
    if not chosen:
        raise _unsupported(cascade, key, stage if dot else None, supporting, run)
    if key == "guidance" and cascade.resolved.num_classes is None:
        raise InputError(
            f"guidance needs labels, but {cascade.spec.name} was trained without labels",
            hint="remove guidance from --over",
            code="input-tune-needs-labels",
            name="guidance",
        )
    if texts is None:
        values = _default_values(cascade.stage(chosen[0]), key, name)
    else:
        values = [_read(name, key, text, option) for text in texts]
    return Parameter(name, key, tuple(chosen), tuple(dict.fromkeys(values)))


def _unsupported(
    cascade: Cascade, key: str, stage: str | None, supporting: Sequence[str], run: Sequence[str]
) -> InputError:
    """The error for a parameter that no stage supports; the hint lists those that can be used."""
    if stage is not None and stage not in run:
        return InputError(
            f"stage {stage!r} is not run, because real images replace its output",
            hint="leave out --upstream real",
            code="input-tune-stage-not-run",
            name=stage,
        )
    if stage is not None:
        listed = ", ".join(f"{n}.{key}" for n in supporting)
        return InputError(
            f"stage {stage!r} of {cascade.spec.name} does not support {key}",
            hint=f"use {listed}" if listed else f"remove {key} from --over",
            code="input-tune-stage-unheeded",
            name=stage,
            option=key,
        )
    listed = ", ".join(p for p in PARAMETERS if any(_supports(cascade, n, p) for n in run))
    return InputError(
        f"no stage of {cascade.spec.name} that is run supports {key}",
        hint=f"use {listed}" if listed else "this model has nothing to tune",
        code="input-tune-unheeded",
        option=key,
    )


def _supports(cascade: Cascade, stage: str, key: str) -> bool:
    return key in cascade.stage(stage).sampling_options


def _declared(cascade: Cascade, key: str, first: str) -> Option | None:
    """The option that a config declares under this name: that of a stage first, then of any."""
    for name in sorted(cascade.names, key=lambda name: name != first):
        option = cascade.stage(name).config.sampling_options.get(key)
        if isinstance(option, Option):
            return option
    return None


def _read(name: str, key: str, text: str, option: Option | None = None) -> Value:
    if option is None:
        read, description = _READ[key]
    else:
        read, description = option.parse, f"a {option}"
    try:
        value = read(text.strip())
        if option is not None and not option.allows(value):
            raise ValueError(text)
        return value
    except (ValueError, OverflowError):
        raise InputError(
            f"invalid value {text!r} of {name}: it must be {description}",
            hint=f"give values such as --values {name}=A,B,...",
            code="input-tune-value",
            name=name,
            value=text,
        ) from None


def _default_values(stage: Stage, key: str, name: str) -> Iterable[Value]:
    """Values to try by default, from the stage's config."""
    config = stage.config
    if key == "s":
        if getattr(config, "augmentation", "gaussian") != "gaussian":
            raise InputError(
                f"{name}: the stage was trained with augmentation {config.augmentation!r}, "
                "which has no noise level",
                hint='train the stage with "augmentation": "gaussian", or remove s from --over',
                code="input-tune-no-level",
                name=name,
            )
        s_min, s_max = getattr(config, "s_min", 0.0), getattr(config, "s_max", None)
        if s_max is not None:
            values = (round(s_min + (s_max - s_min) * i / 4, 6) for i in range(5))
            return list(dict.fromkeys(values))
    elif key == "steps":
        steps = getattr(config, "steps", None) or getattr(config, "timesteps", None)
        if steps is not None:
            return [max(1, steps // divisor) for divisor in (4, 2, 1)]
    elif key == "guidance":
        return [1.0, 1.5, 2.0, 3.0]
    elif key == "eta":
        return [0.0, 0.5, 1.0]
    elif key == "restart":
        levels = [0.25, 0.5, 0.75]
        if isinstance(config, ProcessConfig):
            path = config.sampling_path(stage.geometry.output)
            levels = [level for level in levels if restart_path(path, level)]
        return [0.0, *levels]
    elif key == "truncated":
        return [False, True]
    elif key in ("sampler", "sampling_schedule"):
        field = type(config).model_fields.get(key)
        if field is not None and get_origin(field.annotation) is Literal:
            return list(get_args(field.annotation))
    raise InputError(
        f"{name} has no default values to try",
        hint=f"give them with --values {name}=A,B,...",
        code="input-tune-no-values",
        name=name,
    )


def _refuse_duplicates(parameters: Sequence[Parameter]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for parameter in parameters:
        for stage in parameter.stages:
            other = seen.setdefault((stage, parameter.key), parameter.name)
            if other != parameter.name:
                raise InputError(
                    f"{other!r} and {parameter.name!r} both set {parameter.key} of {stage!r}",
                    hint="name one of them",
                    code="input-tune-same",
                    names=(other, parameter.name),
                )


def request_of(options: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Convert options by stage to keywords of ``Cascade.sample``."""
    rows: dict[str, dict[str, Any]] = {}
    for stage, values in options.items():
        for key, value in values.items():
            rows.setdefault(key, {})[stage] = value
    request: dict[str, Any] = {key: rows.pop(key) for key in FIELDS if key in rows}
    return {**request, "options": rows}
