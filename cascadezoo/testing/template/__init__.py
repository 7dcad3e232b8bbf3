"""The template of a new plugin.

A name and a kind enter; the files of a project leave, made from the files beside this module.
"""

from __future__ import annotations

import re
from collections.abc import Container
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Any

import cascadezoo
from cascadezoo.errors import InputError
from cascadezoo.model_folder.integrity import refuse_bundled
from cascadezoo.plugins.manager import BUILTIN_DISTRIBUTION, canonical_name, get_host
from cascadezoo.plugins.registry import Table

__all__ = ["KINDS", "described", "project_name", "refuse_builtin_command", "write_project"]

KINDS = {
    "generator": "rectified flow on a few convolutions",
    "upsampler": "convolutions over a bilinear interpolation",
    "refiner": "convolutions that correct the image",
    "decoder": "convolutional autoencoder; generators draw its latents",
    "dataset": "stripes in two directions, made and not downloaded",
    "metric": "distance between the means of the features",
    "loss": "absolute difference that is smooth at zero",
    "features": "mean and deviation of the colours on a grid",
    "zoo": "pretrained models on the Hub",
    "specs": "shapes at 32x32, drawn at 16x16 and enlarged",
    "command": "show the images that each stage of a spec makes",
    "callback": "writes the losses of a training to a CSV file",
}
"""The kinds of plugins, with the summary of the entry."""

_LABELS = {"features": "a feature extractor", "specs": "a spec", "upsampler": "an upsampler"}
"""A plugin's content in prose, where it is not ``a`` and the kind."""

_STAGES = ("generator", "upsampler", "refiner", "decoder")
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PREFIX = f"{BUILTIN_DISTRIBUTION}-"


def project_name(name: str) -> str:
    """The distribution of a name: the same for ``wave`` and ``cascadezoo-wave``.

    Raises:
        InputError: the name is invalid.
    """
    bare = canonical_name(name).removeprefix(_PREFIX)
    if not _NAME.fullmatch(bare) or len(bare) > 40 or bare == BUILTIN_DISTRIBUTION:
        raise InputError(
            f"invalid plugin name {name!r}",
            hint="use lower-case letters, digits and dashes, and start with a letter, "
            "such as wave or cascadezoo-wave",
            code="input-plugin-name",
            name=name,
        )
    return _PREFIX + bare


def described(kind: str) -> str:
    """A plugin's content in prose: ``an upsampler``."""
    return _LABELS.get(kind, f"a {kind}")


def write_project(name: str, kind: str, folder: Path | None = None) -> Path:
    """Write the project of a new plugin.

    Args:
        name: the plugin's name, with or without the prefix ``cascadezoo-``.
        kind: one of :data:`KINDS`.
        folder: the new folder; None uses the distribution's name in the current folder.

    Returns:
        The folder.

    Raises:
        InputError: the name or kind is invalid, the name is taken by an installed distribution,
            the folder is not empty, or it is inside a bundled model.
    """
    distribution = project_name(name)
    if kind not in KINDS:
        raise InputError(
            f"unknown kind of plugin {kind!r}",
            hint=f"choose from {', '.join(KINDS)}",
            code="input-plugin-kind",
            name=kind,
        )
    _refuse_taken(distribution, kind)
    folder = Path(distribution) if folder is None else folder
    refuse_bundled(folder)
    texts = _texts(distribution, kind)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(
                f"{folder} already exists and is not overwritten",
                hint="choose another folder with -o DIR",
                code="input-output-exists",
                path=folder,
            )
        for path, text in texts.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"cannot write {folder}: {error.strerror}",
            code="input-output-not-writable",
            path=folder,
        ) from error
    return folder


def refuse_builtin_command(distribution: str, names: Container[str]) -> None:
    """Refuse the name of a built-in command, which a plugin's command cannot replace.

    Raises:
        InputError: the name is one of ``names``.
    """
    bare = distribution.removeprefix(_PREFIX)
    if bare in names:
        raise _taken(f"the command {bare!r}", BUILTIN_DISTRIBUTION, bare)


def _refuse_taken(distribution: str, kind: str) -> None:
    """Refuse the name of an installed plugin, and one that its entry could not have."""
    host = get_host()
    bare = distribution.removeprefix(_PREFIX)
    tables: dict[str, Table[Any]] = {
        "dataset": host.registry.datasets,
        "metric": host.registry.metrics,
        "loss": host.registry.losses,
        "features": host.registry.features,
        "zoo": host.registry.zoos,
        "specs": host.registry.specs,
        "command": host.registry.commands,
        "callback": host.registry.callbacks,
    }
    table: Table[Any] = tables.get(kind, host.registry.stages)
    holder = next(
        (
            str(plugin.origin)
            for plugin in host.plugins
            if canonical_name(plugin.origin.distribution) == distribution
        ),
        None,
    )
    what = f"the distribution {distribution}"
    if holder is None:
        what = f"the {table.what} {bare!r}"
        holder = next(iter(table.holders(bare)), None)
    if holder is not None:
        raise _taken(what, holder, bare)


def _taken(what: str, holder: str, bare: str) -> InputError:
    return InputError(
        f"{what} already exists: {holder} provides it",
        hint="choose another name: two plugins cannot provide the same kind",
        code="input-plugin-name-taken",
        name=bare,
    )


def _texts(distribution: str, kind: str) -> dict[str, str]:
    bare = distribution.removeprefix(_PREFIX)
    values = {
        "distribution": distribution,
        "package": distribution.replace("-", "_"),
        "name": bare,
        "Class": _class_name(bare),
        "role": kind,
        "what": described(kind),
        "What": described(kind).capitalize(),
        "summary": KINDS[kind],
    }
    top = resources.files("cascadezoo.testing.template")
    values["use"] = Template(_read(top / kind / "use.md.txt")).substitute(values).strip()
    layers = ("common", "stage", kind) if kind in _STAGES else ("common", kind)
    texts = {}
    for layer in layers:
        for path, file in _files(top / layer):
            if path != "use.md.txt":
                name = path.removesuffix(".txt").replace("package", values["package"])
                name = name.replace("__name__", bare)
                texts[name] = Template(_read(file)).substitute(values)
    return texts


_IMPORTED = {"Annotated", "Any", "ClassVar", "Field", "Iterable", "Literal", "Path", "Tensor"}
"""Names that templates import from elsewhere than cascadezoo."""


def _class_name(bare: str) -> str:
    """The class of a plugin, which must not hide a name that its module imports."""
    name = "".join(part.capitalize() for part in bare.split("-"))
    taken = {*cascadezoo.__all__, *_IMPORTED}
    return f"My{name}" if {name, f"{name}Config"} & taken else name


def _files(folder: Traversable, before: str = "") -> list[tuple[str, Traversable]]:
    rows = []
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.is_dir():
            rows += _files(item, f"{before}{item.name}/")
        elif item.name.endswith(".txt"):
            rows.append((before + item.name, item))
    return rows


def _read(file: Traversable) -> str:
    return file.read_text(encoding="utf-8")
