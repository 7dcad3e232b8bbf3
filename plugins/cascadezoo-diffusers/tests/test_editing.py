"""Edits of existing images by models of diffusers."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from cases import SMALL, perturbed, request
from error_codes import raises

from cascadezoo import Edit
from cascadezoo.errors import SampleError


@pytest.mark.parametrize("kind", ["diffusers-unet2d.v1", "diffusers-unet2d-sr.v1"])
def test_edits(kind: str) -> None:
    case = SMALL[kind]
    stage, upstream, image = perturbed(case.stage()).eval(), case.upstream(2), case.target(2)

    def edited(edit: Edit | None, **options: object) -> torch.Tensor:
        asked = dataclasses.replace(request(case, 0, 2, **options), edit=edit)
        with torch.no_grad():
            result: torch.Tensor = stage.sample(upstream, asked)
        return result

    plain = edited(None)
    assert torch.equal(edited(Edit(image)), plain)
    mask = torch.zeros(2, 1, *image.shape[2:], dtype=torch.bool)
    mask[..., ::2] = True
    for edit in (Edit(image, 1.0, mask, 3), Edit(image, 0.5, mask)):
        new = edited(edit)
        kept = (~mask).expand_as(image)
        assert torch.equal(new[kept], image[kept])
        assert (new[~kept] - image[~kept]).abs().max() > 0.01
    near, far = edited(Edit(image, 0.2)), edited(Edit(image, 0.9))
    assert (near - image).abs().mean() < (far - image).abs().mean()
    with raises(SampleError, "sample-edit-sampler", name="ddpm"):
        edited(Edit(image, 0.5), sampler="ddpm")
