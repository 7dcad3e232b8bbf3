"""The commands that write, what lies there before them, and what must hold after them."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from campaigns.material import lone_run, spec_file
from campaigns.trial import Ran, Trial

__all__ = ["WRITERS", "Writer", "check_model", "left_over", "prepare_run", "weights"]

_TEMPORARY = re.compile(r"\.tmp$|\.tmp\.|^\.write-test|\.incomplete$|^\.[^/]*\.\d+$|\.partial$")


@dataclass(frozen=True)
class Writer:
    """A command that writes.

    Args:
        name: of it, in titles and causes.
        args: its command line, run in the folder that ``before`` filled.
        model: the model folder that it leaves.
        before: puts into the current folder what the command starts from.
        had_model: whether ``model`` was whole before, and therefore must stay usable.
    """

    name: str
    args: tuple[str, ...]
    model: str
    before: Callable[[Path], None]
    had_model: bool


def prepare_run(material: Path) -> None:
    """A run folder, and a model of the same name that differs from it."""
    run = lone_run(material)
    (material / "spec.json").unlink()
    shutil.copytree(run / "model", material / "older")
    path = material / "older" / "README.md"
    path.write_text(path.read_text() + "\nOlder.\n")
    from cascadezoo.model_folder.integrity import seal
    from cascadezoo.model_folder.layout import read_config
    from cascadezoo.spec import CascadeSpec

    config = read_config(material / "older")
    spec = CascadeSpec.model_validate(config.spec)
    seal(material / "older", spec, config.cascadezoo_version)
    (material / "weights.json").write_text(json.dumps(weights(run / "model")))


def weights(model: Path) -> dict[str, str]:
    """The sha256 of each stage's weights."""
    return {
        path.relative_to(model).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(model.glob("stages/*/model.safetensors"))
    }


def _nothing(material: Path) -> None:
    spec_file(Path())


def _run(material: Path) -> None:
    shutil.copytree(material / "run", "run")
    spec_file(Path())


def _edited(material: Path) -> None:
    _run(material)
    path = Path("run/model/README.md")
    path.write_text(path.read_text() + "\nA note of mine.\n")


def _published(place: str) -> Callable[[Path], None]:
    def before(material: Path) -> None:
        _run(material)
        shutil.copytree(material / "older", place)

    return before


_TUNE = ("--over", "steps", "--values", "steps=1,2", "-n", "16", "-o", "tuned")
WRITERS: tuple[Writer, ...] = (
    Writer(
        "build",
        ("build", "spec.json", "-o", "run", "--quiet", "--device", "cpu"),
        "run/model",
        _nothing,
        False,
    ),
    Writer("evaluate --save", ("evaluate", "run", "--save", "--quiet"), "run/model", _run, True),
    Writer("card", ("card", "run"), "run/model", _edited, True),
    Writer("publish", ("publish", "run", "./there"), "there", _run, False),
    Writer("publish again", ("publish", "run", "./there"), "there", _published("there"), True),
    Writer("pull --to", ("pull", "./run/model", "--to", "copy"), "copy", _run, False),
    Writer(
        "pull --to again",
        ("pull", "./run/model", "--to", "copy"),
        "copy",
        _published("copy"),
        True,
    ),
    Writer("tune --write", ("tune", "run", *_TUNE, "--write", "--quiet"), "run/model", _run, True),
)


def check_model(trial: Trial, writer: Writer, after: str) -> None:
    """The model that a command left is whole, loads, and has the weights that it should have."""
    model = Path(writer.model)
    shown = f"./{model}"
    checked = _quietly(trial, "pull", shown)
    trial.require(checked.ok, f"{after}: the model of {writer.name} is not whole", checked.text)
    drawn = _quietly(trial, "sample", shown, "-n", "1", "-o", "one.png", "--quiet")
    trial.require(drawn.ok, f"{after}: the model of {writer.name} does not load", drawn.text)
    wanted = json.loads((trial.material / "weights.json").read_text())
    trial.require(weights(model) == wanted, f"{after}: {writer.name} gives other weights")


def _quietly(trial: Trial, *args: object) -> Ran:
    ran = trial.command(*args)
    Path("one.png").unlink(missing_ok=True)
    return ran


def left_over(folder: Path) -> list[str]:
    """Temporary files that lie in a folder, their numbers as N."""
    names = (p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")))
    return [
        re.sub(r"(?<=\.)[a-z0-9_]{8}(?=\.tmp)|\d+", "N", n)
        for n in names
        if _TEMPORARY.search(n.rpartition("/")[2])
    ]
