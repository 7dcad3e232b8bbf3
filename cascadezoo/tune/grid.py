"""What is searched: parameters of stages, their values, and the order of the settings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.errors import InputError
from cascadezoo.stages.base import Stage

__all__ = ["PARAMETERS", "Parameter", "Setting", "SettingGrid", "Value", "make_grid", "show"]

Value = bool | int | float | str
Setting = Mapping[str, Value]
"""A value for each searched parameter, by the name that was given."""

LARGEST = 10_000
FIELDS = ("steps", "guidance", "sampler")


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
    "s": (_number, "a noise level from 0 to the stage's s_max"),
    "steps": (_whole, "a whole number from 1 on"),
    "guidance": (_number, "a number from 0 on"),
    "sampler": (str, "the name of a sampler"),
    "eta": (_number, "a number from 0 to 1"),
    "truncated": (_switch, "true or false"),
}

PARAMETERS = tuple(_READ)
"""What can be searched."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One thing that is searched.

    Args:
        name: as it was given: ``s``, or ``up.s`` for one stage alone.
        key: the option: ``s``.
        stages: the stages that it is for, in the order of the cascade.
        values: what is tried.
    """

    name: str
    key: str
    stages: tuple[str, ...]
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class SettingGrid:
    """All settings to try, those of the first stages outermost, so that their images last longest.

    Args:
        parameters: from the first stages on.
        settings: the product of their values.
    """

    parameters: tuple[Parameter, ...]
    settings: tuple[Setting, ...]

    def options(self, setting: Setting) -> dict[str, dict[str, Value]]:
        """The options of a setting by stage."""
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
    """The settings to try.

    Args:
        cascade: the trained cascade.
        over: names of parameters; ``STAGE.NAME`` for one stage alone.
        values: their values as text; the others take those that fit the stage's config.
        skip: stages that are not run.

    Raises:
        InputError: an unknown parameter, one that no stage heeds, or values that are none.
    """
    names = list(dict.fromkeys(over))
    if not names:
        raise InputError(
            "nothing to search over was named",
            hint=f"--over {','.join(PARAMETERS)}",
            code="input-tune-nothing",
        )
    texts = dict(values or {})
    for name in texts:
        if name not in names:
            raise InputError(
                f"values were given for {name!r}, which is not searched",
                hint=f"--over {','.join([*names, name])}",
                code="input-tune-values-unsearched",
                name=name,
            )
    parameters = [_parameter(cascade, name, texts.get(name), skip) for name in names]
    _refuse_double(parameters)
    order = {name: place for place, name in enumerate(cascade.names)}
    parameters.sort(key=lambda p: order[p.stages[0]])
    count = math.prod(len(p.values) for p in parameters)
    if count > LARGEST:
        raise InputError(
            f"{count} settings are too many to try",
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
    """A value as it is written on the command line.

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
    if key not in _READ:
        raise InputError(
            f"{name!r} cannot be searched over",
            hint=f"there are {', '.join(PARAMETERS)}",
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
    heeding = [n for n in run if key in cascade.stage(n).sampling_options]
    chosen = [n for n in heeding if not dot or n == stage]
    if not chosen:
        raise _unheeded(cascade, key, stage if dot else None, heeding, run)
    if key == "guidance" and cascade.resolved.num_classes is None:
        raise InputError(
            f"guidance needs labels, and {cascade.spec.name} was trained without",
            hint="leave guidance out of --over",
            code="input-tune-needs-labels",
            name="guidance",
        )
    if texts is None:
        found = _usual(cascade.stage(chosen[0]), key, name)
    else:
        found = [_read(name, key, text) for text in texts]
    return Parameter(name, key, tuple(chosen), tuple(dict.fromkeys(found)))


def _unheeded(
    cascade: Cascade, key: str, stage: str | None, heeding: Sequence[str], run: Sequence[str]
) -> InputError:
    """Says why nothing could be searched, and what could."""
    if stage is not None and stage not in run:
        return InputError(
            f"stage {stage!r} is not run where real images stand in its place",
            hint="leave --upstream real out",
            code="input-tune-stage-not-run",
            name=stage,
        )
    if stage is not None:
        listed = ", ".join(f"{n}.{key}" for n in heeding)
        return InputError(
            f"stage {stage!r} of {cascade.spec.name} does not heed {key}",
            hint=f"there is {listed}" if listed else f"leave {key} out of --over",
            code="input-tune-stage-unheeded",
            name=stage,
            option=key,
        )
    listed = ", ".join(p for p in PARAMETERS if any(_heeds(cascade, n, p) for n in run))
    return InputError(
        f"no stage of {cascade.spec.name} that is run heeds {key}",
        hint=f"they heed {listed}" if listed else "there is nothing to tune",
        code="input-tune-unheeded",
        option=key,
    )


def _heeds(cascade: Cascade, stage: str, key: str) -> bool:
    return key in cascade.stage(stage).sampling_options


def _read(name: str, key: str, text: str) -> Value:
    read, what = _READ[key]
    try:
        return read(text.strip())
    except (ValueError, OverflowError):
        raise InputError(
            f"{text!r} is not a value of {name}: it is {what}",
            hint=f"--values {name}=A,B,...",
            code="input-tune-value",
            name=name,
            value=text,
        ) from None


def _usual(stage: Stage, key: str, name: str) -> Iterable[Value]:
    """Values worth trying, from the stage's config."""
    config = stage.config
    if key == "s":
        if getattr(config, "augmentation", "gaussian") != "gaussian":
            raise InputError(
                f"{name}: the stage was trained with augmentation {config.augmentation!r}, "
                "which has no noise level to choose",
                hint='train it with "augmentation": "gaussian", or leave s out of --over',
                code="input-tune-no-level",
                name=name,
            )
        most = getattr(config, "s_max", None)
        if most is not None:
            return [round(most * i / 4, 6) for i in range(5)]
    elif key == "steps":
        steps = getattr(config, "steps", None) or getattr(config, "timesteps", None)
        if steps is not None:
            return [max(1, steps // part) for part in (4, 2, 1)]
    elif key == "guidance":
        return [1.0, 1.5, 2.0, 3.0]
    elif key == "eta":
        return [0.0, 0.5, 1.0]
    elif key == "truncated":
        return [False, True]
    elif key == "sampler":
        field = type(config).model_fields.get("sampler")
        if field is not None and get_origin(field.annotation) is Literal:
            return list(get_args(field.annotation))
    raise InputError(
        f"what values of {name} to try is not known",
        hint=f"--values {name}=A,B,...",
        code="input-tune-no-values",
        name=name,
    )


def _refuse_double(parameters: Sequence[Parameter]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for parameter in parameters:
        for stage in parameter.stages:
            other = seen.setdefault((stage, parameter.key), parameter.name)
            if other != parameter.name:
                raise InputError(
                    f"{other!r} and {parameter.name!r} are both {parameter.key} of {stage!r}",
                    hint="name one of them",
                    code="input-tune-same",
                    names=(other, parameter.name),
                )


def request_of(options: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Options by stage as the keywords of ``Cascade.sample``."""
    rows: dict[str, dict[str, Any]] = {}
    for stage, named in options.items():
        for key, value in named.items():
            rows.setdefault(key, {})[stage] = value
    request: dict[str, Any] = {key: rows.pop(key) for key in FIELDS if key in rows}
    return {**request, "options": rows}
