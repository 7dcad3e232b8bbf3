"""Debian's chromium, driven by playwright, that reaches no network. Skips where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PHONE = {"width": 375, "height": 800}
DESK = {"width": 1280, "height": 900}
HOSTILE = [
    "<script>alert(1)</script>",
    "</title><script>alert(2)</script>",
    '"><img src=x onerror=alert(3)>',
    "' onmouseover='alert(4)",
    "</style><svg onload=alert(5)>",
    "javascript:alert(6)",
    "abc\u202edcba\u2066x\u200b",
    "\ud800 \x00\x1b[31m",
    "&lt;b&gt; &#60;script&#62;",
    "--><script>alert(7)</script><!--",
    "]]><script>alert(8)</script>",
    "x" * 30_000,
]
"""Texts that try to break out of a page."""


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("there is no chromium on the PATH")
    with sync_api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


@dataclass
class Opened:
    """A page that was opened, and all that went on while it was."""

    page: Any
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Nothing was fetched, nothing complained, every picture is there."""
        assert self.messages == []
        assert self.dialogs == []
        assert [url for url in self.requests if not url.startswith(("file:", "data:"))] == []
        assert len([url for url in self.requests if url.startswith("file:")]) == 1
        broken = self.page.evaluate(
            "() => [...document.images].filter(i => !i.complete || !(i.naturalWidth > 0)).length"
        )
        assert broken == 0
        assert self.page.evaluate("() => [...document.images].every(i => i.alt)")

    def sideways(self) -> float:
        """How far the page itself could be scrolled sideways, in pixels."""
        wide: float = self.page.evaluate(
            "() => Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
            " - document.documentElement.clientWidth"
        )
        return wide


@contextmanager
def opened(
    browser: Any, path: Path, *, viewport: dict[str, int] | None = None, dark: bool = False
) -> Iterator[Opened]:
    """Open a page from its file; whatever it asks of the network is refused and put down."""
    context = browser.new_context(
        viewport=viewport or DESK, color_scheme="dark" if dark else "light"
    )
    page = context.new_page()
    seen = Opened(page)

    def route(way: Any) -> None:
        if way.request.url.startswith(("file:", "data:")):
            way.continue_()
        else:
            way.abort()

    def dialog(one: Any) -> None:
        seen.dialogs.append(one.message)
        one.dismiss()

    page.route("**/*", route)
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("console", lambda message: seen.messages.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.messages.append(f"error: {error}"))
    page.on("dialog", dialog)
    page.goto(path.as_uri(), wait_until="load")
    try:
        yield seen
    finally:
        context.close()


CONTRAST = """() => {
  const lin = c => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const of = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * lin(r) + 0.7152 * lin(g) + 0.0722 * lin(b);
  const paper = node => {
    for (; node; node = node.parentElement) {
      const found = of(getComputedStyle(node).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  let least = [99, ""];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || ["SCRIPT", "STYLE"].includes(node.tagName)) continue;
    if (node.closest("title, desc") || !node.getClientRects().length) continue;
    const style = getComputedStyle(node);
    const ink = of(node.closest("svg") ? style.fill : style.color);
    const [a, b] = [light(ink), light(paper(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < least[0]) least = [ratio, node.tagName + ": " + node.textContent.slice(0, 40)];
  }
  return least;
}"""


def least_contrast(seen: Opened) -> tuple[float, str]:
    """The least contrast of any text with what it stands on (WCAG 2), and of which text."""
    ratio, text = seen.page.evaluate(CONTRAST)
    return float(ratio), str(text)
