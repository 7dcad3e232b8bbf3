"""A page that is one file: style, script and pictures are inside, and nothing is fetched.

```
page = Page("Results", "What came out.")
page.section("Figures")
page.table([Column("model"), Column("KID", numeric=True)], rows, label="KID of each model")
page.picture(Path("samples.png"), alt="36 samples")
write_atomically(Path("page.html"), page.html().encode())
```
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from PIL import Image

from cascadezoo._version import __version__
from cascadezoo.report import blocks
from cascadezoo.report.blocks import Column, Row, TableCell
from cascadezoo.report.charts import Axis, Bars, Chart, Point, Series
from cascadezoo.report.charts_svg import draw_bars, draw_chart
from cascadezoo.report.html import Markup, element

__all__ = ["Axis", "Bars", "Chart", "Column", "Page", "Point", "Row", "Series", "TableCell"]


class Page:
    """A page, from top to bottom.

    Everything that is given as text is escaped. A policy in the page's head lets it load nothing
    and run no script but its own.

    Args:
        title: the page's heading and the name of its tab.
        lead: what the page is about, in a sentence or two.
    """

    def __init__(self, title: str, lead: str = "") -> None:
        self.title = title
        self.lead = lead
        self._sections: list[tuple[str, list[Markup]]] = []
        self._top: list[Markup] = []

    def section(self, title: str, lead: object = "") -> None:
        """Begin a section; what is added after it belongs to it."""
        self._sections.append((title, []))
        if lead:
            self.text(lead)

    def add(self, markup: Markup) -> None:
        """Add what :mod:`cascadezoo.report.blocks` or :mod:`cascadezoo.report.html` made."""
        (self._sections[-1][1] if self._sections else self._top).append(markup)

    def text(self, text: object, *, kind: str | None = None) -> None:
        """Add a paragraph.

        Args:
            text: of it.
            kind: ``note`` for a remark, ``lacks`` for what is missing and why, ``bad`` for what
                went wrong.
        """
        self.add(element("p", text, class_=kind))

    def table(
        self,
        columns: Sequence[Column],
        rows: Iterable[Row],
        *,
        label: str,
        sortable: bool = True,
    ) -> None:
        """Add a table; see :func:`cascadezoo.report.blocks.table`."""
        self.add(blocks.table(columns, rows, label=label, sortable=sortable))

    def picture(self, image: Image.Image | bytes | Path, alt: str, caption: object = "") -> None:
        """Add a picture; see :func:`cascadezoo.report.blocks.picture`."""
        self.add(blocks.picture(image, alt, caption))

    def figure(self, *plots: Chart | Bars) -> None:
        """Add plots, side by side where there is room."""
        drawn = [draw_chart(p) if isinstance(p, Chart) else draw_bars(p) for p in plots]
        self.add(element("div", *drawn, class_="charts"))

    def facts(self, rows: Iterable[tuple[str, object]]) -> None:
        """Add short facts with their names."""
        self.add(blocks.facts(rows))

    def side_by_side(self, columns: Sequence[tuple[str, Markup]]) -> None:
        """Add columns of equal rank, each under its name; a single one needs no name."""
        if len(columns) == 1:
            self.add(columns[0][1])
            return
        parts = [element("div", element("h3", name), markup) for name, markup in columns]
        self.add(element("div", *parts, class_="columns several"))

    def cards(self, cards: Iterable[Markup]) -> None:
        """Add many small things that stand side by side."""
        self.add(element("div", *cards, class_="cards"))

    def html(self) -> str:
        """The whole page."""
        style, script = _asset("page.css"), _asset("page.js")
        policy = (
            "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
            f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
        )
        names = _anchors([title for title, _ in self._sections])
        head = element(
            "head",
            element("meta", charset="utf-8"),
            # What the policy holds is this package's own; escaping its quotes is what HTML asks.
            element("meta", http_equiv="Content-Security-Policy", content=policy),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="generator", content=f"cascadezoo {__version__}"),
            element("meta", name="referrer", content="no-referrer"),
            element("title", self.title),
            # Without it a browser asks for one.
            element("link", rel="icon", href="data:,"),
            Markup(f"<style>{style}</style>"),
        )
        links = [
            element("li", element("a", title, href=f"#{name}"))
            for name, (title, _) in zip(names, self._sections, strict=True)
        ]
        top = element(
            "header",
            element("h1", self.title),
            element("p", self.lead, class_="lead") if self.lead else "",
            element("nav", element("ul", *links), aria_label="Sections") if len(links) > 2 else "",
            class_="page",
        )
        sections = [
            element(
                "section", element("h2", title, id=f"{name}-h"), *parts, id=name,
                aria_labelledby=f"{name}-h",
            )
            for name, (title, parts) in zip(names, self._sections, strict=True)
        ]  # fmt: skip
        foot = element("footer", element("p", f"Made by cascadezoo {__version__}.", class_="note"))
        body = element(
            "body", top, element("main", *self._top, *sections), foot,
            Markup(f"<script>{script}</script>"),
        )  # fmt: skip
        return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


@cache
def _asset(name: str) -> str:
    return files("cascadezoo.report").joinpath(name).read_text(encoding="utf-8").strip()


def _digest(text: str) -> str:
    made = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(made).decode()}"


def _anchors(titles: Sequence[str]) -> list[str]:
    """Names for the sections that links can lead to."""
    names: list[str] = []
    for title in titles:
        name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40] or "section"
        while name in names:
            name += "-2"
        names.append(name)
    return names
