"""The system's chromium without network, driven by playwright. Skips if it is not installed."""

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
"""Texts that try to inject code into a page."""


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("chromium is not on the PATH")
    with sync_api.sync_playwright() as play:
        started = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@dataclass
class Opened:
    """An opened page with its requests, messages and dialogs."""

    page: Any
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Check that the page made no requests and no errors, and that every picture is shown."""
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
        """How far the page can be scrolled sideways, in pixels."""
        wide: float = self.page.evaluate(
            "() => Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
            " - document.documentElement.clientWidth"
        )
        return wide


@contextmanager
def opened(
    browser: Any, path: Path, *, viewport: dict[str, int] | None = None, dark: bool = False
) -> Iterator[Opened]:
    """Open a page from its file; network requests are recorded and refused."""
    context = browser.new_context(
        viewport=viewport or DESK, color_scheme="dark" if dark else "light"
    )
    page = context.new_page()
    seen = Opened(page)

    def handle(route: Any) -> None:
        if route.request.url.startswith(("file:", "data:")):
            route.continue_()
        else:
            route.abort()

    def dismiss(dialog: Any) -> None:
        seen.dialogs.append(dialog.message)
        dialog.dismiss()

    page.route("**/*", handle)
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("console", lambda message: seen.messages.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.messages.append(f"error: {error}"))
    page.on("dialog", dismiss)
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
      const colour = of(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
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
    """The smallest contrast of a text with its background (WCAG 2), and the text."""
    ratio, text = seen.page.evaluate(CONTRAST)
    return float(ratio), str(text)
