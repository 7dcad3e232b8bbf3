"""Which distributions a spec's kinds come from, and whether those that are asked for are there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from cascadezoo.errors import Problem
from cascadezoo.plugins import canonical_name
from cascadezoo.registry import Origin

if TYPE_CHECKING:
    from packaging.requirements import Requirement

__all__ = ["check_requires", "derive_requires", "install_line", "missing"]


def derive_requires(origins: Iterable[Origin], stated: Iterable[str] = ()) -> list[str]:
    """One requirement for each distribution, ``name>=version``.

    A kind's behaviour is fixed by its own version, so a newer distribution that still registers
    the kind is as good; hence no upper bound. What ``stated`` says of a distribution is kept.
    """
    parsed = ((_parse(text), text) for text in stated)
    rows = {canonical_name(found.name): text for found, text in parsed if found is not None}
    for origin in origins:
        version = Version(origin.version).public if _is_version(origin.version) else None
        text = f"{origin.distribution}>={version}" if version else origin.distribution
        rows.setdefault(canonical_name(origin.distribution), text)
    return [rows[name] for name in sorted(rows)]


def check_requires(stated: Iterable[str], only: frozenset[str] | None = None) -> Iterator[Problem]:
    """What is wrong with the stated requirements on this machine.

    Args:
        stated: the spec's ``requires``.
        only: look at these distributions alone; None looks at all.
    """
    for index, text in enumerate(stated):
        path = f"requires.{index}"
        requirement = _parse(text)
        if requirement is None:
            yield Problem(path, f"{text!r} is not a requirement as pip writes them")
            continue
        if requirement.url is not None:
            # A spec or a pulled model is data: it may name a package, never a place to fetch from.
            yield Problem(path, f"{text!r} names an address; give a name and a version range")
            continue
        if only is not None and canonical_name(requirement.name) not in only:
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
        requirement = _parse(text)
        if requirement is None or requirement.url is not None:
            continue
        if _installed(requirement.name) is None:
            rows.append(text)
    return rows


def install_line(requirements: Iterable[str], *, upgrade: bool = False) -> str:
    """The pip command that installs them, quoted for a shell."""
    quoted = " ".join(f"'{text}'" for text in requirements)
    return f"pip install {'--upgrade ' if upgrade else ''}{quoted}"


def _parse(text: str) -> Requirement | None:
    # Its parser is slow to import, and most specs state no requirements.
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(text)
    except InvalidRequirement:
        return None


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
