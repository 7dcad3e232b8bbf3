"""``cascadezoo plan``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from cascadezoo.cli.options import (
    Whole,
    device_option,
    examples,
    json_option,
    per_stage_option,
    set_option,
    spec_argument,
)
from cascadezoo.cli.output import clean, echo, echo_json, table
from cascadezoo.cli.validate import check_destination
from cascadezoo.util.numbers import human_bytes, human_count

if TYPE_CHECKING:
    from cascadezoo.build.plan import Plan
    from cascadezoo.build.plan_devices import DevicePlan
    from cascadezoo.spec import ResolvedSpec


class _Amount(click.FloatRange):
    """A number within bounds; click's own type lets nan pass."""

    unit = ""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read the number."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number of {self.unit}", param, ctx)
        return number


class _Memory(_Amount):
    unit = "GiB"


class _Flops(_Amount):
    unit = "FLOPs"


_UNITS = {"k": 10**3, "m": 10**6, "g": 10**9}


def _count(text: str) -> int:
    """Parse a number of parameters: 500000, 500_000, 500k or 1.5M."""
    unit = _UNITS.get(text[-1:].lower())
    if unit is None:
        return int(text)
    number = float(text[:-1]) * unit
    if not 0 < number < 1e18:
        raise ValueError(text)
    return round(number)


@click.command(
    "plan",
    epilog=examples(
        "cascadezoo plan shapes-demo",
        "cascadezoo plan paper-baseline --set training.batch_size=512 --json",
        "cascadezoo plan paper-baseline --match-params coarse=500k --match-params up=250k",
        "cascadezoo plan cifar10-flow --match-flops 1e16",
        "cascadezoo plan imagenet256-cdm --devices 8 --memory 80",
    ),
)
@spec_argument
@set_option
@per_stage_option(
    "--match-params",
    _count,
    "a number such as 500000, 500k or 1.5M",
    "Choose widths that give this number of parameters, for a stage or for the whole cascade.",
)
@click.option(
    "--match-flops",
    "flops",
    type=_Flops(1, 1e30),
    metavar="F",
    help="Choose steps of the phases that give this number of training FLOPs.",
)
@device_option("The device to plan memory for: auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--devices",
    type=Whole(1, 1_000_000),
    metavar="N",
    help="Find settings that fit on N devices, one process each.",
)
@click.option(
    "--memory",
    type=_Memory(0, 1e6, min_open=True),
    metavar="GIB",
    help="The memory of each of them.  [default: the device's]",
)
@json_option
def command(
    spec: str,
    settings: tuple[str, ...],
    match_params: int | dict[str, int] | None,
    flops: float | None,
    device: str,
    devices: int | None,
    memory: float | None,
    as_json: bool,
) -> None:
    """Show what a build needs: parameters, FLOPs, memory, advice.

    The cascade is built on the meta device, so a plan is quick at any size. Exits with 2 if
    weights and optimizer alone need more memory than is available. With --devices or --memory the
    plan is for other machines, and names the settings that fit there; it exits with 2 if none do.
    """
    run_plan(spec, settings, device, as_json, match_params, devices, memory, flops)


def run_plan(
    spec: str,
    settings: Sequence[str],
    device: str,
    as_json: bool,
    match: int | Mapping[str, int] | None = None,
    devices: int | None = None,
    memory: float | None = None,
    flops: float | None = None,
) -> None:
    """Plan a spec and print the plan.

    Raises:
        ResourceError: the machine, or the named devices, have too little memory for it.
        DataError: the named devices cannot share a batch evenly.
    """
    from cascadezoo.build.plan import check_memory, make_plan
    from cascadezoo.spec import load_spec
    from cascadezoo.spec.measurable import require_measurable

    resolved = load_spec(spec, settings=settings)
    require_measurable(resolved)
    check_destination(resolved.spec)
    changes: list[str] = []
    if match is not None:
        resolved, changes = _matched(resolved, match)
    if flops is not None:
        resolved, lengths = _matched_flops(resolved, flops)
        changes += lengths
    matched = match is not None or flops is not None
    if device not in ("auto", "cpu"):
        from cascadezoo.train.engine import pick_device

        device = str(pick_device(device))
    plan = make_plan(resolved, device)
    placed = _placed(resolved, plan, devices, memory)
    if as_json:
        row: dict[str, Any] = plan.to_dict()
        row |= {"training_flops": plan.total_flops, "sampling_flops": plan.sampling_flops}
        if placed is not None:
            row["devices"] = {**asdict(placed), "bytes": placed.bytes}
        echo_json({**row, "settings": changes} if matched else row)
    else:
        _show(plan, elsewhere=placed is not None)
        if placed is not None:
            _show_devices(placed)
        if matched:
            # A change is a path of names and a whole number, which needs no quoting for a shell.
            shown = " ".join(f"--set {change}" for change in changes)
            echo(f"\nsettings: {shown or 'none needed'}")
    if placed is None:
        check_memory(plan)


