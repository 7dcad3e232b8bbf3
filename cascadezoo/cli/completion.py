"""Shell completion of specs, models, stages, labels and the paths of ``--set``. Free of torch.

A completion must never print an error: what cannot be read completes to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cascadezoo.errors import CascadezooError

if TYPE_CHECKING:
    from cascadezoo.spec import ResolvedSpec

__all__ = [
    "complete_kinds",
    "complete_labels",
    "complete_models",
    "complete_settings",
    "complete_specs",
    "complete_stage_values",
    "complete_stages",
    "complete_sweeps",
]

Complete = Callable[[click.Context, click.Parameter, str], list[str]]

_RUNS = "runs"
_SPEC_FILES = (".json", ".yaml", ".yml")


def _completion(candidates: Callable[[click.Context, str], Iterable[str]]) -> Complete:
    """A completion by candidates, of which those that begin with the typed text remain."""

    @wraps(candidates)
    def complete(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
        try:
            rows = list(dict.fromkeys(candidates(ctx, incomplete)))
        except (CascadezooError, OSError, RuntimeError, ValueError):
            # A path with an unknown home folder, or one that no file can have, among others.
            return []
        return [row for row in rows if row.startswith(incomplete)]

    return complete


@_completion
def complete_specs(_ctx: click.Context, incomplete: str) -> Iterator[str]:
    """Shipped specs, and spec files."""
    from cascadezoo.spec import shipped_specs

    yield from shipped_specs()
    yield from _paths(incomplete, lambda path: path.suffix.lower() in _SPEC_FILES)


@_completion
def complete_sweeps(_ctx: click.Context, incomplete: str) -> Iterator[str]:
    """Shipped sweeps, and JSON files."""
    from cascadezoo.sweep.spec import shipped_sweeps

    yield from shipped_sweeps()
    yield from _paths(incomplete, lambda path: path.suffix.lower() in _SPEC_FILES)


@_completion
def complete_models(_ctx: click.Context, incomplete: str) -> Iterator[str]:
    """Models of the zoo, runs, and folders."""
    from cascadezoo.zoo.list import get_zoos

    yield from sorted(get_zoos().models)
    if Path(_RUNS).is_dir():
        yield from sorted(str(p) for p in Path(_RUNS).iterdir() if (p / "run.json").is_file())
    yield from _paths(incomplete, lambda path: False)


@_completion
def complete_kinds(_ctx: click.Context, _incomplete: str) -> Iterator[str]:
    """The installed stage kinds."""
    from cascadezoo.plugins.manager import get_registry

    yield from sorted(get_registry().stages.rows)


@_completion
def complete_stages(ctx: click.Context, _incomplete: str) -> Iterator[str]:
    """The stages of the spec or the model on the command line."""
    resolved = _resolved(ctx)
    if resolved is not None:
        yield from (stage.name for stage in resolved.stages)


@_completion
def complete_stage_values(ctx: click.Context, _incomplete: str) -> Iterator[str]:
    """``STAGE=`` for each stage of the spec or the model on the command line."""
    resolved = _resolved(ctx)
    if resolved is not None:
        yield from (f"{stage.name}=" for stage in resolved.stages)


@_completion
def complete_labels(ctx: click.Context, _incomplete: str) -> Iterator[str]:
    """The class names of the model on the command line; numbers if it has no names."""
    resolved = _resolved(ctx)
    if resolved is not None:
        yield from resolved.class_names or map(str, range(resolved.num_classes or 0))


@_completion
def complete_settings(ctx: click.Context, _incomplete: str) -> Iterator[str]:
    """``PATH=`` for each value of the spec or the model on the command line."""
    resolved = _resolved(ctx)
    if resolved is not None:
        yield from (f"{path}=" for path in _leaves(resolved.spec.to_dict(), ""))


def _resolved(ctx: click.Context) -> ResolvedSpec | None:
    """The spec or the model that the command line names; only local ones are read."""
    from cascadezoo.hub.refs import HubRef, parse_reference
    from cascadezoo.model_folder.layout import read_config
    from cascadezoo.spec import load_spec, resolve

    name, given = _first_argument(ctx)
    if given is None or given == "-":
        return None
    if name == "spec":
        return load_spec(given)
    if name not in ("model", "models") or isinstance(parse_reference(given), HubRef):
        return None
    from cascadezoo.hub.locate import locate

    config = read_config(locate(given, offline=True))
    return resolve(config.spec, for_training=False)


def _first_argument(ctx: click.Context) -> tuple[str | None, str | None]:
    """The name and the value of the first argument of the command."""
    name = next((p.name for p in ctx.command.params if isinstance(p, click.Argument)), None)
    value = ctx.params.get(name or "")
    if isinstance(value, (tuple, list)):
        value = value[0] if value else None
    if value is None and ctx.args:
        # The option that is completed has no value yet, so click has not assigned the arguments.
        value = ctx.args[0]
    return name, value if isinstance(value, str) else None


def _leaves(node: Any, path: str) -> Iterator[str]:
    """The paths of all values, with the names of stages and phases for their places."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else key)
    elif isinstance(node, list) and node and all(isinstance(item, dict) for item in node):
        for index, item in enumerate(node):
            yield from _leaves(item, f"{path}.{item.get('name', index)}")
    elif path:
        yield path


def _paths(incomplete: str, wanted: Callable[[Path], bool]) -> Iterator[str]:
    """Folders, with a slash, and wanted files that begin with the typed text."""
    head, slash, start = incomplete.rpartition("/")
    folder = Path(head + slash or ".").expanduser()
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(start) or (path.name.startswith(".") and not start):
            continue
        shown = f"{head}{slash}{path.name}"
        if path.is_dir():
            yield f"{shown}/"
        elif wanted(path):
            yield shown
