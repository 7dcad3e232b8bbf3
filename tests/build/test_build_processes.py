"""Builds in several processes on images and callbacks that are objects, with figures on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from build_cases import weights
from process_builds import build
from process_cases import run_processes

from cascadezoo.train.checkpoint import CheckpointStore

pytestmark = pytest.mark.slow

Rows = list[tuple[str, Any]]


def spec(**settings: Any) -> dict[str, Any]:
    """A latent cascade whose decoder trains last, so that it measures its latents at the end."""
    keep = settings.pop("keep", "best")
    return {
        "name": "together",
        "stages": [
            {
                "name": "draw",
                "kind": "flow.v1",
                "config": {"channels": 8, "multipliers": [1], "attention": [], "steps": 2},
            },
            {
                "name": "decode",
                "kind": "autoencoder.v1",
                "config": {"latent_channels": 2, "channels": 8, "multipliers": [1, 2]},
            },
        ],
        "training": {
            "batch_size": 16,
            "losses": [],
            "log_steps": 2,
            "compile": False,
            "precision": "fp32",
            # Adam otherwise makes a step of full size of the rounding of a small gradient.
            "optimizer": {"eps": 1e-3},
            "phases": [
                {"name": "autoencoder", "train": ["decode"], "steps": 3},
                {"name": "draw", "train": ["draw"], "steps": 3},
                {
                    "name": "decoder",
                    "train": ["decode"],
                    "epochs": 3,
                    "optimizer": {"lr": 0.03, "eps": 1e-3},
                },
            ],
            **settings,
        },
        "evaluation": {
            "metrics": ["kid"],
            "extractor": "small",
            "samples": 20,
            "subset_size": 10,
            "subsets": 2,
            "batch_size": 8,
            "in_loop": {
                "every_epochs": 1,
                "samples": 20,
                "subset_size": 10,
                "subsets": 2,
                "keep": keep,
            },
        },
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows]:
    """The build in one process with the best weights, which are not the last ones."""
    out = tmp_path_factory.mktemp("alone") / "run"
    rows = build(spec(), str(out))
    values = [value for phase, _, value in of(rows, "figure") if phase == "decoder"]
    assert len(values) == 3
    assert values[-1] > min(values)
    return out, rows


def of(rows: Rows, name: str) -> list[Any]:
    return [value for row, value in rows if row == name]


def last_weights(run: Path) -> dict[str, torch.Tensor]:
    """The weights at the end of the training, named as in :func:`build_cases.weights`."""
    newest = CheckpointStore(run / "checkpoints").newest()
    assert newest is not None
    names = [stage["name"] for stage in spec()["stages"]]
    split = ((key.partition("."), value) for key, value in newest.weights.items())
    return {f"{names[int(number)]}/{key}": value for (number, _, key), value in split}


@pytest.mark.parametrize(
    ("parallel", "keep"), [("ddp", "best"), ("fsdp", "best"), ("fsdp", "last")]
)
def test_two_processes_build_the_model_of_one(
    alone: tuple[Path, Rows], tmp_path: Path, parallel: str, keep: str
) -> None:
    run, expected = alone
    out = tmp_path / "run"
    first, other = run_processes(2, build, spec(parallel=parallel, keep=keep), str(out))
    assert isinstance(first, list), first
    assert other == []  # only the first process has callbacks

    figures, same = of(first, "figure"), of(expected, "figure")
    assert [row[:2] for row in figures] == [row[:2] for row in same]
    during = [row for row in same if row[0] is not None]
    for row, one in zip(figures, during, strict=False):
        assert row[2] == pytest.approx(one[2], rel=1e-4)
    for name in ("begin", "phase", "samples", "model", "close"):
        assert of(first, name) == of(expected, name) != []

    made, best, last = weights(out / "model"), weights(run / "model"), last_weights(run)
    assert any(not torch.allclose(best[name], last[name], atol=1e-3) for name in best)
    for name, value in (best if keep == "best" else last).items():
        torch.testing.assert_close(made[name], value, rtol=1e-4, atol=1e-5, msg=name)
    assert made["decode/scale"] != 1
