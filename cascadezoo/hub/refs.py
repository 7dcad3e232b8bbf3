"""References to models: a folder, a zoo name, or a repo on the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from cascadezoo.errors import ModelReferenceError
from cascadezoo.hub.layout import CONFIG
from cascadezoo.hub.manifest import read_manifest

__all__ = ["is_hub_id", "locate"]

_HUB = re.compile(r"(hf://)?[\w.-]+/[\w.-]+(@[\w./-]+)?")


def is_hub_id(text: str) -> bool:
    """Whether a text reads as ``[hf://]org/name[@revision]`` and is not written as a path."""
    return not text.startswith(("./", "../", "/", "~")) and _HUB.fullmatch(text) is not None


def locate(reference: str | Path) -> Path:
    """The model folder that a reference leads to.

    Args:
        reference: a model folder, or the run folder that holds one.

    Raises:
        ModelReferenceError: nothing is there.
    """
    text = str(reference)
    path = Path(reference).expanduser()
    if path.is_dir():
        for folder in (path, path / "model"):
            if (folder / CONFIG).is_file():
                return folder
        if (path / "run.json").is_file():
            raise ModelReferenceError(
                f"{text} is a run that has no finished model yet",
                hint=f"cascadezoo build {path / 'spec.json'} -o {text}",
            )
        raise ModelReferenceError(
            f"{text} holds no model: there is no {CONFIG} in it",
            hint="give the run folder of a finished build, or its model/ folder",
        )
    if path.exists():
        raise ModelReferenceError(f"{text} is a file, not a model folder")
    if is_hub_id(text):
        raise ModelReferenceError(
            f"there is no folder {text!r}, and this cascadezoo does not reach the Hub yet",
            hint=f"hf download {text.removeprefix('hf://').partition('@')[0]} --local-dir DIR, "
            "then give DIR",
        )
    names = [model.name for model in read_manifest().models]
    listed = f"the zoo has {', '.join(names)}" if names else "the zoo lists no models yet"
    raise ModelReferenceError(
        f"there is no model {text!r}: no such folder, and {listed}",
        hint="cascadezoo build shapes-demo makes one in runs/shapes-demo",
    )
