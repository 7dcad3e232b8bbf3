"""The checks of stages that sample without noise."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cascadezoo import build_cascade, load_spec
from cascadezoo.build.converged import falling_losses, noiseless_stages, worse_without_noise
from cascadezoo.cards.check_card import card_faults
from cascadezoo.data.pixels import to_float
from cascadezoo.data.split import load_split
from cascadezoo.evaluate.features.base import load_extractor
from cascadezoo.evaluate.options import EvaluationOptions
from cascadezoo.model_folder.metrics_file import read_metrics
from cascadezoo.report.course import Course, read_course
from cascadezoo.util.text import markdown_text as plain


def course(losses: list[float], *, phase: str = "base", index: int = 0, first: int = 0) -> Any:
    return [
        {
            "event": "log",
            "phase": phase,
            "phase_index": index,
            "step": first + 10 * (number + 1),
            "losses": {"draw.mse": loss, "up.mse": 1.0},
        }
        for number, loss in enumerate(losses)
    ]


def noisy(values: list[float], seed: int = 0, scale: float = 0.02) -> list[float]:
    draw = random.Random(seed)
    return [value + draw.gauss(0, scale) for value in values]


def warned(rows: Any, *stages: str) -> list[str]:
    found: Course = read_course(rows)
    return list(falling_losses(found, stages or ("draw",)))


FALLING = [1.0 - 0.005 * step for step in range(100)]


def test_a_loss_that_falls_to_the_end_is_found() -> None:
    (text,) = warned(course(noisy(FALLING)))
    assert text.startswith("phase base: the loss draw.mse still fell by ")
    assert text.endswith("train longer")


@pytest.mark.parametrize("seed", range(20))
def test_a_flat_loss_is_not(seed: int) -> None:
    flat = [max(0.3, 1.0 - 0.02 * step) for step in range(100)]
    assert warned(course(noisy(flat, seed))) == []


def test_what_says_nothing() -> None:
    assert warned(course(noisy(FALLING)[:30])) == []  # six losses in the last fifth
    assert warned(course(noisy(FALLING)), "up") == []  # another stage
    assert warned(course(noisy(FALLING, scale=0.5))) == []  # within its noise
    assert warned([]) == []


def test_only_the_last_phase_of_a_stage_counts() -> None:
    flat = [0.3] * 100
    later = course(noisy(flat), phase="joint", index=1, first=1000)
    assert warned(course(noisy(FALLING)) + later) == []
    later = course(noisy(FALLING), phase="joint", index=1, first=1000)
    assert warned(course(noisy(flat)) + later)[0].startswith("phase joint")


def test_stages_that_sample_without_noise() -> None:
    def stages(*settings: str) -> dict[str, str]:
        path = "stages.coarse.config"
        changes = [f"{path}.{setting}" for setting in settings]
        return noiseless_stages(load_spec("diffusion-pixelshuffle-vit-tiny", settings=changes))

    assert stages() == {}
    assert stages("sampler=ddim", "eta=0.5") == {}
    assert stages("sampler=ddim") == {"coarse": "ddim with eta 0"}
    assert stages("sampler=dpmpp-2m") == {"coarse": "dpmpp-2m"}
    assert noiseless_stages(load_spec("shapes-demo")) == {}  # flows have no other sampler


def test_a_model_that_is_better_with_noise_is_found() -> None:
    data = {"data.source=shapes", 'data.config={"size": 16, "count": 64}'}
    resolved = load_spec("diffusion-pixelshuffle-vit-tiny", settings=sorted(data))
    real = load_split(resolved, "train")
    options = EvaluationOptions(extractor="small", n=40, subsets=10, subset_size=20)
    good = to_float(torch.from_numpy(real.images))
    seen: list[Any] = []

    def draw(better: bool) -> Any:
        def sample(first: int, count: int, request: Any) -> torch.Tensor:
            seen.append(request)
            if bool(request) == better:
                return good[first : first + count]
            noise = torch.randn(good.shape, generator=torch.Generator().manual_seed(0))
            return noise[first : first + count].clamp(-1, 1)

        return sample

    stages = {"coarse": "dpmpp-2m"}
    small = load_extractor("small")
    text = worse_without_noise(draw(True), stages, real, options, small)
    assert text is not None
    assert "40 images" in text
    assert "coarse (dpmpp-2m)" in text
    assert {} in seen
    assert {"sampler": {"coarse": "ddim"}, "options": {"eta": {"coarse": 1.0}}} in seen
    assert worse_without_noise(draw(False), stages, real, options, small) is None
    single = replace(options, subsets=1)  # has no spread, so no difference is clear
    assert worse_without_noise(draw(True), stages, real, single, small) is None


@pytest.mark.slow
def test_a_build_warns_of_grain_in_its_result_and_on_the_card(tmp_path: Path) -> None:
    """60 steps leave a network that removes too little noise."""
    config = {"channels": 8, "timesteps": 50, "sampler": "ddim", "eta": 0, "steps": 20}
    phase = {"name": "all", "train": ["draw"], "steps": 60}
    spec = {
        "name": "grain",
        "data": {"source": "shapes", "config": {"size": 8, "count": 400}},
        "stages": [{"name": "draw", "kind": "diffusion.v2", "config": config}],
        "training": {"batch_size": 32, "optimizer": {"lr": 0.0005}, "phases": [phase]},
        "evaluation": {
            "metrics": ["kid"],
            "extractor": "small",
            "samples": 400,
            "subset_size": 200,
        },
    }
    built = build_cascade(spec, tmp_path / "run", device="cpu", precision="fp32")
    (warning,) = built.warnings
    assert read_metrics(built.model).training.warnings == [warning]
    card = (built.model / "README.md").read_text()
    assert f"- {plain(warning)}\n" in card
    assert card_faults(card) == []
    again = build_cascade(spec, tmp_path / "run", device="cpu", precision="fp32")
    assert again.already_done
    assert again.warnings == (warning,)
