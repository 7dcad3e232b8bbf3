"""The pictures of the gallery and of the README are those that their commands draw."""

from __future__ import annotations

import re
import shlex
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BUNDLED = ROOT / "plugins" / "cascadezoo-models" / "cascadezoo_models" / "models"
TEXT = (DOCS / "gallery.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^cascadezoo (sample .*)$", TEXT, re.MULTILINE)
PICTURES = re.findall(r"!\[[^\]]+\]\(img/([\w-]+\.png)\)", TEXT)
QUICK = "shapes-tiny"
UPSCALER = "upscaler-x2"
"""Enlarges pictures; docs/upscale.md shows it."""
DRAWING = {p.name for p in BUNDLED.iterdir()} - {UPSCALER} | {QUICK}
"""The models that draw."""
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"\(docs/img/((?:row|stages)-[\w-]+\.png)\)", README)
"""The pictures of the README; it states the command of each kind."""


def test_each_picture_has_the_command_that_drew_it() -> None:
    outputs = [shlex.split(command)[-1] for command in COMMANDS]
    assert outputs == PICTURES
    assert sorted(PICTURES) == sorted(p.name for p in (DOCS / "img").glob("gallery-*.png"))


def test_each_model_of_the_zoo_has_a_picture() -> None:
    drawn = {shlex.split(command)[1] for command in COMMANDS}
    assert drawn == DRAWING


def command_of(picture: str) -> str:
    """The command of a picture of the README."""
    kind, _, model = picture.removesuffix(".png").partition("-")
    n = 8 if model == QUICK else 10
    options = "-n 4 --stages" if kind == "stages" else f"-n {n} --columns {n} --captions"
    return f"sample {model} {options} -o {picture}"


def test_the_readme_shows_each_model_and_states_its_commands() -> None:
    assert {f"row-{name}.png" for name in DRAWING} == {n for n in SHOWN if n.startswith("row-")}
    assert sum(name.startswith("stages-") for name in SHOWN) == 3
    text = " ".join(README.split())
    for stated in (
        "`cascadezoo sample cifar10 -n 4 --stages`",
        "`cascadezoo sample NAME -n 10 --columns 10 --captions`",
        "`-n 8 --columns 8`",
    ):
        assert stated in text


def draw(command: str, folder: Path, python: str) -> np.ndarray:
    """Run a command of the page, with the models of the checkout."""
    words = shlex.split(command)
    if words[1] != QUICK:
        words[1] = str(BUNDLED / words[1])
    program = [python, "-m", "cascadezoo", *words]
    subprocess.run(program, cwd=folder, check=True, capture_output=True)
    return np.asarray(Image.open(folder / words[-1]).convert("RGB"), float)


DAY = datetime.now(tz=UTC).toordinal()


def marks(number: int, command: str) -> list[pytest.MarkDecorator]:
    """Pictures of small models are drawn each time, a third of the others each day."""
    if QUICK in command:
        return []
    other = pytest.mark.skipif((number + DAY) % 3 != 0, reason="drawn on another day")
    return [pytest.mark.slow, other]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(c, marks=marks(number, c), id=shlex.split(c)[-1])
        for number, c in enumerate((*COMMANDS, *map(command_of, SHOWN)))
    ],
)
def test_a_command_draws_its_picture(command: str, tmp_path: Path, warm_python: str) -> None:
    check_picture(draw(command, tmp_path, warm_python), shlex.split(command)[-1])


def test_the_upscaler_draws_its_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (DOCS / "upscale.md").read_text(encoding="utf-8")
    (block,) = (b for b in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S) if UPSCALER in b)
    monkeypatch.chdir(tmp_path)
    exec(block.replace(UPSCALER, str(BUNDLED / UPSCALER)), {})
    check_picture(np.asarray(Image.open("upscaled.png"), float), "upscaled.png")
    left, middle, right = np.split(np.asarray(Image.open("upscaled.png"), float), 3, axis=1)
    blurred, ours = (np.square(part - right).mean() for part in (left, middle))
    assert ours < 0.7 * blurred


def check_picture(drawn: np.ndarray, name: str) -> None:
    """Compare with a picture of the docs."""
    picture = Image.open(DOCS / "img" / name)
    shown = np.asarray(picture.convert("RGB"), float)
    assert drawn.shape == shown.shape
    difference = np.abs(drawn - shown)
    # Another processor rounds differently; another seed or model differs by more than 20.
    assert difference.mean() < 2
    assert np.quantile(difference, 0.99) < 25
