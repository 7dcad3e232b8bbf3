"""Any text in any string of a spec: valid, or an error with a code, in every command."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from cascadezoo.cli.main import main

UNEXPECTED = {"internal", "system", "memory"}
TRAINING = {
    "batch_size": 4,
    "losses": [],
    "phases": [{"name": "all", "train": ["coarse"], "steps": 1}],
}
CONFIG = {"channels": 4, "multipliers": [1, 1], "steps": 1}
SPEC: dict[str, Any] = {
    "$schema": "https://example.org/spec.json",
    "name": "mutant",
    "description": "a text",
    "license": "mit",
    "tags": ["one"],
    "data": {"source": "folder", "config": {"path": "pictures"}},
    "stages": [{"name": "coarse", "kind": "flow.v1", "config": CONFIG}],
    "training": TRAINING,
    "evaluation": {"metrics": ["kid"], "extractor": "small", "samples": 10, "subset_size": 5},
    "publish": {"to": "out"},
    "requires": ["cascadezoo"],
    "project_urls": {"cascadezoo-wave": "https://example.org/wave"},
}
SOURCES: dict[str, dict[str, Any]] = {
    "folder": {"path": "pictures", "test_path": "pictures"},
    "npz": {"path": "data.npz", "images": "images", "labels": "labels"},
    "mnist": {"root": "mnist", "download": False},
}

NASTY = [
    "\0",
    "pictures\0",
    "~nobody",
    "~nobody/pictures",
    "~",
    "a" * 5_000,
    "a/" * 2_000,
    "a" * 300,
    "\ud800",
    "",
    " ",
    ".",
    "..",
    "../" * 50,
    "/",
    "/dev/zero",
    "/dev/null",
    "/proc/self/mem",
    "pipe",
    "pictures/0.png",
    "a\nb",
    "\u202e",
    "-",
    "%s{0}",
    "http://example.org/a",
    "hf://a/b@c",
    "org/name@",
    "flow.v1",
    "timm:a\0b",
]


def strings(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places of all strings, and of the keys of all objects as (..., key, None)."""
    if isinstance(node, str):
        yield path
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from strings(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from strings(value, (*path, index))


def spec_of(source: str) -> dict[str, Any]:
    data = copy.deepcopy(SPEC)
    data["data"] = {"source": source, "config": copy.deepcopy(SOURCES[source])}
    return data


PLACES = [(source, place) for source in SOURCES for place in strings(spec_of(source))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder, with a dataset of each kind and a pipe."""
    path = tmp_path_factory.mktemp("strings")
    (path / "pictures").mkdir()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    for index, image in enumerate(images):
        Image.fromarray(image).save(path / "pictures" / f"{index}.png")
    np.savez(path / "data.npz", images=images, labels=np.arange(12) % 3)
    os.mkfifo(path / "pipe")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.delenv("CASCADEZOO_DEBUG", raising=False)
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield path


def mutated(source: str, place: tuple[str | int, ...], text: str, key: bool) -> dict[str, Any]:
    data = spec_of(source)
    node: Any = data
    for part in place[:-1]:
        node = node[part]
    if key and isinstance(node, dict):
        node[text] = node.pop(place[-1])
    else:
        node[place[-1]] = text
    return data


def run(*args: str, spec: dict[str, Any]) -> tuple[int, str | None]:
    """The exit code and the code of the error."""
    text = json.dumps(spec)  # lone surrogates are escaped
    result = CliRunner().invoke(main, [*args, "--json"], input=text, prog_name="cascadezoo")
    if result.exit_code == 0:
        json.loads(result.stdout)
        return 0, None
    error = json.loads(result.stderr.splitlines()[-1])["error"]
    return result.exit_code, error["code"]


mutations = st.tuples(
    st.sampled_from(PLACES),
    st.sampled_from(NASTY) | st.text(max_size=40),
    st.sampled_from([False, False, False, True]),
)


@pytest.mark.parametrize("command", ["validate", "plan"])
@example(mutation=(("npz", ("data", "config", "path")), "\0", False))
@example(mutation=(("folder", ("data", "config", "path")), "\0", False))
@example(mutation=(("folder", ("data", "config", "path")), "~nobody/x", False))
@example(mutation=(("npz", ("data", "config", "path")), "pipe", False))
@example(mutation=(("npz", ("data", "config", "path")), "a/" * 2_000, False))
@example(mutation=(("folder", ("data", "source")), "a" * 5_000, False))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(mutation=mutations)
def test_any_text_is_valid_or_an_error_of_the_spec(
    folder: Path, command: str, mutation: tuple[Any, str, bool]
) -> None:
    (source, place), text, key = mutation
    exit_code, code = run(command, "-", spec=mutated(source, place, text, key))
    assert (exit_code, code in UNEXPECTED) in ((0, False), (2, False)), (place, text, code)


@pytest.mark.parametrize("text", ["\0", "~nobody/x", "a" * 4_000, "a/" * 2_000, "/dev/zero"])
@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("folder", ("data", "config", "test_path")),
        ("npz", ("data", "config", "images")),
        ("mnist", ("data", "config", "root")),
        ("npz", ("evaluation", "metrics", 0)),
        ("npz", ("evaluation", "extractor")),
        ("npz", ("publish", "to")),
    ],
)
def test_build_refuses_what_only_it_opens(
    folder: Path, tmp_path: Path, source: str, place: tuple[str | int, ...], text: str
) -> None:
    out = str(tmp_path / "run")
    exit_code, code = run(
        "build", "-", "-o", out, "--device", "cpu", spec=mutated(source, place, text, False)
    )
    assert exit_code in (0, 2), code
    assert code not in UNEXPECTED
