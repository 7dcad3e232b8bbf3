"""The autoencoder: round trips, its codebook, and what a frozen one decodes."""

from __future__ import annotations

import pytest
import torch
from cascadezoo_tokens.config import VqAutoencoderConfig
from token_cases import IMAGE, autoencoder, context, images, request, tokens

from cascadezoo import ConfigError, Draw, ImageShape, StepContext


def test_tokens_are_numbers_of_the_nearest_codes() -> None:
    stage = autoencoder()
    numbers = stage.upstream_target(images())
    assert numbers.shape == (5, 1, 4, 4)
    assert numbers.dtype == torch.float32
    latents = stage.encode(images())
    distances = (latents[:, :, None] - stage.codes.T[None, :, :, None, None]).square().sum(1)
    assert torch.equal(numbers[:, 0], distances.argmin(1).float())


def test_a_round_trip_through_tokens_is_the_reconstruction() -> None:
    stage = autoencoder()
    target = images()
    numbers = stage.upstream_target(target)
    trained = stage(stage.preprocess(target, None, context())).estimate
    decoded = stage.sample(numbers, request(count=5))
    torch.testing.assert_close(decoded, trained.clamp(-1, 1), rtol=1e-5, atol=1e-5)
    # The codes of decoded codes are the codes: quantisation is a projection.
    codes = stage.codes[numbers[:, 0].long()].movedim(-1, 1)
    assert torch.equal(stage.nearest(codes)[:, None].float(), numbers)


def test_a_frozen_stage_decodes_its_input() -> None:
    stage = autoencoder().eval()
    output = stage(stage.preprocess(images(), tokens(), context()))
    assert not output.losses
    torch.testing.assert_close(
        output.estimate, stage.decode(tokens()[:, 0].long()), rtol=1e-5, atol=1e-5
    )


def test_the_losses_train_the_networks_and_not_the_codes() -> None:
    stage = autoencoder()
    output = stage(stage.preprocess(images(), None, context()))
    sum(output.losses.values()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in stage.parameters())
    assert not stage.codes.requires_grad
    assert 1 <= output.figures["perplexity"] <= 6
    # The straight-through gradient of the reconstruction reaches the encoder.
    stage.zero_grad()
    stage(stage.preprocess(images(), None, context())).losses["mse"].backward()
    assert stage.encoder[0].weight.grad.abs().max() > 0


def test_the_codebook_follows_the_running_means() -> None:
    stage = autoencoder(decay=0.75, revive=0.0)
    stage.started.fill_(True)
    usage, sums = stage.usage.clone(), stage.sums.clone()
    output = stage(stage.preprocess(images(), None, context()))
    numbers = stage.upstream_target(images()).flatten().long()
    rows = stage.encode(images()).detach().movedim(1, -1).flatten(0, 2)
    counts = torch.bincount(numbers, minlength=6).float()
    totals = torch.stack([rows[numbers == code].sum(0) for code in range(6)])
    torch.testing.assert_close(output.statistics["counts"], counts)
    torch.testing.assert_close(output.statistics["sums"], totals)
    with torch.no_grad():
        stage.after_step(StepContext(Draw(1), output.statistics))
    usage = 0.75 * usage + 0.25 * counts / counts.sum()
    sums = 0.75 * sums + 0.25 * totals / counts.sum()
    torch.testing.assert_close(stage.usage, usage)
    torch.testing.assert_close(stage.codes, sums / usage[:, None])


def test_the_first_step_draws_codes_like_the_latents() -> None:
    stage = autoencoder(tokens=512)
    output = stage(stage.preprocess(images(), None, context()))
    rows = stage.encode(images()).detach().movedim(1, -1).flatten(0, 2)
    with torch.no_grad():
        stage.after_step(StepContext(Draw(1), output.statistics))
    assert stage.started
    torch.testing.assert_close(stage.codes.mean(0), rows.mean(0), rtol=0, atol=0.25)
    ratio = stage.codes.std(0) / rows.std(0, unbiased=False)
    assert ratio.min() > 0.8
    assert ratio.max() < 1.25
    assert torch.equal(stage.usage, torch.full((512,), 1 / 512))


def test_an_unused_code_moves_beside_a_used_one() -> None:
    stage = autoencoder(decay=0.5, revive=0.5)
    stage.started.fill_(True)
    with torch.no_grad():
        stage.codes[0].fill_(100.0)
        stage.usage.fill_(0.2)
        stage.usage[0] = 0.01
        stage.sums.copy_(stage.codes * stage.usage[:, None])
    output = stage(stage.preprocess(images(), None, context()))
    assert output.statistics["counts"][0] == 0
    with torch.no_grad():
        stage.after_step(StepContext(Draw(1), output.statistics))
    nearest = (stage.codes[0] - stage.codes[1:]).norm(dim=1).min()
    assert nearest < 0.5
    assert float(stage.usage[0]) == pytest.approx(1 / 6)
    torch.testing.assert_close(stage.sums[0], stage.codes[0] / 6)


def test_shapes() -> None:
    config = VqAutoencoderConfig()
    assert config.upstream_shape(ImageShape(1, 28)) == ImageShape(1, 7, latent=True, tokens=128)
    assert str(config.upstream_shape(ImageShape(1, 28))) == "1x7x7 tokens of 128"
    with pytest.raises(ConfigError, match="halved"):
        config.upstream_shape(ImageShape(1, 30))
    assert list(config.advice(IMAGE, None)) == []
    assert len(list(VqAutoencoderConfig(revive=0.0).advice(ImageShape(3, 256), None))) == 2
