"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cascadezoo.cli.completion import (
    complete_models,
    complete_settings,
    complete_specs,
    complete_stage_values,
)

__all__ = [
    "Numbers",
    "ParamType",
    "Whole",
    "device_option",
    "examples",
    "json_option",
    "model_argument",
    "per_stage_option",
    "precision_option",
    "seed_option",
    "set_option",
    "spec_argument",
    "trust_data_option",
]

F = TypeVar("F", bound=Callable[..., Any])

LARGEST_SEED = 2**63 - 1

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # generic only in newer versions of click


class Whole(ParamType):
    """A whole number within bounds; unlike click's type, it does not list them in help texts."""

    name = "number"

    def __init__(self, low: int, high: int = LARGEST_SEED) -> None:
        self.low = low
        self.high = high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the number."""
        try:
            number = int(value)
        except ValueError:
            number = None
        if number is None or not self.low <= number <= self.high:
            self.fail(f"{value!r} is not a whole number from {self.low} to {self.high}", param, ctx)
        return number


class Numbers(ParamType):
    """Numbers within bounds, separated by commas."""

    name = "numbers"

    def __init__(self, low: float, high: float, count: int | None = None) -> None:
        self.low = low
        self.high = high
        self.count = count

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Read the numbers."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if self.count is not None and len(parts) != self.count:
            self.fail(f"{value!r} is not {self.count} numbers separated by commas", param, ctx)
        rows = []
        for part in parts:
            try:
                number = float(part)
            except ValueError:
                self.fail(f"{part!r} in {value!r} is not a number", param, ctx)
            if not self.low <= number <= self.high:  # also for NaN
                span = f"from {self.low:g} to {self.high:g}"
                self.fail(f"{part} in {value!r} is not a number {span}", param, ctx)
            rows.append(number)
        return tuple(rows)


def examples(*lines: str) -> str:
    """An epilog of command lines, which click does not wrap."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def json_option(function: F) -> F:
    """``--json``; errors become one line of JSON on stderr."""
    text = "Print JSON on stdout; errors become a line of JSON on stderr."
    return click.option("--json", "as_json", is_flag=True, help=text)(function)


def set_option(function: F) -> F:
    """``--set path=value``, repeatable."""
    return click.option(
        "--set",
        "settings",
        metavar="PATH=VALUE",
        multiple=True,
        shell_complete=complete_settings,
        help="Change the spec: training.batch_size=64, stages.up.config.hidden=32.",
    )(function)


def trust_data_option(function: F) -> F:
    """``--trust-data``, for commands that open the data of a model."""
    return click.option(
        "--trust-data",
        is_flag=True,
        help="Also open files that the model's config.json names; needed for a model from "
        "elsewhere.",
    )(function)


def spec_argument(function: F) -> F:
    """``SPEC``: a file, ``-`` or the name of a shipped spec."""
    return click.argument("spec", shell_complete=complete_specs)(function)


def model_argument(name: str = "model", **options: Any) -> Callable[[F], F]:
    """``MODEL``: a run, a model folder, a zoo name or a repo on the Hub."""
    return click.argument(name, shell_complete=complete_models, **options)


def seed_option(text: str, default: int | None = None) -> Callable[[F], F]:
    """``--seed N``."""
    return click.option(
        "--seed",
        type=Whole(0),
        default=default,
        show_default=default is not None,
        metavar="N",
        help=text,
    )


def device_option(text: str = "auto, cpu, cuda, cuda:N or mps.") -> Callable[[F], F]:
    """``--device D``."""
    return click.option("--device", default="auto", show_default=True, metavar="D", help=text)


def precision_option(function: F) -> F:
    """``--precision P``, for commands that sample."""
    return click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16", "fp16"]),
        help="Precision of the weights and of the networks' arithmetic; fp16 needs a GPU.  "
        "[default: fp32]",
    )(function)


def compile_option(function: F) -> F:
    """``--compile C``, for commands that sample."""
    return click.option(
        "--compile",
        "compile_",
        type=click.Choice(["auto", "blocks", "network", "no"]),
        default="no",
        show_default=True,
        help="Compile the networks: equal blocks or whole; auto compiles blocks if the images are "
        "many enough to gain time.",
    )(function)


def hub_options(function: F) -> F:
    """``--revision R`` and ``--offline``, for commands that take a model."""
    revision = click.option(
        "--revision", metavar="R", help="Branch, tag or commit of a repo.  [default: main]"
    )
    offline = click.option(
        "--offline", is_flag=True, help="Use only models in the local cache; send no requests."
    )
    return revision(offline(function))


class _PerStage(ParamType):
    """A value for all stages, or ``STAGE=VALUE`` for one."""

    def __init__(self, parse: Callable[[str], Any], name: str) -> None:
        self.parse = parse
        self.name = name

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str | None, Any]:
        """Split the stage's name from the value."""
        stage, equals, text = str(value).rpartition("=")
        try:
            return (stage if equals else None), self.parse(text)
        except ValueError:
            self.fail(f"{text!r} is not {self.name}", param, ctx)


def _merged(
    _ctx: click.Context, _parameter: click.Parameter, rows: Sequence[tuple[str | None, Any]]
) -> Any:
    if len(rows) == 1 and rows[0][0] is None:
        return rows[0][1]
    if any(stage is None for stage, _ in rows):
        raise click.BadParameter("use one value for all stages, or STAGE=VALUE for each")
    return {str(stage): value for stage, value in rows} or None


def per_stage_option(
    name: str, parse: Callable[[str], Any], form: str, text: str
) -> Callable[[F], F]:
    """An option that takes a value for all stages, or ``STAGE=VALUE`` for single stages.

    Args:
        name: the option.
        parse: reads a value; raises ValueError.
        form: the form of a value, for messages.
        text: the help text.

    Returns:
        A decorator. The command receives the value, a dict by stage, or None.
    """
    return click.option(
        name,
        multiple=True,
        type=_PerStage(parse, form),
        callback=_merged,
        shell_complete=complete_stage_values,
        metavar="[STAGE=]VALUE",
        help=text,
    )
