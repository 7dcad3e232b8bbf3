"""Jinja2 templates of pages. A page is one file that makes no requests.

Each package that makes pages has a folder ``templates/``. Every value is escaped.
``page.html.j2`` is the layout of all pages, ``parts.html.j2`` contains their parts.
Free of torch and matplotlib.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from cascadezoo._version import __version__
from cascadezoo.util.text import page_text

__all__ = ["Outline", "environment", "render_page"]

_PACKAGE = "cascadezoo.report"


class Outline:
    """The sections of a page, in the order of rendering."""

    def __init__(self) -> None:
        self.links: list[tuple[str, str]] = []

    def add(self, title: str) -> str:
        """Add a section and return its id: letters, digits and hyphens, unique in the page."""
        name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40] or "section"
        taken = {known for known, _ in self.links}
        while name in taken:
            name += "-2"
        self.links.append((name, title))
        return name


@cache
def environment(package: str = _PACKAGE) -> Environment:
    """Return the templates of a package and those of reports.

    Every value is escaped unless it is :class:`markupsafe.Markup`. Invisible characters are
    written out by :func:`~cascadezoo.util.text.page_text`.

    Args:
        package: a package with a folder ``templates``.
    """
    own = [] if package == _PACKAGE else [PackageLoader(package)]
    return Environment(
        loader=ChoiceLoader([*own, PackageLoader(_PACKAGE)]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render_page(template: str | Template, *, package: str = _PACKAGE, **context: Any) -> str:
    """Render a page.

    The page's content policy allows only its own style and script, by their digests, and pictures
    inside the page.

    Args:
        template: a template that extends ``page.html.j2``, or its name.
        package: the package that the template belongs to.
        context: the variables of the template; the layout requires ``title`` and ``lead``.

    Returns:
        A complete HTML document.
    """
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    )
    return (
        environment(package)
        .get_template(template)
        .render(
            **context,
            outline=Outline(),
            policy=policy,
            style=style,
            script=script,
            version=__version__,
        )
    )


def _shown(value: object) -> object:
    return value if isinstance(value, Markup) else page_text(value)


@cache
def _asset(name: str) -> Markup:
    """A trusted file of this package, which needs no escaping."""
    text = files(_PACKAGE).joinpath("templates", name).read_text(encoding="utf-8")
    return Markup(text.strip())  # noqa: S704


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
