"""References to models: a folder, a zoo name, or a repo on the Hugging Face Hub.

```
./models/digits   /srv/digits   ~/digits      always a folder
runs/digits                                   the run folder of a build, if it exists
digits            zoo:digits                  a model of the zoo
org/name          hf://org/name               a repo on the Hub; `@revision` may follow
```

`folder/name` is never a repo if `folder` exists or is `runs`: it is a run that does not exist.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from cascadezoo.errors import ModelReferenceError
from cascadezoo.model_folder.layout import CONFIG
from cascadezoo.util.limits import REVISION, is_commit
from cascadezoo.zoo.list import get_zoos

__all__ = ["HubRef", "ZooRef", "as_argument", "is_hub_id", "parse_reference", "reference_of"]

HF = "hf://"
_ZOO = "zoo:"
_HUB = re.compile(r"(hf://)?[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+(@[A-Za-z0-9_./-]+)?")
_PART = re.compile(r"(?![.-])[A-Za-z0-9_.-]{1,96}(?<![.-])")
_ZOO_NAME = re.compile(r"[a-z][a-z0-9]*([-_.][a-z0-9]+)*")
_LONGEST = 4096
_SHOWN = 12
"""Number of runs that an error lists."""

RUNS = "runs"
"""The folder of builds without ``-o``."""

FORMS = "write ./folder for a folder, NAME for a model of the zoo, org/name[@revision] for the Hub"


@dataclass(frozen=True, slots=True)
class HubRef:
    """A repo on the Hub.

    Args:
        repo_id: ``org/name``.
        revision: a branch, a tag or a commit; None is ``main``.
    """

    repo_id: str
    revision: str | None = None

    @property
    def pinned(self) -> bool:
        """Whether the revision is a full commit, which cannot move."""
        return is_commit(self.revision)

    def __str__(self) -> str:
        return self.repo_id if self.revision is None else f"{self.repo_id}@{self.revision}"


@dataclass(frozen=True, slots=True)
class ZooRef:
    """A model that a zoo lists."""

    name: str

    def __str__(self) -> str:
        return self.name


def is_hub_id(text: str) -> bool:
    """Whether a text has the form ``[hf://]org/name[@revision]`` and not that of a path."""
    return not _is_written_as_path(text) and _HUB.fullmatch(text) is not None


def as_argument(path: str | Path) -> str:
    """Write a path in a form that only a path has."""
    text = str(path)
    plain = _is_written_as_path(text) or not (is_hub_id(text) or _ZOO_NAME.fullmatch(text))
    return text if plain else f"./{text}"


def reference_of(model: str, folder: Path) -> str | None:
    """The reference of a model that others can use too: a zoo name, or a repo with its commit.

    Args:
        model: the reference that the user gave.
        folder: the model's folder.

    Returns:
        ``zoo:name`` or ``hf://org/name@commit``; None for a local folder.
    """
    parsed = parse_reference(model)
    if isinstance(parsed, ZooRef):
        return f"{_ZOO}{parsed.name}"
    if isinstance(parsed, HubRef) and is_commit(folder.name):
        return f"{HF}{parsed.repo_id}@{folder.name}"
    return None


def parse_reference(reference: str | Path, revision: str | None = None) -> Path | ZooRef | HubRef:
    """Parse a reference without the network.

    A :class:`~pathlib.Path` is a folder. An ambiguous text raises an error: a local folder that
    has the form of a Hub id or the name of a zoo model. The run folder of a build, such as
    ``runs/digits``, is never ambiguous.

    Args:
        reference: see the docstring of this module.
        revision: an alternative to ``@revision``.

    Raises:
        ModelReferenceError: the form is unknown, or the reference is ambiguous.
    """
    parsed = _parse(reference, revision)
    if revision is not None and not isinstance(parsed, HubRef):
        why = "a zoo model is pinned" if isinstance(parsed, ZooRef) else "a folder has none"
        raise ModelReferenceError(
            f"{str(reference)!r} takes no revision: {why}",
            hint="leave the revision out, or give hf://org/name",
            code="reference-no-revision",
            name=str(reference),
        )
    return parsed


def _parse(reference: str | Path, revision: str | None) -> Path | ZooRef | HubRef:
    if isinstance(reference, Path):
        return _expanded(reference)
    text = reference
    if not text or "\0" in text or len(text) > _LONGEST:
        raise ModelReferenceError(
            f"{text[:80]!r} is not a model reference", hint=FORMS, code="reference-empty"
        )
    if text.startswith(HF):
        return _hub_ref(text, revision)
    if text.startswith(("https://", "http://")):
        raise ModelReferenceError(
            f"{text!r} is a URL, not a model",
            hint="for a repo on the Hub, write hf://org/name",
            code="reference-is-address",
            name=text,
        )
    if text.startswith(_ZOO):
        name = text.removeprefix(_ZOO)
        if not _ZOO_NAME.fullmatch(name):
            raise ModelReferenceError(
                f"{name!r} is not a valid zoo name",
                hint=FORMS,
                code="reference-not-a-zoo-name",
                name=name,
            )
        return ZooRef(name)
    path = _expanded(Path(text))
    if _is_written_as_path(text):
        return path
    if _HUB.fullmatch(text):
        if not path_exists(path):
            if revision is None and "@" not in text and _may_be_run(path):
                raise _no_run(text, path)
            return _hub_ref(text, revision)
        if revision is not None and "@" not in text:
            return _hub_ref(text, revision)
        if _is_run(path):
            return path
        raise _ambiguous(text, "repo on the Hub", f"{HF}{text}")
    if path_exists(path):
        if _ZOO_NAME.fullmatch(text) and _is_listed(text):
            raise _ambiguous(text, "model of the zoo", f"{_ZOO}{text}")
        return path
    if _ZOO_NAME.fullmatch(text) and _is_listed(text):
        return ZooRef(text)
    raise _not_found(text)


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ModelReferenceError(
            f"{str(path)!r} names the home folder of an unknown user",
            hint=FORMS,
            code="reference-unknown-home",
            path=path,
        ) from None


def path_exists(path: Path) -> bool:
    """Whether a path exists; False also if its name is invalid or its folder cannot be read."""
    try:
        return path.exists()
    except OSError:
        return False


def _is_written_as_path(text: str) -> bool:
    return (
        text in (".", "..")
        or text.startswith(("./", "../", "/", "~"))
        or "\\" in text
        or Path(text).is_absolute()
    )


def _is_run(path: Path) -> bool:
    return (path / "run.json").is_file() or (path / "model" / CONFIG).is_file()


def _may_be_run(path: Path) -> bool:
    """Whether ``folder/name`` may name a run: builds write to runs/, or the folder exists."""
    return path.parent == Path(RUNS) or path.parent.is_dir()


def _no_run(text: str, path: Path) -> ModelReferenceError:
    names = runs_in(path.parent)
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
    if close:
        advice = f"did you mean {path.parent / close[0]}? "
    elif not names:
        advice = "cascadezoo build shapes-demo builds runs/shapes-demo; "
    else:
        advice = ""
    if names:
        more = f", ... {len(names)} in total" if len(names) > _SHOWN else ""
        advice += f"{path.parent} has {', '.join(names[:_SHOWN])}{more}; "
    return ModelReferenceError(
        f"model {text!r} not found: {path.parent} has no such run",
        hint=f"{advice}for a repo on the Hub, write {HF}{text}",
        code="reference-no-run",
        name=text,
        runs=names,
    )


def runs_in(folder: Path) -> list[str]:
    """The names of the runs and model folders in a folder, sorted."""
    try:
        rows = sorted(folder.iterdir())
    except OSError:
        return []
    return [row.name for row in rows if _is_run(row) or (row / CONFIG).is_file()]


def _is_listed(name: str) -> bool:
    zoos = get_zoos()
    return name in zoos.models or name in zoos.contested


def _ambiguous(text: str, other: str, spelling: str) -> ModelReferenceError:
    return ModelReferenceError(
        f"{text!r} is ambiguous: a local folder or a {other}",
        hint=f"write ./{text} for the folder, {spelling} for the {other}",
        code="reference-ambiguous",
        name=text,
    )


def _not_found(text: str) -> ModelReferenceError:
    names = sorted(get_zoos().models)
    close = difflib.get_close_matches(text, names, n=3, cutoff=0.6)
    if text in runs_in(Path(RUNS)):
        hint = f"did you mean {RUNS}/{text}?"
    elif close:
        hint = f"did you mean {' or '.join(repr(c) for c in close)}?"
    elif names:
        hint = f"cascadezoo zoo list shows the models of the zoo, such as {names[0]}"
    else:
        hint = "cascadezoo build shapes-demo builds one in runs/shapes-demo"
    return ModelReferenceError(
        f"model {text!r} not found: it is neither a folder nor listed by a zoo",
        hint=hint,
        code="reference-not-found",
        name=text,
    )


def _hub_ref(text: str, revision: str | None) -> HubRef:
    repo_id, at, written = text.removeprefix(HF).partition("@")
    parts = repo_id.split("/")
    valid = len(parts) == 2 and all(_PART.fullmatch(p) for p in parts)
    if not valid or "--" in repo_id or ".." in repo_id or repo_id.endswith(".git"):
        raise ModelReferenceError(
            f"{repo_id!r} is not a repo id",
            hint="write org/name, with letters, digits, '-', '_' and '.'",
            code="reference-not-a-repo",
            name=repo_id,
        )
    if at and revision is not None and revision != written:
        raise ModelReferenceError(
            f"{text!r} and the revision {revision!r} contradict each other",
            hint="give only one revision",
            code="reference-two-revisions",
            name=text,
        )
    requested = written if at else revision
    if requested is not None and (
        not REVISION.fullmatch(requested) or any(s in requested for s in ("..", "//", "/."))
    ):
        raise ModelReferenceError(
            f"{requested!r} is not a revision: a branch, a tag or a commit of 40 digits",
            hint=f"https://huggingface.co/{repo_id}/commits/main lists the commits",
            code="reference-not-a-revision",
            name=requested,
        )
    return HubRef(repo_id, requested)
