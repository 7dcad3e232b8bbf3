"""The wording of errors about model folders, builds, searches and reports, and of card faults."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from cascadezoo.build.match_parameters import match_cascade, match_parameters
from cascadezoo.build.run_folder import RunFolder
from cascadezoo.cards.check_card import card_faults, claim_faults
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.errors import CascadezooError
from cascadezoo.model_folder.integrity import check_files, refuse_bundled, require_writable
from cascadezoo.model_folder.layout import read_config
from cascadezoo.model_folder.trained_spec import trained_spec
from cascadezoo.report.guidance_grid import guidance_grid
from cascadezoo.report.images import grid, stage_strip
from cascadezoo.report.projection import project
from cascadezoo.report.tables import Column, PageTable
from cascadezoo.report.trajectory import sample_trajectory
from cascadezoo.spec import read_spec
from cascadezoo.tune.grid import make_grid
from cascadezoo.zoo.list import bundled_folder, find

MODEL = Path("model")
PAPER = read_spec("paper-baseline")[0]


@functools.cache
def cascade() -> Cascade:
    return Cascade.from_spec("shapes-tiny")


def missing_file() -> None:
    (MODEL / "samples.png").unlink()
    check_files(MODEL, read_config(MODEL))


def short_file() -> None:
    (MODEL / "metrics.json").write_text("{}")
    check_files(MODEL, read_config(MODEL))


def locked_run() -> None:
    Path("run").mkdir()
    with FileLock("run/.lock"), RunFolder(Path("run")).locked():
        pass


MESSAGES: dict[str, tuple[Callable[[], object], str]] = {
    "a missing file of a model": (
        missing_file,
        "model: samples.png is missing\nHint: pull or copy the model again",
    ),
    "a short file of a model": (
        short_file,
        "model: metrics.json has 2 bytes, but config.json says 6715\n"
        "Hint: pull or copy the model again",
    ),
    "writing to a bundled model": (
        lambda: require_writable(bundled(), "shapes-tiny"),
        "shapes-tiny is read-only: it ships with cascadezoo\n"
        "Hint: copy it: cascadezoo pull shapes-tiny --to models/shapes-tiny",
    ),
    "writing inside a bundled model": (
        lambda: refuse_bundled(bundled() / "x"),
        "{bundled}/x is inside a model that ships with cascadezoo, which is read-only\n"
        "Hint: choose another path",
    ),
    "a setting of a trained model": (
        lambda: trained_spec(MODEL, ["data.size=64"]),
        "--set 'data.size=64': a trained model allows changes only to the location of its data and "
        "to its evaluation\n"
        "Hint: use settings such as --set data.config.path=images.npz or --set evaluation.split=test",
    ),
    "two builds in one folder": (
        locked_run,
        "another build is using run\n"
        "Hint: wait for it, stop it, or choose another folder with -o DIR",
    ),
    "an unknown stage to match": (
        lambda: match_parameters(PAPER, {"x": 10}),
        "paper-baseline has no stage 'x'\nHint: its stages are coarse, up, refine",
    ),
    "no parameters to match": (
        lambda: match_cascade(PAPER, 0),
        "cannot match 0 parameters\nHint: give a number from 1 to 1,000,000,000,000",
    ),
    "a number of parameters that no width gives": (
        lambda: match_parameters(PAPER, {"refine": 12}),
        "stage 'refine' (vit.v1) cannot have about 12 parameters: the nearest number is 4,035 "
        "(features 8)\n"
        "Hint: request 4,035, or change other fields that determine the number",
    ),
    "an unknown parameter to search": (
        lambda: make_grid(cascade(), ["magic"]),
        "unknown parameter 'magic'\nHint: use s, steps, guidance, sampler, eta, restart, sampling_schedule, truncated",
    ),
    "a parameter that a stage does not support": (
        lambda: make_grid(cascade(), ["up.steps"]),
        "stage 'up' of shapes-tiny does not support steps\nHint: use coarse.steps",
    ),
    "an invalid value to search": (
        lambda: make_grid(cascade(), ["steps"], {"steps": ["1.5"]}),
        "invalid value '1.5' of steps: it must be an integer of at least 1\n"
        "Hint: give values such as --values steps=A,B,...",
    ),
    "too many settings": (
        lambda: make_grid(cascade(), ["guidance"], {"guidance": [f"{i}" for i in range(10_001)]}),
        "a search of 10001 settings is too large: at most 10000 are possible\n"
        "Hint: give fewer values with --values",
    ),
    "a trajectory of a stage without steps": (
        lambda: sample_trajectory(cascade(), 1, stage="up"),
        "stage 'up' does not sample in steps, so it has no trajectory\n"
        "Hint: choose coarse with --stage",
    ),
    "a trajectory of one state": (
        lambda: sample_trajectory(cascade(), 1, columns=1),
        "a trajectory needs at least 2 states, not 1\nHint: use 2 or more",
    ),
    "no images": (
        lambda: grid(torch.zeros(0, 3, 8, 8)),
        "no images to draw\nHint: pass at least one image",
    ),
    "a ragged strip": (
        lambda: stage_strip({"a": torch.zeros(2, 3, 8, 8), "b": torch.zeros(3, 3, 8, 8)}),
        "a strip needs an equal number of images of every stage, but got {{'a': 2, 'b': 3}}\n"
        "Hint: pass the result of sample(..., return_stages=True)",
    ),
    "a ragged grid": (
        lambda: guidance_grid({1.0: torch.zeros(2, 3, 8, 8), 2.0: torch.zeros(1, 3, 8, 8)}),
        "rows and heads of a grid need one length, but have [1, 2]\n"
        "Hint: sample the same number of images with each scale",
    ),
    "features of different lengths": (
        lambda: project(
            torch.zeros(9, 4), torch.zeros(2, 5), "pca", extractor="small", split="test"
        ),
        "features (9, 4) and (2, 5) do not span a common plane\n"
        "Hint: use more images: --features 500",
    ),
    "a row of another length": (
        lambda: PageTable([Column("a"), Column("b")], [["x"]], label="t"),
        "table 't': a row has 1 cells for 2 columns",
    ),
}


def bundled() -> Path:
    folder = bundled_folder(find("shapes-tiny"))
    assert folder is not None
    return folder


@pytest.mark.parametrize("case", MESSAGES)
def test_wording(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(bundled(), tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    act, expected = MESSAGES[case]
    with pytest.raises(CascadezooError) as caught:
        act()
    assert str(caught.value) == expected.format(bundled=bundled())


@pytest.mark.parametrize(
    ("front", "fault"),
    [
        ("# x", "the front matter between two lines of --- is missing"),
        ("---\n- a\n---\n", "the front matter is not a mapping of keys to values"),
        ("---\na: [\n---\n", "the front matter is not valid YAML at line 3"),
        ("---\na: &b 1\nc: *b\n---\n", "the front matter has aliases (*name), which are not allowed"),
        ("---\na: 2020-99-99\n---\n", "the front matter has an invalid value, such as a date that does not exist"),
        ("---\nlibrary_name: cascadezoo\ntags: x\n---\n", "tags is not a list of strings"),
    ],
)  # fmt: skip
def test_faults_of_metadata(front: str, fault: str) -> None:
    assert card_faults(front) == [fault]


def test_faults_of_claims() -> None:
    figure = {"name": "kid.small.n9", "metric": "kid", "value": 0.5, "n": 9, "seed": 0}
    card = (
        "---\nmodel-index:\n- results:\n  - metrics:\n"
        "    - {name: kid.small.n9, value: 0.25, args: {seed: 1}}\n"
        "    - {name: fid.n9, value: 1}\n---\n"
        "| figure | metric | value |\n| --- | --- | --- |\n"
        "| `kid.small.n9` | KID | 0.25 |\n| `fid.n9` | FID | 1 |\n\n"
        "| stage | role | real input | generated input | mismatch |\n| --- | --- | --- | --- | --- |\n"
        "| up | upsampler | 0.1 | 0.25 | |\n| x | upsampler | | 1 | |\n"
    )
    rows = [{"stage": "up", "role": "upsampler", "generated": figure}]
    assert claim_faults(card, {"figures": [figure], "attribution": rows}) == [
        "the model-index claims kid.small.n9 = 0.25; metrics.json has 0.5",
        "the model-index claims seed 1 for kid.small.n9; metrics.json has 0",
        "the model-index claims fid.n9, which is not in metrics.json",
        "the table claims kid.small.n9 = 0.25; metrics.json has 0.5000",
        "the table claims fid.n9, which is not in metrics.json",
        "the table of stages claims 0.1 for up; metrics.json has no value",
        "the table of stages claims 0.25 for up; metrics.json has 0.5000",
        "the table of stages claims x, which is not in metrics.json",
    ]
