"""Which distributions a spec's kinds come from, and whether those that are asked for are there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from cascadezoo.errors import Problem
from cascadezoo.registry import Origin

__all__ = ["check_requires", "derive_requires", "install_line", "missing"]


def derive_requires(origins: Iterable[Origin], stated: Iterable[str] = ()) -> list[str]:
    """One requirement for each distribution, ``name>=version``.

    A kind's behaviour is fixed by its own version, so a newer distribution that still registers
    the kind is as good; hence no upper bound. What ``stated`` says of a distribution is kept.
    """
    rows = {canonicalize_name(Requirement(text).name): text for text in stated}
    for origin in origins:
        version = Version(origin.version).public if _is_version(origin.version) else None
        text = f"{origin.distribution}>={version}" if version else origin.distribution
        rows.setdefault(canonicalize_name(origin.distribution), text)
    return [rows[name] for name in sorted(rows)]


def check_requires(stated: Iterable[str], only: frozenset[str] | None = None) -> Iterator[Problem]:
    """What is wrong with the stated requirements on this machine.

    Args:
        stated: the spec's ``requires``.
        only: look at these distributions alone; None looks at all.
    """
    for index, text in enumerate(stated):
        path = f"requires.{index}"
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            yield Problem(path, f"{text!r} is not a requirement as pip writes them")
            continue
        if requirement.url is not None:
            # A spec or a pulled model is data: it may name a package, never a place to fetch from.
            yield Problem(path, f"{text!r} names an address; give a name and a version range")
            continue
        if only is not None and canonicalize_name(requirement.name) not in only:
            continue
        have = _installed(requirement.name)
        if have is None:
            yield Problem(path, f"{requirement.name} is not installed", install_line([text]))
        elif not requirement.specifier.contains(have, prereleases=True):
            yield Problem(
                path,
                f"asks for {text}, but {requirement.name} {have} is installed",
                install_line([text], upgrade=True),
            )


def missing(stated: Iterable[str]) -> list[str]:
    """The stated requirements whose distribution is not installed."""
    rows = []
    for text in stated:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.url is None and _installed(requirement.name) is None:
            rows.append(text)
    return rows


def install_line(requirements: Iterable[str], *, upgrade: bool = False) -> str:
    """The pip command that installs them, quoted for a shell."""
    quoted = " ".join(f"'{text}'" for text in requirements)
    return f"pip install {'--upgrade ' if upgrade else ''}{quoted}"


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True
