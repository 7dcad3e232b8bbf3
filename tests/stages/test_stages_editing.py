"""What stages state about editing, second labels and sizes, for every built-in kind."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from stage_cases import SMALL, Case

from cascadezoo.stages.base import Edit, SampleRequest
from cascadezoo.util.rng import ImageDraw

COUNT = 2
KINDS = list(SMALL.values())


def request_of(case: Case) -> SampleRequest:
    labels = case.labels(COUNT)
    return SampleRequest(COUNT, ImageDraw(1, "stage", 0, COUNT), labels)


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_any_size(case: Case) -> None:
    stage = case.stage().eval()
    shape = case.geometry().input
    if not stage.any_size or shape is None:
        assert case.kind.startswith(("vit", "dit", "autoencoder")) or case.role == "generator"
        return
    factor = case.size // shape.size
    wide = torch.rand(COUNT, shape.channels, shape.size + 5, 2 * shape.size + 1) * 2 - 1
    with torch.no_grad():
        image = stage.sample(wide, request_of(case))
    assert image.shape[2:] == (wide.shape[2] * factor, wide.shape[3] * factor)
    assert bool(torch.isfinite(image).all())


@pytest.mark.parametrize("case", [c for c in KINDS if c.stage().edits], ids=str)
def test_edits(case: Case) -> None:
    stage, upstream, image = case.stage().eval(), case.upstream(COUNT), case.target(COUNT)
    mask = torch.zeros(COUNT, 1, case.size, case.size, dtype=torch.bool)
    mask[..., : case.size // 2] = True
    with torch.no_grad():
        plain = stage.sample(upstream, request_of(case))
        same = stage.sample(upstream, dataclasses.replace(request_of(case), edit=Edit(image)))
        assert torch.equal(same, plain)
        for edit in (Edit(image, 1.0, mask, 2), Edit(image, 0.4, mask)):
            new = stage.sample(upstream, dataclasses.replace(request_of(case), edit=edit))
            kept = (~mask).expand_as(image)
            assert (new[kept] - image[kept]).abs().max() < 1e-5
            assert (new[~kept] - image[~kept]).abs().max() > 0.05
        near = stage.sample(upstream, dataclasses.replace(request_of(case), edit=Edit(image, 0.2)))
    assert (near - image).abs().mean() < (plain - image).abs().mean()


@pytest.mark.parametrize("case", [c for c in KINDS if c.stage().mixes_labels], ids=str)
def test_two_labels(case: Case) -> None:
    stage, upstream = case.stage().eval(), case.upstream(COUNT)
    first, second = torch.zeros(COUNT, dtype=torch.int64), torch.ones(COUNT, dtype=torch.int64)

    def sample(mix: float | None, labels: torch.Tensor = first) -> torch.Tensor:
        request = dataclasses.replace(request_of(case), labels=labels)
        if mix is not None:
            share = torch.full((COUNT,), mix)
            request = dataclasses.replace(request, labels_to=second, mix=share)
        with torch.no_grad():
            return stage.sample(upstream, request)

    assert torch.allclose(sample(0.0), sample(None), atol=1e-5)
    assert torch.allclose(sample(1.0), sample(None, second), atol=1e-5)
    middle = sample(0.5)
    assert not torch.allclose(middle, sample(0.0), atol=1e-6)
    assert not torch.allclose(middle, sample(1.0), atol=1e-6)


def test_the_kinds_that_edit() -> None:
    editing = {case.kind for case in KINDS if case.stage().edits}
    diffusions = {"diffusion.v1", "unet-diffusion.v1"}
    assert {"flow.v1", "mean-flow.v1", "flow-sr.v1", *diffusions} <= editing
    assert not {"dae.v1", "resnet.v1", "vit.v1", "pixelshuffle.v1"} & editing
