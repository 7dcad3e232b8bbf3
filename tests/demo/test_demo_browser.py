"""The page in a real browser, at the widths of a desk and of a phone."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
from PIL import Image

from cascadezoo import Cascade, read_recipe
from cascadezoo.report.images import grid

PATIENCE = 90_000
"""Milliseconds; the machine may be busy."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not list(importlib.metadata.distributions(name="gradio")),
        reason="gradio is not installed: pip install 'cascadezoo[demo]'",
    ),
]


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    with browser.chromium() as started:
        yield started


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, chrome: Any) -> Iterator[str]:
    """The page of two models, served by the command."""
    folder = tmp_path_factory.mktemp("demo")
    Cascade.from_pretrained("shapes-tiny").save_pretrained(folder / "copy")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["demo", "shapes-tiny", "./copy", "--port", str(port), "--device", "cpu", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "cascadezoo", *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line == "}\n":
                break
        data = json.loads("".join(lines))
        assert data == {"url": f"http://127.0.0.1:{port}/", "models": ["shapes-tiny"] * 2}
        yield data["url"]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0


@contextmanager
def shown(chrome: Any, address: str, width: int) -> Iterator[Any]:
    """The page at a width; it must send no request to another machine and fit the width."""
    context = chrome.new_context(viewport={"width": width, "height": 900})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    try:
        page.goto(address)
        page.locator("#draw").wait_for()
        page.get_by_role("tab", name="Draw").wait_for()
        yield page
        local = (address, "data:", "blob:")
        assert [url for url in requests if not url.startswith(local)] == []
        wide = page.evaluate(
            "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0, f"the page of {width} pixels can be scrolled sideways by {wide}"
        folder = os.environ.get("CASCADEZOO_SCREENSHOTS")
        if folder:
            name = os.environ["PYTEST_CURRENT_TEST"].split("::")[-1].split(" ")[0]
            page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)
    finally:
        context.close()


def picture(page: Any, alt: str, folder: Path) -> Path:
    """Download the picture with this alternative text."""
    image = page.locator(f'img[alt="{alt}"]').first
    image.wait_for()
    path = folder / "picture.png"
    path.write_bytes(page.request.get(image.get_attribute("src")).body())
    return path


def open_tab(page: Any, name: str) -> None:
    """Open a tab; on a phone the last ones are in a menu."""
    tab = page.get_by_role("tab", name=name)
    if tab.count() and tab.first.is_visible():
        tab.first.click()
        return
    page.locator(".overflow-menu > button").first.click()
    page.locator(".overflow-dropdown button", has_text=name).first.click()


@pytest.mark.parametrize("width", [1280, 375])
def test_it_draws_the_chosen_class_with_both_models(chrome, address, width, tmp_path):
    alts = [f"Samples of shapes-tiny ({name})" for name in ("shapes-tiny", "./copy")]
    with shown(chrome, address, width) as page:
        page.locator("#draw").click()
        first = read_recipe(picture(page, alts[1], tmp_path))
        assert (first.seed, first.settings["labels"]) == (0, [])
        old = page.locator(f'img[alt="{alts[1]}"]').first.get_attribute("src")
        box = page.locator("#label input").first
        box.click()
        page.get_by_role("option", name="star", exact=True).click()
        page.wait_for_function(
            "([alt, old]) => { const i = document.querySelector(`img[alt='${alt}']`);"
            " return i && i.src !== old; }",
            arg=[alts[1], old],
        )
        for alt in alts:
            path = picture(page, alt, tmp_path)
            assert read_recipe(path).settings["captions"]
            expected = grid(
                Cascade.from_pretrained("shapes-tiny").sample(16, labels="star"),
                names=["star"] * 16,
            )
            with Image.open(path) as drawn:
                difference = np.abs(np.asarray(drawn, float) - np.asarray(expected, float))
            assert difference.max() <= 1


@pytest.mark.parametrize("width", [1280, 375])
def test_errors_and_figures_are_in_the_page(chrome, address, width):
    with shown(chrome, address, width) as page:
        open_tab(page, "Upscale")
        page.locator("#upscale").click()
        failed = page.locator(".failed:visible").first
        failed.wait_for()
        assert "there is no picture yet" in failed.inner_text()
        assert "Traceback" not in page.content()
        open_tab(page, "Card")
        card = page.locator("table.facts:visible")
        card.first.wait_for()
        text = " ".join(card.all_inner_texts())
        assert "flow.v1" in text
        assert "kid" in text


def test_it_redraws_the_painted_part(chrome, address, tmp_path):
    with shown(chrome, address, 1280) as page:
        open_tab(page, "Inpaint")
        page.locator("#inpaint-start").click()
        canvas = page.locator("#inpaint-picture canvas").first
        canvas.wait_for()
        page.wait_for_timeout(2000)
        place = canvas.bounding_box()
        middle = place["y"] + place["height"] / 2
        page.mouse.move(place["x"] + place["width"] * 0.45, middle)
        page.mouse.down()
        page.mouse.move(place["x"] + place["width"] * 0.55, middle, steps=8)
        page.mouse.up()
        page.locator("#inpaint").click()
        path = picture(page, "Redrawn of shapes-tiny (shapes-tiny)", tmp_path)
        with Image.open(path) as drawn:
            assert drawn.width > 90
