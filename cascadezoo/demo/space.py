"""Writes the page as a folder for a Space of the Hugging Face Hub. Free of torch and Gradio."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path

import yaml

from cascadezoo._version import __version__
from cascadezoo.errors import InputError
from cascadezoo.hub.folder_copy import check_copy_target, copy_model
from cascadezoo.hub.locate import locate
from cascadezoo.hub.refs import HF, ZooRef, parse_reference, reference_of
from cascadezoo.model_folder.integrity import refuse_bundled
from cascadezoo.model_folder.layout import CONFIG, ModelConfig, model_name, read_config
from cascadezoo.model_folder.recipe import model_digest
from cascadezoo.spec import resolve
from cascadezoo.util.files import write_atomically, writing_to
from cascadezoo.util.text import clean_remote, front_line, markdown_code, markdown_text
from cascadezoo.zoo.list import get_zoos

__all__ = ["SpaceModel", "export_space"]

APP = "app.py"
MODELS = "models"


@dataclass(frozen=True, slots=True)
class SpaceModel:
    """A model of a Space.

    Args:
        name: the name of its spec.
        reference: ``zoo:name``, ``hf://org/name@commit``, or a folder inside the Space.
        digest: the sha256 of its spec and weights.
        requires: the distributions that it needs, as requirements for pip.
    """

    name: str
    reference: str
    digest: str
    requires: tuple[str, ...]

    @property
    def local(self) -> bool:
        """Whether its files are in the Space."""
        return self.reference.startswith(f"./{MODELS}/")


def export_space(
    references: Sequence[str],
    folder: Path,
    *,
    revision: str | None = None,
    offline: bool | None = None,
    force: bool = False,
) -> list[SpaceModel]:
    """Write app.py, requirements.txt and README.md of a Space.

    A zoo model that ships with a distribution is pinned by the version of that distribution, a repo
    on the Hub by its commit; the files of a local model are copied into the folder. The app also
    checks the digest of each model.

    Args:
        references: the models.
        folder: the folder; created if it is missing.
        revision: branch, tag or commit of a repo.
        offline: True sends no request.
        force: replace the files of an earlier export.

    Returns:
        The models.

    Raises:
        InputError: the folder already contains an app, or cannot be written.
        ModelReferenceError: a model does not exist.
        RunFolderError: a local model cannot be copied.
        DiskFullError: the disk is full.
    """
    refuse_bundled(folder)
    taken = [name for name in (APP, "requirements.txt", "README.md") if (folder / name).exists()]
    if taken and not force:
        raise InputError(
            f"{folder} already contains {taken[0]}",
            hint="choose another folder, or replace the files with --force",
            code="input-output-exists",
            path=folder,
        )
    found = [(text, locate(text, revision, offline)) for text in dict.fromkeys(references)]
    models: list[SpaceModel] = []
    for text, place in found:
        model = _space_model(text, place, read_config(place), {m.reference for m in models})
        if model.local:
            check_copy_target(folder / model.reference)
        models.append(model)
    with _writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for model, (_, place) in zip(models, found, strict=True):
            if model.local:
                copy_model(place, folder / model.reference)
        write_atomically(folder / APP, _app(models).encode())
        write_atomically(folder / "requirements.txt", _requirements(models).encode())
        write_atomically(folder / "README.md", _readme(models).encode())
    return models


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        with writing_to(folder):
            yield
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written: {error.strerror}",
            hint="choose another folder",
            code="input-output-not-writable",
            path=folder,
        ) from error


def _space_model(text: str, place: Path, config: ModelConfig, taken: Collection[str]) -> SpaceModel:
    """Describe a model; the reference of a local one is none of ``taken``."""
    name = clean_remote(model_name(config), 80)
    # Only a validated list: a line break in it would add further requirements.
    resolved = resolve(config.spec, source=str(place / CONFIG), for_training=False)
    requires = list(resolved.spec.requires)
    shared = reference_of(text, place)
    parsed = parse_reference(text)
    if shared is not None and isinstance(parsed, ZooRef):
        listed = get_zoos().get(parsed.name)
        if listed.model.bundled:
            requires.append(f"{listed.origin.distribution}=={listed.origin.version}")
        else:
            shared = f"{HF}{listed.model.repo}@{listed.model.commit}"
    # Runs of one spec have one name.
    places = (f"./{MODELS}/{name}{f'-{i}' if i > 1 else ''}" for i in count(1))
    reference = shared or next(row for row in places if row not in taken)
    return SpaceModel(name, reference, model_digest(config), tuple(requires))


def _app(models: Iterable[SpaceModel]) -> str:
    rows = "".join(f"    {model.reference!r}: {model.digest!r},\n" for model in models)
    return (
        '"""A page to play with models of cascadezoo, written by `cascadezoo demo --export`."""\n\n'
        "import os\n"
        "from pathlib import Path\n\n"
        "from cascadezoo import launch_demo\n\n"
        "# Each model, and the sha256 of its spec and weights, which is checked.\n"
        f"MODELS = {{\n{rows}}}\n\n"
        'if __name__ == "__main__":\n'
        "    os.chdir(Path(__file__).parent)\n"
        "    launch_demo(list(MODELS), digests=MODELS)\n"
    )


def _requirements(models: Iterable[SpaceModel]) -> str:
    own = f"cascadezoo[demo]=={__version__}"
    rows = {row for model in models for row in model.requires}
    others = sorted(row for row in rows if not _is_cascadezoo(row))
    return "\n".join([own, *others]) + "\n"


def _is_cascadezoo(requirement: str) -> bool:
    """Whether a requirement is for cascadezoo itself and not for a plugin."""
    rest = requirement.removeprefix("cascadezoo")
    return rest != requirement and not rest.startswith("-")


def _readme(models: Sequence[SpaceModel]) -> str:
    names = ", ".join(model.name for model in models)
    front: dict[str, object] = {
        "title": front_line(f"cascadezoo: {names}")[:60],
        "emoji": "🪜",
        "colorFrom": "blue",
        "colorTo": "green",
        "sdk": "gradio",
    }
    with suppress(PackageNotFoundError):  # the Space then uses the newest version
        front["sdk_version"] = version("gradio")
    front |= {
        "python_version": "3.12",
        "app_file": APP,
        "pinned": False,
        "short_description": "Image generators made of stages",
        "tags": ["cascadezoo", "image-generation"],
    }
    repos = [model.reference for model in models if model.reference.startswith(HF)]
    if repos:
        front["models"] = [text.removeprefix(HF).partition("@")[0] for text in repos]
    rows = "\n".join(
        f"- {markdown_text(model.name)}: {markdown_code(model.reference)}, digest "
        f"{markdown_code(model.digest[:12])}"
        for model in models
    )
    head = yaml.safe_dump(front, allow_unicode=True, sort_keys=False)
    return (
        f"---\n{head}---\n\n# {markdown_text(names)}\n\n"
        "A page to play with image generators made of stages, by cascadezoo.\n\n"
        f"{rows}\n\n"
        "To run it here: `pip install -r requirements.txt && python app.py`.\n"
    )
