"""Every generator with every upsampler and refiner of the study: built, trained, saved."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from cascadezoo.build.build import build_cascade
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.base import ImageData
from cascadezoo.data.loader import DeviceLoader
from cascadezoo.data.shapes import ShapesConfig, load
from cascadezoo.spec import load_spec
from cascadezoo.train.engine import make_accelerator
from cascadezoo.train.trainer import Trainer

GENERATORS: dict[str, dict[str, Any]] = {
    "diffusion.v1": {"channels": 8, "latent": 8, "layers": 2, "timesteps": 3},
    "dae.v1": {"channels": 8, "multipliers": [1], "levels": 3},
    "resnet.v1": {"channels": 8, "blocks": 1, "candidates": 2},
    "flow.v1": {"channels": 8, "multipliers": [1], "steps": 2},
}
UPSAMPLERS: dict[str, dict[str, Any]] = {
    "pixelshuffle.v1": {"hidden": 8, "blocks": 1},
    "resnet-upsampler.v1": {"hidden": 8, "blocks": 1},
    "transposed.v1": {"hidden": 8, "blocks": 1},
    "interpolate.v1": {},
}
REFINERS: dict[str, dict[str, Any]] = {
    "vit.v1": {"features": 8, "heads": 2, "blocks": 1},
    "conv-refiner.v1": {"hidden": 8, "layers": 2},
    "resnet-refiner.v1": {"hidden": 8, "blocks": 1},
    "identity.v1": {},
}
BARE = {"interpolate.v1", "identity.v1"}

ALL = list(itertools.product(GENERATORS, UPSAMPLERS, REFINERS))
# A Latin square: each pair of kinds stands together once.
PAIRS = [
    (g, u, list(REFINERS)[(i + j) % 4])
    for i, g in enumerate(GENERATORS)
    for j, u in enumerate(UPSAMPLERS)
]
REST = [row for row in ALL if row not in PAIRS]


def spec(generator: str, upsampler: str, refiner: str, *, named: bool = True) -> dict[str, Any]:
    """The study's three phases of two steps each; ``named`` also names stages without parameters."""
    later = [
        name for name, kind in (("up", upsampler), ("refine", refiner)) if named or kind not in BARE
    ]
    phases: list[dict[str, Any]] = [{"name": "coarse", "train": ["coarse"], "steps": 2}]
    if any(kind not in BARE for kind in (upsampler, refiner)):
        falling = {"start": 0.9, "end": 0.1}
        phases.append({"name": "cascade", "train": later, "steps": 2, "teacher_forcing": falling})
    ending = {"start": 0.1, "end": 0.0}
    phases.append(
        {
            "name": "joint",
            "train": ["coarse", *later],
            "steps": 2,
            "joint": True,
            "teacher_forcing": ending,
        }
    )
    return {
        "name": "combination",
        "data": {"source": "shapes", "config": {"size": 16, "count": 32, "test_count": 8}},
        "stages": [
            {"name": "coarse", "kind": generator, "config": GENERATORS[generator]},
            {"name": "up", "kind": upsampler, "config": UPSAMPLERS[upsampler]},
            {"name": "refine", "kind": refiner, "config": REFINERS[refiner]},
        ],
        "training": {"batch_size": 8, "losses": [], "phases": phases, "log_steps": 1},
        "evaluation": {"metrics": [], "extractor": "small"},
    }


@pytest.fixture(scope="module")
def shapes() -> ImageData:
    return load(ShapesConfig(size=16, count=32, test_count=8), "train")


def weights(cascade: Cascade) -> dict[str, torch.Tensor]:
    return {
        name: torch.cat([p.detach().flatten() for p in stage.parameters()]).clone()
        for name, stage in cascade.named_stages()
        if list(stage.parameters())
    }


def trained(data: dict[str, Any], shapes: ImageData) -> Cascade:
    cascade = Cascade.from_spec(data)
    loader = DeviceLoader(shapes, batch_size=8, seed=0, device="cpu")
    Trainer(cascade, loader, make_accelerator(torch.device("cpu"), "fp32"), data=shapes).run()
    return cascade


def check(kinds: tuple[str, str, str], folder: Path, shapes: ImageData) -> None:
    data = spec(*kinds)
    before = weights(Cascade.from_spec(data))
    cascade = trained(data, shapes)
    after = weights(cascade)
    learning = [n for n, k in zip(cascade.names, kinds, strict=True) if k not in BARE]
    assert list(after) == list(before) == learning
    for name in learning:
        assert torch.isfinite(after[name]).all(), name
        assert not torch.equal(after[name], before[name]), f"{name} did not change"
    images = cascade.sample(3, seed=1, return_stages=True)
    assert [tuple(rows.shape) for rows in images.values()] == [
        (3, 3, 8, 8),
        (3, 3, 16, 16),
        (3, 3, 16, 16),
    ]
    assert all(rows.isfinite().all() and rows.abs().max() <= 1 for rows in images.values())
    again = Cascade.from_pretrained(cascade.save_pretrained(folder))
    loaded = again.sample(3, seed=1, return_stages=True)
    assert all(torch.allclose(loaded[n], rows, rtol=0, atol=1e-5) for n, rows in images.items())


def test_every_pair_of_kinds_is_covered() -> None:
    assert len(ALL) == 64
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert len({(row[first], row[second]) for row in PAIRS}) == len(PAIRS) == 16


@pytest.mark.parametrize("kinds", PAIRS, ids="-".join)
def test_a_combination_is_trained_sampled_and_saved(
    kinds: tuple[str, str, str], tmp_path: Path, shapes: ImageData
) -> None:
    check(kinds, tmp_path, shapes)


@pytest.mark.slow
@pytest.mark.parametrize("kinds", REST, ids="-".join)
def test_the_other_combinations(
    kinds: tuple[str, str, str], tmp_path: Path, shapes: ImageData
) -> None:
    check(kinds, tmp_path, shapes)


@pytest.mark.parametrize(
    "kinds",
    [
        ("flow.v1", "interpolate.v1", "conv-refiner.v1"),
        ("dae.v1", "pixelshuffle.v1", "identity.v1"),
        ("diffusion.v1", "interpolate.v1", "identity.v1"),
    ],
    ids="-".join,
)
def test_naming_a_stage_without_parameters_makes_no_difference(
    kinds: tuple[str, str, str], shapes: ImageData
) -> None:
    named, unnamed = (trained(spec(*kinds, named=n), shapes) for n in (True, False))
    one, two = weights(named), weights(unnamed)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_build_with_stages_without_parameters(tmp_path: Path) -> None:
    data = spec("resnet.v1", "interpolate.v1", "identity.v1")
    build_cascade(data, tmp_path / "run", device="cpu")
    model = tmp_path / "run" / "model"
    assert sorted(p.parent.name for p in model.glob("stages/*/model.safetensors")) == [
        "coarse",
        "refine",
        "up",
    ]
    images = Cascade.from_pretrained(tmp_path / "run").sample(2, return_stages=True)
    assert torch.equal(images["refine"], images["up"])


@pytest.mark.parametrize("refiner", ["vit.v1", "identity.v1"])
def test_default_phases_omit_stages_without_parameters(refiner: str) -> None:
    data = spec("flow.v1", "interpolate.v1", refiner)
    del data["training"]["phases"]
    phases = load_spec(data).spec.training.phases or []
    if refiner == "identity.v1":
        assert [p.train for p in phases] == [["coarse"]]
    else:
        assert [p.train for p in phases] == [["coarse"], ["refine"], ["coarse", "refine"]]
