"""``dae.v1`` and ``resnet.v1``: what they train on, how they sample, and that they learn."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from errors_help import raises, raises_config
from pydantic import ValidationError
from stage_cases import ENTRIES, SMALL, Case, request

from cascadezoo.errors import SampleError
from cascadezoo.spec.configs import ImageShape
from cascadezoo.stages.base import StageInputs, TrainContext
from cascadezoo.util.rng import Draw

DAE, RESNET = SMALL["dae.v1"], SMALL["resnet.v1"]
DAE_SHAPE = ImageShape(3, 16)


def with_settings(case: Case, **settings: Any) -> Case:
    return dataclasses.replace(case, settings={**case.settings, **settings})


# --- dae.v1


def test_images_become_noisier_by_the_same_noise_each_time() -> None:
    """The levels of a training step are those of a chain of corruptions, drawn evenly."""
    stage: Any = with_settings(DAE, sigma=0.5, levels=9).stage()
    target = torch.zeros(4000, 3, 4, 4)
    inputs = stage.preprocess(target, None, TrainContext(Draw(0), torch.zeros(4000).long()))
    spread = (inputs.noisy / inputs.noise)[:, 0, 0, 0]
    # noisy is divided by what image and noise deviate by: s / sqrt(s^2 + 1/4).
    deviations = (spread.square() / (1 - spread.square())).sqrt() / 2
    levels = (deviations / 0.5).square()
    assert torch.allclose(levels, levels.round(), atol=1e-2)
    counts = torch.bincount(levels.round().long(), minlength=10)[1:]
    assert counts.sum() == 4000
    assert counts.min() > 360
    chain, draw = torch.zeros(20_000), Draw("chain")
    for level in range(1, 10):
        chain = chain + 0.5 * draw.randn(20_000)
        assert float(chain.std()) == pytest.approx(stage.config.deviation(level), rel=0.03)


@pytest.mark.parametrize("renoise", [0.0, 0.5, 1.0])
def test_sampling_goes_down_the_levels(renoise: float) -> None:
    """An untrained network reconstructs grey, so that what is left is the noise of each level."""
    case = with_settings(DAE, levels=16, renoise=renoise)
    stage = case.stage(fresh=True)
    seen: list[float] = []
    sample_request = request(case, 0, 64, watch=lambda x: seen.append(float(x.std())), steps=5)
    with torch.no_grad():
        images = stage.sample(None, sample_request)
    # Levels 16, 12, 9, 5, 1 are visited; after each reconstruction comes the noise of the next.
    assert seen == pytest.approx([0.5 * math.sqrt(k) for k in (12, 9, 5, 1)] + [0.0], rel=0.03)
    assert images.abs().max() == 0


def test_kept_noise_belongs_to_its_image() -> None:
    kept, fresh = [], []
    for renoise, seen in ((0.0, kept), (1.0, fresh)):
        case = with_settings(DAE, renoise=renoise)
        copy = seen.append
        stage = case.stage(fresh=True).requires_grad_(False)
        stage.sample(None, request(case, 0, 4, watch=lambda x, copy=copy: copy(x.clone())))
    assert torch.allclose(kept[1] / kept[0], torch.tensor(math.sqrt(4 / 5)), rtol=1e-3)
    correlation = torch.corrcoef(torch.stack([fresh[0].flatten(), fresh[1].flatten()]))[0, 1]
    assert abs(float(correlation)) < 0.1


def test_steps_and_evaluations_of_the_dae() -> None:
    stage = DAE.stage()
    assert [stage.network_evaluations(steps) for steps in (None, 1, 4)] == [6, 1, 4]
    assert stage.network_evaluations(4, guidance=3.0) == 8
    with raises(SampleError, "sample-steps-too-many", steps=7):
        stage.sample(None, request(DAE, 0, 1, steps=7))
    config = ENTRIES["dae.v1"].load_config()
    with pytest.raises(ValidationError) as caught:
        config(steps=26)
    assert [row["loc"] for row in caught.value.errors()] == [("steps",)]
    assert list(config().advice(ImageShape(3, 16), 10)) == []
    assert len(list(config(levels=4).advice(DAE_SHAPE, 10))) == 1


# --- resnet.v1


def test_the_nearest_of_the_candidates_learns() -> None:
    case = with_settings(RESNET, candidates=7)
    stage: Any = case.stage()
    target, labels = case.target(5), case.labels(5)
    inputs = stage.preprocess(target, None, TrainContext(Draw(3), labels))
    draw = Draw(3)
    noises = [draw.randn(5, 3, 12, 12) for _ in range(7)]
    with torch.no_grad():
        made = torch.stack([stage.network(noise, labels) for noise in noises])
    distances = (made - target).square().flatten(2).mean(2)
    best = distances.argmin(0)
    assert torch.equal(inputs.noise, torch.stack([noises[b][i] for i, b in enumerate(best)]))
    output = stage(inputs)
    assert output.losses["mse"].item() == pytest.approx(float(distances.min(0).values.mean()))
    assert len(set(best.tolist())) > 1


def two_shades(candidates: int) -> torch.Tensor:
    """What a generator makes after learning images that are all light grey or all dark grey."""
    settings = {"channels": 8, "blocks": 1, "candidates": candidates}
    case = Case("resnet.v1", settings, size=8, channels=1, num_classes=None)
    stage = case.stage(fresh=True)
    optimizer = torch.optim.AdamW(stage.parameters(), lr=5e-3)
    for step in range(150):
        shade = Draw("shade", step).randint(0, 2, 16).float() - 0.5
        target = shade[:, None, None, None].expand(16, 1, 8, 8)
        inputs = stage.preprocess(target, None, TrainContext(Draw(0, step)))
        optimizer.zero_grad()
        stage(inputs).losses["mse"].backward()
        optimizer.step()
    with torch.no_grad():
        return stage.eval().sample(None, request(case, 0, 64)).mean((1, 2, 3))


@pytest.mark.slow
def test_candidates_prevent_learning_the_mean_image() -> None:
    mean, both = two_shades(1), two_shades(8)
    assert mean.abs().max() < 0.2
    assert (both.abs() > 0.3).float().mean() > 0.8
    assert 0.1 < float((both > 0).float().mean()) < 0.9


def test_resnet_pads_odd_sizes_and_rejects_too_many_halvings() -> None:
    case = Case("resnet.v1", {"channels": 8, "candidates": 2, "halvings": 3}, size=9)
    assert case.stage().sample(None, request(case, 0, 2)).shape == (2, 3, 9, 9)
    with raises_config("halvings", "levels"):
        ENTRIES["resnet.v1"].load_config()(halvings=3).fit(ImageShape(3, 4))


def test_resnet_labels() -> None:
    stage = RESNET.stage()
    one = stage.sample(None, request(RESNET, 0, 2, labels=torch.tensor([0, 0])))
    two = stage.sample(None, request(RESNET, 0, 2, labels=torch.tensor([1, 1])))
    assert (one - two).abs().max() > 1e-3
    assert stage.sample(None, request(RESNET, 0, 2, labels=None)).shape == (2, 3, 12, 12)
    bare = dataclasses.replace(RESNET, num_classes=None)
    with raises(SampleError, "sample-no-labels"):
        bare.stage().sample(None, request(bare, 0, 2, labels=torch.tensor([0, 1])))
    with pytest.raises(TypeError):
        stage.preprocess(RESNET.target(2), None, TrainContext(Draw(0)))


@pytest.mark.parametrize("case", [DAE, RESNET], ids=str)
def test_forward_needs_the_inputs_from_preprocess(case: Case) -> None:
    with pytest.raises(TypeError):
        case.stage()(StageInputs(target=case.target(2)))
