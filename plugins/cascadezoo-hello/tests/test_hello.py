"""Tests of the stage."""

import torch
from cascadezoo_hello import register_stages

from cascadezoo import ImageShape, StageGeometry

(ENTRY,) = register_stages()


def make_stage(output: ImageShape) -> torch.nn.Module:
    config = ENTRY.load_config()(factor=2)
    return ENTRY.load()(config, StageGeometry(output, config.upstream_shape(output)))


def test_it_starts_as_bicubic_and_learns_to_be_better() -> None:
    stage = make_stage(ImageShape(3, 16))
    blocks = torch.rand(64, 3, 4, 4, generator=torch.manual_seed(0)) * 2 - 1
    images = blocks.repeat_interleave(4, 2).repeat_interleave(4, 3)
    inputs = stage.preprocess(images, stage.upstream_target(images), None)
    smooth = torch.nn.functional.interpolate(inputs.upstream, size=16, mode="bicubic")
    assert torch.equal(stage(inputs).estimate, smooth)

    optimizer = torch.optim.Adam(stage.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        losses.append(stage(inputs).losses["mse"])
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]


def test_pixels_are_bounded_and_latents_are_not() -> None:
    wide = torch.full((1, 3, 4, 4), 3.0)
    assert make_stage(ImageShape(3, 8)).sample(wide, None).max() == 1
    assert make_stage(ImageShape(3, 8, latent=True)).sample(wide, None).max() > 2.9
