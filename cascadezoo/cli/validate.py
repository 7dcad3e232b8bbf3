"""``cascadezoo validate``."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from cascadezoo.cli.options import examples, json_option, set_option, spec_argument
from cascadezoo.cli.output import clean, echo, echo_json

if TYPE_CHECKING:
    from cascadezoo.spec import CascadeSpec, ResolvedSpec


@click.command(
    "validate",
    epilog=examples(
        "cascadezoo validate my.json",
        "cascadezoo validate shapes-demo --set stages.up.config.hidden=64",
        "cascadezoo validate paper-baseline --resolved > mine.json",
    ),
)
@spec_argument
@set_option
@click.option("--resolved", is_flag=True, help="Print the spec with every default written out.")
@json_option
def command(spec: str, settings: tuple[str, ...], resolved: bool, as_json: bool) -> None:
    """Check a spec and show all errors.

    SPEC is a file, - for standard input, or the name of a shipped spec. Nothing is built, and at
    most the header of a dataset is read.
    """
    # The search for plugins of pydantic in all distributions takes longer than reading the spec.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    with _gc_disabled():
        from cascadezoo.spec import load_spec
        from cascadezoo.spec.advice import spec_warnings
        from cascadezoo.spec.measurable import require_measurable

        loaded = load_spec(spec, settings=settings)
        require_measurable(loaded)
        check_destination(loaded.spec)
        warnings = list(spec_warnings(loaded))
    if resolved:
        echo_json(loaded.spec.to_dict())
    elif as_json:
        echo_json({**_summary(loaded), "warnings": warnings})
    else:
        echo(f"{loaded.spec.name} is valid: {chain(loaded)}")
        for warning in warnings:
            echo(f"warning: {clean(warning)}")


def check_destination(spec: CascadeSpec) -> None:
    """Check, without the network, that a model of the spec can be published where it says.

    Raises:
        InputError: the destination is not valid, or holds something else.
    """
    if spec.publish is not None:
        from cascadezoo.hub.publish.publish_model import check_publish

        check_publish(spec.publish, spec.name, network=False)


@contextmanager
def _gc_disabled() -> Iterator[None]:
    # Importing the models and reading a spec creates many objects and no garbage. Garbage
    # collection would take a twentieth of the time of the command.
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def chain(resolved: ResolvedSpec) -> str:
    """The cascade in one line: ``coarse (flow.v1) 16 -> up (pixelshuffle.v1) 32``."""
    return " -> ".join(f"{s.name} ({s.kind}) {s.output.size}" for s in resolved.stages)


def _summary(resolved: ResolvedSpec) -> dict[str, Any]:
    return {
        "valid": True,
        "name": resolved.spec.name,
        "digest": resolved.spec.digest(),
        "image": {"size": resolved.image.size, "channels": resolved.image.channels},
        "num_classes": resolved.num_classes,
        "stages": [
            {
                "name": stage.name,
                "kind": stage.kind,
                "role": stage.entry.role,
                "from": str(stage.origin),
                "input": None if stage.input is None else str(stage.input),
                "output": str(stage.output),
            }
            for stage in resolved.stages
        ],
        "requires": resolved.spec.requires,
    }
