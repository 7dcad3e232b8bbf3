"""``cascadezoo plan``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cascadezoo.cli.options import device_option, examples, json_option, set_option, spec_argument
from cascadezoo.cli.output import clean, echo, echo_json, human_bytes, human_count, table

if TYPE_CHECKING:
    from cascadezoo.plan import Plan


@click.command(
    "plan",
    epilog=examples(
        "cascadezoo plan shapes-demo",
        "cascadezoo plan paper-baseline --set training.batch_size=512 --json",
    ),
)
@spec_argument
@set_option
@device_option("Whose memory to plan for: auto, cpu, cuda, cuda:N or mps.")
@json_option
def command(spec: str, settings: tuple[str, ...], device: str, as_json: bool) -> None:
    """Show what a build would need: parameters, FLOPs, memory, advice.

    The cascade is made without memory, so that plans of any size are quick. Exits with 2 where
    weights and optimizer alone need more memory than there is.
    """
    run_plan(spec, settings, device, as_json)


def run_plan(spec: str, settings: Sequence[str], device: str, as_json: bool) -> None:
    """Plan a spec, print it, and refuse what no memory here can hold."""
    from cascadezoo.plan import check_memory, make_plan
    from cascadezoo.spec import load_spec

    resolved = load_spec(spec, settings=settings)
    if device not in ("auto", "cpu"):
        from cascadezoo.train.engine import pick_device

        device = str(pick_device(device))
    plan = make_plan(resolved, device)
    if as_json:
        echo_json(plan.to_dict())
    else:
        _show(plan)
    check_memory(plan)


def _show(plan: Plan) -> None:
    """Print a plan as tables and sentences."""
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
    echo(
        "all per image: FLOPs of a pass, passes to sample, FLOPs to sample, bytes kept in training"
    )
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
    echo(
        f"\nmemory: about {human_bytes(plan.training_bytes)} to train, "
        f"{human_bytes(plan.weights_bytes)} of it weights; "
        f"there are {human_bytes(plan.available_bytes)}"
    )
    for warning in plan.warnings:
        echo(f"warning: {clean(warning)}")
