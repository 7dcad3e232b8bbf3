"""The distributions that a spec requires, and whether they are installed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from cascadezoo.errors import Problem
from cascadezoo.plugins.index import indexed
from cascadezoo.plugins.manager import canonical_name
from cascadezoo.plugins.registry import Origin, is_builtin
from cascadezoo.plugins.requirements import metadata_of
from cascadezoo.util.limits import PROJECT_NAME, PROJECT_URL

if TYPE_CHECKING:
    from packaging.requirements import Requirement

__all__ = [
    "absent_packages",
    "changed_since",
    "check_requires",
    "derive_requires",
    "derive_urls",
    "install_advice",
    "install_hint",
    "install_line",
    "missing",
    "stated_urls",
]

# People paste the requirements of a spec or a pulled model into a shell. So only names and version
# comparisons are allowed: no quotes, no markers, no options.
_PLAIN = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._, -]*\])?[ ]*\(?[A-Za-z0-9.,<>=!~*+ -]*\)?"
)


def derive_requires(origins: Iterable[Origin], stated: Iterable[str] = ()) -> list[str]:
    """One requirement for each distribution, ``name>=version``.

    The version of a kind fixes its behaviour, so a newer distribution that still registers the kind
    is equivalent, and there is no upper bound. Requirements in ``stated`` are kept.
    """
    parsed = ((_parse(text), text) for text in stated)
    rows = {canonical_name(row.name): text for row, text in parsed if row is not None}
    for origin in origins:
        version = Version(origin.version).public if _is_version(origin.version) else None
        text = f"{origin.distribution}>={version}" if version else origin.distribution
        rows.setdefault(canonical_name(origin.distribution), text)
    return [rows[name] for name in sorted(rows)]


def derive_urls(origins: Iterable[Origin], stated: Mapping[str, str]) -> dict[str, str]:
    """The addresses of the projects of distributions, by their canonical names.

    Args:
        origins: the distributions that provide the kinds of a spec. cascadezoo is left out, and so
            is a distribution whose metadata state no address.
        stated: the spec's ``project_urls``, which are kept.
    """
    urls = dict(stated)
    for origin in origins:
        name = canonical_name(origin.distribution)
        if not is_builtin(origin) and name not in urls:
            url = _project_url(name)
            if url is not None:
                urls[name] = url
    return dict(sorted(urls.items()))


def stated_urls(raw: object) -> dict[str, str]:
    """The valid rows of a spec's ``project_urls``, by canonical name.

    Hints show them even if the rest of the spec is invalid.
    """
    rows = raw.items() if isinstance(raw, Mapping) else ()
    return {
        canonical_name(name): url
        for name, url in rows
        if isinstance(name, str)
        and isinstance(url, str)
        and max(len(name), len(url)) <= 200
        and re.fullmatch(PROJECT_NAME, name)
        and re.fullmatch(PROJECT_URL, url)
    }


def check_requires(
    stated: Iterable[str],
    only: frozenset[str] | None = None,
    urls: Mapping[str, str] | None = None,
) -> Iterator[Problem]:
    """The problems of the stated requirements on this machine.

    Args:
        stated: the spec's ``requires``.
        only: the distributions to check; None checks all.
        urls: the result of :func:`stated_urls`.
    """
    for index, text in enumerate(stated):
        path = f"requires.{index}"
        requirement = _parse(text)
        if requirement is None:
            yield Problem(path, f"{text!r} is not a pip requirement", code="requirement-form")
            continue
        if requirement.url is not None:
            # A spec or a pulled model is data: it may name a package, but not an address.
            yield Problem(
                path,
                f"{text!r} contains an address; give a name and a version range",
                code="requirement-address",
            )
            continue
        if not _PLAIN.fullmatch(text):
            yield Problem(
                path, f"{text!r} is more than a name and a version range", code="requirement-form"
            )
            continue
        if only is not None and canonical_name(requirement.name) not in only:
            continue
        installed = _installed(requirement.name)
        if installed is None:
            yield Problem(
                path,
                f"{requirement.name} is not installed",
                install_advice([text], urls or {}),
                code="not-installed",
            )
        elif not requirement.specifier.contains(installed, prereleases=True):
            yield Problem(
                path,
                f"requires {text}, but {requirement.name} {installed} is installed",
                install_line([text], upgrade=True),
                code="other-version",
            )


def missing(stated: Iterable[str]) -> list[str]:
    """The stated requirements whose distribution is not installed."""
    rows = []
    for text in stated:
        requirement = _parse(text)
        if requirement is None or requirement.url is not None or not _PLAIN.fullmatch(text):
            continue
        if _installed(requirement.name) is None:
            rows.append(text)
    return rows


def absent_packages(config: object) -> list[str]:
    """The requirements of a :class:`~cascadezoo.spec.configs.CallbackConfig` not installed."""
    packages: Mapping[str, str] = getattr(config, "packages", {})
    return [text for name, text in packages.items() if _installed(name) is None]


def install_hint(stated: Iterable[str], urls: Mapping[str, str]) -> str | None:
    """A hint which distribution may provide an unknown name; None without a candidate.

    Only requirements of the spec are candidates: a guessed package is a risk.

    Args:
        stated: the spec's ``requires``.
        urls: the result of :func:`stated_urls`.
    """
    stated = list(stated)
    absent = missing(stated)
    if absent:
        return f"a missing distribution may provide it: {install_advice(absent, urls)}"
    unmet = next((p.hint for p in check_requires(stated) if p.hint), None)
    return unmet and f"another version of a distribution may provide it: {unmet}"


def changed_since(stated: Iterable[str], name: str, origin: Origin) -> str | None:
    """A hint if another version of a distribution wrote a config that is invalid now.

    Args:
        stated: the spec's ``requires``.
        name: the kind of the config.
        origin: the distribution that registers the kind.
    """
    version = _written_with(stated, origin)
    if version is None:
        return None
    return (
        f"{name} may have changed: this was written with {origin.distribution} {version}, and "
        f"{origin.version} is installed: {install_line([f'{origin.distribution}=={version}'])}"
    )


def _written_with(stated: Iterable[str], origin: Origin) -> str | None:
    """The version that :func:`derive_requires` stated; None if it is the installed one."""
    for text in stated:
        requirement = _parse(text) if _PLAIN.fullmatch(text) else None
        if requirement is None or canonical_name(requirement.name) != canonical_name(
            origin.distribution
        ):
            continue
        least = [s.version for s in requirement.specifier if s.operator in (">=", "==", "~=")]
        if not least or not (_is_version(least[0]) and _is_version(origin.version)):
            return None
        same = Version(least[0]) == Version(Version(origin.version).public)
        return None if same else least[0]
    return None


def install_line(requirements: Iterable[str], *, upgrade: bool = False) -> str:
    """The pip command that installs them, quoted for a shell.

    Args:
        requirements: names and version ranges without problems in :func:`check_requires`.
        upgrade: add ``--upgrade``.
    """
    quoted = " ".join(f"'{text}'" for text in requirements)
    return f"pip install {'--upgrade ' if upgrade else ''}{quoted}"


def install_advice(requirements: Iterable[str], urls: Mapping[str, str]) -> str:
    """The pip command for missing distributions, and whose they are.

    The names come from whoever wrote the spec or model. The index of plugins is reviewed, so its
    address comes first; then the address that the spec states. A name without an address might
    belong to anybody, and the text warns of it.

    Args:
        requirements: names and version ranges without problems in :func:`check_requires`.
        urls: the result of :func:`stated_urls`.
    """
    requirements = list(requirements)
    notes, warnings = [], []
    for text in requirements:
        requirement = _parse(text)
        name = canonical_name(text if requirement is None else requirement.name)
        known = indexed(name)
        if known is not None:
            notes.append(f"{name} is {known.url}")
        elif name in urls:
            notes.append(f"{name} is {urls[name]}, says the author of the spec or model")
        else:
            warnings.append(name)
    text = install_line(requirements)
    if notes:
        text = f"{text} ({'; '.join(notes)})"
    if warnings:
        text = (
            f"the name {' and '.join(warnings)} comes from the author of the spec or model and is "
            f"not in the index of plugins, so check whose package it is before you run {text}"
        )
    return text


_LABELS = ("repository", "source", "sourcecode", "homepage")
"""The labels of the preferred addresses in metadata, without blanks and dashes."""


def _project_url(distribution: str) -> str | None:
    """The address of a project in the metadata of its installed distribution."""
    try:
        headers = metadata_of(metadata.distribution(distribution))
    except metadata.PackageNotFoundError:
        return None
    rows = [row.partition(",") for row in headers.get("Project-URL", [])]
    urls = {re.sub(r"[\s_-]+", "", label).lower(): url.strip() for label, _, url in rows}
    urls = {label: url for label, url in urls.items() if _is_url(url)}
    chosen = next((urls[label] for label in _LABELS if label in urls), None)
    homes = (url for url in headers.get("Home-page", []) if _is_url(url))
    return chosen or next(homes, None) or next(iter(urls.values()), None)


def _is_url(text: str) -> bool:
    return len(text) <= 200 and re.fullmatch(PROJECT_URL, text) is not None


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