def _placed(
    resolved: ResolvedSpec, plan: Plan, devices: int | None, memory: float | None
) -> DevicePlan | None:
    """The settings that fit on the named devices; None if none are named."""
    if devices is None and memory is None:
        return None
    from cascadezoo.build.plan_devices import plan_devices

    available = plan.available_bytes if memory is None else round(memory * 2**30)
    if available is None:
        raise click.UsageError("the memory of this machine is not known; add --memory GIB")
    return plan_devices(resolved, plan, devices or 1, available)


def _show_devices(placed: DevicePlan) -> None:
    number = f"{placed.devices} device{'s' * (placed.devices != 1)}"
    parts = f"{placed.images} image{'s' * (placed.images != 1)} at a time"
    echo(
        f"\non {number} of {human_bytes(placed.memory_bytes)}: fits, about "
        f"{human_bytes(placed.bytes)} on each: {human_bytes(placed.state_bytes)} of weights, "
        f"gradients, optimizer and average, {human_bytes(placed.activation_bytes)} of activations "
        f"({parts}) in phase {clean(placed.phase)}"
        + (
            f"; {human_bytes(placed.whole_bytes)} while figures and samples need all weights"
            if placed.whole_bytes
            else ""
        )
    )
    shown = " ".join(f"--set {change}" for change in placed.settings)
    echo(f"settings: {shown or 'none needed'}")


def _matched(
    resolved: ResolvedSpec, match: int | Mapping[str, int]
) -> tuple[ResolvedSpec, list[str]]:
    """The spec with widths that give the requested parameters, and the settings for them."""
    from cascadezoo.build.match_parameters import match_cascade, match_parameters, settings_between
    from cascadezoo.spec import load_spec

    data = resolved.spec.to_dict()
    if isinstance(match, int):
        matched = match_cascade(data, match)
    else:
        matched = match_parameters(data, match)
    return load_spec(matched), settings_between(data, matched)


def _matched_flops(resolved: ResolvedSpec, flops: float) -> tuple[ResolvedSpec, list[str]]:
    """The spec with steps that give the requested training FLOPs, and the settings for them."""
    from cascadezoo.build.match_flops import match_flops, steps_between
    from cascadezoo.spec import load_spec

    data = resolved.spec.to_dict()
    matched = match_flops(data, flops)
    return load_spec(matched), steps_between(data, matched)


def _show(plan: Plan, *, elsewhere: bool) -> None:
    """Print a plan as tables and sentences; ``elsewhere`` leaves out the memory of this machine."""
    echo(f"{clean(plan.name)}: {human_count(plan.parameters)} parameters\n")
    stages = [
        (
            stage.name,
            stage.kind,
            f"{stage.input or 'noise'} -> {stage.output}",
            human_count(stage.parameters),
            human_count(stage.flops_forward),
            stage.evaluations,
            human_count(stage.flops_sample),
            human_bytes(stage.activation_bytes),
        )
        for stage in plan.stages
    ]
    head = ("STAGE", "KIND", "IMAGE", "PARAMETERS", "FLOPS", "PASSES", "TO SAMPLE", "ACTIVATIONS")
    echo(table(head, stages, right=range(3, 8)))
    echo("per image: FLOPs of one pass, passes to sample, FLOPs to sample, activations in training")
    if plan.phases:
        phases = [
            (
                phase["name"],
                ", ".join(phase["train"]),
                f"{phase['epochs']} epochs" if phase["epochs"] else f"{phase['steps']} steps",
                human_bytes(phase["bytes"]),
            )
            for phase in plan.phases
        ]
        echo()
        echo(table(("PHASE", "TRAINS", "LENGTH", "MEMORY"), phases, right=(3,)))
        if plan.total_flops is not None:
            echo(f"training: {human_count(plan.total_flops)} FLOPs")
    echo(
        f"\nmemory: about {human_bytes(plan.training_bytes)} to train, "
        f"{human_bytes(plan.weights_bytes)} of it weights"
        + ("" if elsewhere else f"; {human_bytes(plan.available_bytes)} available")
    )
    if plan.data is not None:
        data = plan.data
        way = "in memory"
        if data.streamed:
            way = f"streamed, {human_bytes(data.ahead_bytes)} decoded in advance"
        echo(
            f"data: {data.images:,} images, {human_bytes(data.decoded_bytes)} decoded "
            f"(limit {human_bytes(data.limit_bytes)}); {way}"
        )
    for warning in plan.warnings:
        if elsewhere and warning.startswith("training needs about"):
            continue
        echo(f"warning: {clean(warning)}")
