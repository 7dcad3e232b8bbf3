"""The command ``cascadezoo``. The table below lists all commands."""

from __future__ import annotations

import atexit
import gc
import sys

import click

from cascadezoo._version import __version__
from cascadezoo.cli.lazy import LazyGroup
from cascadezoo.cli.output import echo

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "build": (
        "cascadezoo.cli.build",
        "Build a cascade from a spec: assemble, train, evaluate, write.",
    ),
    "sample": ("cascadezoo.cli.sample", "Draw images from a model."),
    "report": (
        "cascadezoo.cli.report",
        "Write a self-contained page about one or several models.",
    ),
    "upscale": ("cascadezoo.cli.upscale", "Enlarge pictures by the upsamplers of a model."),
    "refine": ("cascadezoo.cli.refine", "Sharpen pictures by the refiners of a model."),
    "edit": ("cascadezoo.cli.edit", "Change pictures with a diffusion or flow model."),
    "inpaint": ("cascadezoo.cli.inpaint", "Redraw a part of pictures."),
    "interpolate": (
        "cascadezoo.cli.interpolate",
        "Sample between two seeds, two labels, or both.",
    ),
    "demo": ("cascadezoo.cli.demo", "Open a page to play with models in a browser."),
    "evaluate": (
        "cascadezoo.cli.evaluate",
        "Evaluate a model, or check the figures on its card.",
    ),
    "card": (
        "cascadezoo.cli.card",
        "Regenerate a model's card and keep manual edits.",
    ),
    "tune": (
        "cascadezoo.cli.tune",
        "Search for the sampling settings with the best KID.",
    ),
    "sweep": (
        "cascadezoo.cli.sweep",
        "Build every combination of a sweep's axes and compare them.",
    ),
    "validate": ("cascadezoo.cli.validate", "Check a spec and show all errors."),
    "plan": (
        "cascadezoo.cli.plan",
        "Show what a build needs: parameters, FLOPs, memory, advice.",
    ),
    "specs": (
        "cascadezoo.cli.specs",
        "List and show the specs that ship with cascadezoo and its plugins.",
    ),
    "stages": ("cascadezoo.cli.stages", "List and explain the installed stage kinds."),
    "schema": ("cascadezoo.cli.schema", "Print the JSON Schema of specs, for editors."),
    "publish": (
        "cascadezoo.cli.publish",
        "Publish a model to the Hub or to a folder.",
    ),
    "pull": ("cascadezoo.cli.pull", "Fetch a model and check all its files."),
    "zoo": ("cascadezoo.cli.zoo", "List, show, add, verify and search pretrained models."),
    "plugins": (
        "cascadezoo.cli.plugins",
        "List and check the installed plugins, find others, or create a new one.",
    ),
    "doctor": ("cascadezoo.cli.doctor", "Check this machine: packages, devices, weights, caches."),
}
"""Every command: the module that defines it as ``command``, and its one-line help."""

_EPILOG = """\b
First steps:
  cascadezoo build shapes-demo            train a small cascade in minutes
  cascadezoo sample runs/shapes-demo      draw images from it
  cascadezoo plan paper-baseline          check a spec before training

CASCADEZOO_DEBUG=1 shows tracebacks."""


@atexit.register
def _leave() -> None:
    # In commands without torch, garbage collection at exit takes a tenth of their time, just before
    # the process frees all memory anyway.
    if "torch" not in sys.modules:
        gc.freeze()


def _version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        echo(f"cascadezoo {__version__}")
        ctx.exit()


main = LazyGroup(
    table=COMMANDS,
    name="cascadezoo",
    help="Build, evaluate and share image generators made of stages.",
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help="Show the version and exit.",
        )
    ],
)
