"""References to models: a folder, a zoo name, or a repo on the Hugging Face Hub.

```
./models/digits   /srv/digits   ~/digits      a folder, and nothing else
runs/digits                                   the run folder of a build, where there is one
digits            zoo:digits                  a model of the zoo
org/name          hf://org/name               a repo on the Hub; `@revision` may follow
```
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

__all__ = ["HubRef", "ZooRef", "as_argument", "is_hub_id", "parse_reference"]

HF = "hf://"
_ZOO = "zoo:"
_HUB = re.compile(r"(hf://)?[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+(@[A-Za-z0-9_./-]+)?")
_PART = re.compile(r"(?![.-])[A-Za-z0-9_.-]{1,96}(?<![.-])")
_ZOO_NAME = re.compile(r"[a-z][a-z0-9]*([-_.][a-z0-9]+)*")
_LONGEST = 4096
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
        """Whether the revision is a whole commit, which cannot move."""
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
    """Whether a text reads as ``[hf://]org/name[@revision]`` and is not written as a path."""
    return not _is_written_as_path(text) and _HUB.fullmatch(text) is not None


def as_argument(path: str | Path) -> str:
    """A path written so that it can be read as nothing but a path."""
    text = str(path)
    plain = _is_written_as_path(text) or not (is_hub_id(text) or _ZOO_NAME.fullmatch(text))
    return text if plain else f"./{text}"


def parse_reference(reference: str | Path, revision: str | None = None) -> Path | ZooRef | HubRef:
    """What a reference means; asks nothing of the network.

    A :class:`~pathlib.Path` is a folder. A text that could be read in two ways is refused: a
    folder here that has the form of a Hub id or bears the name of a zoo model. The run folder of
    a build, such as ``runs/digits``, is taken as what it is.

    Args:
        reference: see the head of this module.
        revision: in place of ``@revision``.

    Raises:
        ModelReferenceError: it has no form that is known, or two meanings.
    """
    found = _parse(reference, revision)
    if revision is not None and not isinstance(found, HubRef):
        what = "a model of the zoo is pinned" if isinstance(found, ZooRef) else "a folder has none"
        raise ModelReferenceError(
            f"{str(reference)!r} takes no revision: {what}",
            hint="leave the revision out, or give hf://org/name",
            code="reference-no-revision",
            name=str(reference),
        )
    return found


def _parse(reference: str | Path, revision: str | None) -> Path | ZooRef | HubRef:
    if isinstance(reference, Path):
        return _expanded(reference)
    text = reference
    if not text or "\0" in text or len(text) > _LONGEST:
        raise ModelReferenceError(
            f"{text[:80]!r} names no model", hint=FORMS, code="reference-empty"
        )
    if text.startswith(HF):
        return _hub_ref(text, revision)
    if text.startswith(("https://", "http://")):
        raise ModelReferenceError(
            f"{text!r} is an address, not a model",
            hint="write hf://org/name for a repo on the Hub",
            code="reference-is-address",
            name=text,
        )
    if text.startswith(_ZOO):
        name = text.removeprefix(_ZOO)
        if not _ZOO_NAME.fullmatch(name):
            raise ModelReferenceError(
                f"{name!r} is not a name of the zoo",
                hint=FORMS,
                code="reference-not-a-zoo-name",
                name=name,
            )
        return ZooRef(name)
    path = _expanded(Path(text))
    if _is_written_as_path(text):
        return path
    if _HUB.fullmatch(text):
        if not is_there(path):
            return _hub_ref(text, revision)
        if revision is not None and "@" not in text:
            return _hub_ref(text, revision)
        if _is_run(path):
            return path
        raise _two_meanings(text, "a folder here", "a repo on the Hub", f"{HF}{text}")
    if is_there(path):
        if _ZOO_NAME.fullmatch(text) and _is_listed(text):
            raise _two_meanings(text, "a folder here", "a model of the zoo", f"{_ZOO}{text}")
        return path
    if _ZOO_NAME.fullmatch(text) and _is_listed(text):
        return ZooRef(text)
    raise _nothing(text)


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ModelReferenceError(
            f"{str(path)!r} lies in the home of somebody unknown here",
            hint=FORMS,
            code="reference-unknown-home",
            path=path,
        ) from None


def is_there(path: Path) -> bool:
    """Whether something lies at a path."""
    try:
        return path.exists()
    except OSError:  # a name that no file system takes, or a folder that may not be looked into
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


def _is_listed(name: str) -> bool:
    zoos = get_zoos()
    return name in zoos.models or name in zoos.contested


def _two_meanings(text: str, one: str, other: str, spelling: str) -> ModelReferenceError:
    return ModelReferenceError(
        f"{text!r} may be {one} or {other}",
        hint=f"write ./{text} for the folder, {spelling} for {other.replace('a ', 'the ', 1)}",
        code="reference-ambiguous",
        name=text,
    )


def _nothing(text: str) -> ModelReferenceError:
    names = sorted(get_zoos().models)
    close = difflib.get_close_matches(text, names, n=3, cutoff=0.6)
    if close:
        hint = f"did you mean {' or '.join(repr(c) for c in close)}?"
    elif names:
        hint = f"cascadezoo zoo list shows the models of the zoo, such as {names[0]}"
    else:
        hint = "cascadezoo build shapes-demo makes one in runs/shapes-demo"
    return ModelReferenceError(
        f"there is no model {text!r}: no such folder, and no zoo lists it",
        hint=hint,
        code="reference-not-found",
        name=text,
    )


def _hub_ref(text: str, revision: str | None) -> HubRef:
    repo_id, at, written = text.removeprefix(HF).partition("@")
    parts = repo_id.split("/")
    sound = len(parts) == 2 and all(_PART.fullmatch(p) for p in parts)
    if not sound or "--" in repo_id or ".." in repo_id or repo_id.endswith(".git"):
        raise ModelReferenceError(
            f"{repo_id!r} is not the id of a repo on the Hub",
            hint="it has the form org/name, of letters, digits, '-', '_' and '.'",
            code="reference-not-a-repo",
            name=repo_id,
        )
    if at and revision is not None and revision != written:
        raise ModelReferenceError(
            f"{text!r} names one revision, and {revision!r} is another",
            hint="give one of them",
            code="reference-two-revisions",
            name=text,
        )
    wanted = written if at else revision
    if wanted is not None and (
        not REVISION.fullmatch(wanted) or ".." in wanted or "//" in wanted or "/." in wanted
    ):
        raise ModelReferenceError(
            f"{wanted!r} is not a revision: a branch, a tag or a commit of 40 digits",
            hint=f"https://huggingface.co/{repo_id}/commits/main lists them",
            code="reference-not-a-revision",
            name=wanted,
        )
    return HubRef(repo_id, wanted)
