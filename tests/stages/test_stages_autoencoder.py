"""autoencoder.v1: it learns, its latents have unit scale, and it is a stage like any other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from errors_help import raises, raises_config
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cascadezoo.cascade.weights import load_state, save_state
from cascadezoo.errors import TrainingError
from cascadezoo.spec.configs import ImageShape
from cascadezoo.stages.autoencoder.config import AutoencoderConfig
from cascadezoo.stages.autoencoder.stage import Autoencoder
from cascadezoo.stages.base import (
    SampleRequest,
    StageGeometry,
    StageInputs,
    StageOutput,
    TrainContext,
)
from cascadezoo.util.rng import Draw, ImageDraw

SMALL = {"channels": 8, "multipliers": [1, 2, 2], "latent_channels": 2}


def place(
    size: int = 12, image: int = 3, **changes: object
) -> tuple[AutoencoderConfig, StageGeometry]:
    output = ImageShape(image, size)
    config = AutoencoderConfig.model_validate({**SMALL, **changes}).fit(output)
    return config, StageGeometry(output, config.upstream_shape(output), 5)


def make(size: int = 12, image: int = 3, *, fresh: bool = False, **changes: object) -> Autoencoder:
    torch.manual_seed(0)
    stage = Autoencoder(*place(size, image, **changes))
    if not fresh:
        with torch.no_grad():
            for parameter in stage.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return stage


def pixels(count: int = 4, size: int = 12, channels: int = 3) -> Tensor:
    return Draw("pixels").rand(count, channels, size, size) * 2 - 1


def latents(stage: Autoencoder, count: int = 4) -> Tensor:
    shape = stage.geometry.input
    assert shape is not None
    return Draw("latents").randn(count, shape.channels, shape.size, shape.size)


def learn(
    stage: Autoencoder,
    images: Tensor,
    upstream: Tensor | None = None,
    *,
    step: int = 0,
    progress: float = 0.5,
) -> StageOutput:
    context = TrainContext(Draw(0, "train", step), progress=progress, step=step)
    output: StageOutput = stage(stage.preprocess(images, upstream, context))
    return output


def request(count: int) -> SampleRequest:
    return SampleRequest(count, ImageDraw(0, "decoder", 0, count))


def blobs(count: int, size: int, seed: int = 0) -> Tensor:
    """A light disc on a dark ground, anywhere and of any size: [count, 1, size, size]."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, 1, 1, generator=generator) * 1.2 - 0.6
    radius = torch.rand(count, 1, 1, generator=generator) * 0.4 + 0.25
    line = torch.linspace(-1, 1, size)
    distance = ((line[:, None] - centre[:, 0]) ** 2 + (line[None, :] - centre[:, 1]) ** 2).sqrt()
    return torch.tanh(12 * (radius - distance))[:, None]


# --- it learns


@pytest.fixture(scope="module")
def trained() -> tuple[Autoencoder, float, float]:
    """120 steps on blobs of 28 pixels: the stage, and its squared error before and after."""
    stage = make(28, 1, fresh=True, channels=16).train()
    test = blobs(256, 28, seed=99)
    optimizer = torch.optim.AdamW(stage.parameters(), lr=3e-3, weight_decay=0.0)

    def error() -> float:
        with torch.no_grad():
            return (
                stage.network.decode(stage.network.encode(test).mean, 28)
                .sub(test)
                .square()
                .mean()
                .item()
            )

    before = error()
    for step in range(120):
        losses = learn(stage, blobs(32, 28, seed=step), step=step).losses
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    after = error()
    stage.finish_phase(blobs(1024, 28, seed=7).split(100))
    return stage.eval(), before, after


@pytest.mark.slow
def test_the_error_falls_thirtyfold(trained: tuple[Autoencoder, float, float]) -> None:
    _, before, after = trained
    assert before > 0.7
    assert after < before / 30


def test_scaled_latents_have_a_deviation_of_one(trained: tuple[Autoencoder, float, float]) -> None:
    stage, _, _ = trained
    with torch.no_grad():
        seen = stage.upstream_target(blobs(1024, 28, seed=7))
        new = stage.upstream_target(blobs(1024, 28, seed=8))
    assert seen.shape == (1024, 2, 7, 7)
    assert seen.dtype == torch.float32
    assert seen.std().item() == pytest.approx(1.0, abs=1e-4)
    assert new.std().item() == pytest.approx(1.0, abs=0.01)


def test_decoding_undoes_encoding(trained: tuple[Autoencoder, float, float]) -> None:
    stage, _, after = trained
    images = blobs(256, 28, seed=99)
    with torch.no_grad():
        z = stage.upstream_target(images)
        decoded = stage.sample(z, request(256))
        estimate = learn(stage, images, z)
    assert (decoded - images).square().mean().item() < 1.01 * after
    assert decoded.abs().max() <= 1
    assert torch.equal(estimate.estimate.clamp(-1, 1), decoded)
    assert estimate.losses == {}


def test_weights_and_scale_are_saved(
    trained: tuple[Autoencoder, float, float], tmp_path: Path
) -> None:
    stage, _, _ = trained
    assert stage.scale.item() != 1
    save_state(stage.state_dict(), tmp_path / "model.safetensors")
    with torch.device("meta"):
        copy = Autoencoder(stage.config, stage.geometry)
    load_state(copy, tmp_path / "model.safetensors", "cpu")
    copy.eval()
    z = latents(stage)
    with torch.no_grad():
        assert torch.equal(copy.sample(z, request(4)), stage.sample(z, request(4)))
        images = blobs(4, 28)
        assert torch.equal(copy.upstream_target(images), stage.upstream_target(images))


# --- the scale


def test_the_scale_is_one_over_the_deviation_however_the_images_come() -> None:
    stage = make().train()
    images = pixels(50)
    with torch.no_grad():
        wanted = 1 / stage.network.encode(images).mean.double().std(correction=0).item()
    for part in (50, 7, 1):
        stage.finish_phase(images.split(part))
        assert stage.scale.item() == pytest.approx(wanted, rel=1e-5)
    assert stage.scale.dtype == torch.float32
    assert stage.training, "measuring changed the training mode"


def test_images_are_read_one_batch_at_a_time() -> None:
    stage, alive = make(), 0

    def batches() -> Iterator[Tensor]:
        nonlocal alive
        for _ in range(3):
            alive += 1
            yield pixels(2)

    stage.finish_phase(batches())
    assert alive == 3


def test_constant_latents_are_an_error() -> None:
    stage = make()
    with torch.no_grad():
        stage.network.encoder.head.weight.zero_()
        stage.network.encoder.head.bias.zero_()
    with raises(TrainingError, "training-latents-flat", deviation=0.0) as caught:
        stage.finish_phase([pixels()])
    assert "1e-05" in str(caught.value.hint)
    with torch.no_grad():
        stage.network.encoder.head.bias.fill_(math.nan)
    with raises(TrainingError, "training-latents-flat") as caught:
        stage.finish_phase([pixels()])
    assert math.isnan(caught.value.fields["deviation"])
    with raises(TrainingError, "training-latents-no-images"):
        stage.finish_phase([])


def test_dropout_changes_neither_targets_nor_scale() -> None:
    stage = make(dropout=0.5).train()
    images = pixels()
    torch.manual_seed(1)
    first = stage.upstream_target(images)
    assert torch.equal(stage.upstream_target(images), first)
    stage.finish_phase([images])
    scale = stage.scale.clone()
    stage.finish_phase([images])
    assert torch.equal(stage.scale, scale)
    assert all(module.training for module in stage.modules())
    assert not torch.equal(learn(stage, images).estimate, learn(stage, images).estimate)


# --- losses


def test_losses_are_error_and_weighted_divergence() -> None:
    stage, images = make().train(), pixels()
    output = learn(stage, images)
    assert list(output.losses) == ["mse", "kl"]
    with torch.no_grad():
        wanted = 1e-5 * stage.network.encode(images).kl().mean()
    torch.testing.assert_close(output.losses["kl"], wanted)
    torch.testing.assert_close(output.losses["mse"], (output.estimate - images).square().mean())
    absolute = learn(make(reconstruction="l1").train(), images)
    assert list(absolute.losses) == ["l1", "kl"]
    torch.testing.assert_close(absolute.losses["l1"], (absolute.estimate - images).abs().mean())


@pytest.mark.parametrize(
    ("progress", "share"), [(0.0, 0.0), (0.1, 0.25), (0.2, 0.5), (0.4, 1.0), (0.9, 1.0)]
)
def test_the_weight_of_the_divergence_rises_in_a_straight_line(
    progress: float, share: float
) -> None:
    images = pixels()
    whole = learn(make().train(), images).losses["kl"]
    warm = learn(make(kl_warmup=0.4).train(), images, progress=progress).losses["kl"]
    assert isinstance(whole, Tensor)
    torch.testing.assert_close(warm, share * whole)


def test_training_samples_the_posterior_by_the_steps_draw() -> None:
    stage, images = make().train(), pixels()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = learn(stage, images, step=3).estimate
    assert torch.equal(torch.get_rng_state(), state), "used the global generator"
    assert torch.equal(learn(stage, images, step=3).estimate, first)
    assert not torch.allclose(learn(stage, images, step=4).estimate, first)


def test_upstream_latents_are_ignored_unless_they_need_gradients() -> None:
    stage, images = make().train(), pixels()
    alone = learn(stage, images)
    assert torch.equal(learn(stage, images, latents(stage)).estimate, alone.estimate)

    upstream = latents(stage).requires_grad_()
    joint = learn(stage, images, upstream)
    assert list(joint.losses) == ["mse", "kl", "upstream"]
    torch.testing.assert_close(joint.losses["mse"], alone.losses["mse"])
    torch.testing.assert_close(joint.losses["upstream"], (joint.estimate - images).square().mean())
    torch.testing.assert_close(joint.estimate, stage.network.decode(upstream, 12))
    joint.losses["upstream"].backward()
    assert upstream.grad is not None
    assert upstream.grad.abs().min() > 0


def test_every_parameter_learns() -> None:
    stage = make().train()
    torch.stack(list(learn(stage, pixels()).losses.values())).sum().backward()
    for name, parameter in stage.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_a_frozen_stage_only_decodes_and_passes_gradients() -> None:
    stage = make().eval().requires_grad_(False)
    stage.scale.fill_(2.0)
    upstream = latents(stage).requires_grad_()
    with FlopCounterMode(display=False) as counter:
        output = learn(stage, pixels(), upstream)
    forward = counter.get_flop_counts()
    assert not any(".encoder" in name for name in forward)
    assert any(".decoder" in name for name in forward)
    torch.testing.assert_close(output.estimate, stage.network.decode(upstream / 2, 12))
    output.estimate.sum().backward()
    assert upstream.grad is not None


def test_forward_needs_the_inputs_from_preprocess() -> None:
    with pytest.raises(TypeError):
        make()(StageInputs(target=pixels()))
    with pytest.raises(TypeError):
        make().sample(None, request(1))


# --- the contract


@pytest.mark.parametrize(("size", "latent"), [(28, 7), (27, 7), (12, 3), (3, 1)])
def test_any_size_works(size: int, latent: int) -> None:
    stage = make(size).train()
    assert stage.geometry.input == ImageShape(2, latent, latent=True)
    assert stage.upstream_target(pixels(2, size)).shape == (2, 2, latent, latent)
    assert learn(stage, pixels(2, size)).estimate.shape == (2, 3, size, size)
    assert stage.sample(latents(stage, 2), request(2)).shape == (2, 3, size, size)


def test_bfloat16_autocast_trains_and_samples_in_float32() -> None:
    stage = make().train()
    exact = learn(stage, pixels())
    with torch.autocast("cpu", torch.bfloat16):
        output = learn(stage, pixels())
        target = stage.upstream_target(pixels())
        images = stage.sample(latents(stage), request(4))
    assert {t.dtype for t in (output.estimate, target, images, *output.losses.values())} == {
        torch.float32
    }
    for name, loss in output.losses.items():
        assert loss.item() == pytest.approx(exact.losses[name].item(), rel=0.05)
    torch.stack(list(output.losses.values())).sum().backward()


def test_upstream_images_of_any_type_are_accepted() -> None:
    stage = make().eval()
    z = latents(stage)
    with torch.no_grad():
        wanted = stage.sample(z, request(4))
        for dtype in (torch.float64, torch.bfloat16, torch.float16):
            found = stage.sample(z.to(dtype), request(4))
            assert found.dtype == torch.float32
            assert (found - wanted).abs().max() < 0.1


def test_plans_on_the_meta_device() -> None:
    with torch.device("meta"):
        stage = Autoencoder(*place())
    assert all(parameter.is_meta for parameter in stage.parameters())
    assert not stage.scale.is_meta
    stage.to("meta")
    images = torch.empty(2, 3, 12, 12, device="meta")
    upstream = torch.empty(2, 2, 3, 3, device="meta", requires_grad=True)
    for given in (None, upstream):
        inputs = stage.preprocess(images, given, TrainContext(Draw(0, device="meta")))
        assert stage(inputs).estimate.is_meta
    sample_request = SampleRequest(2, ImageDraw(0, "s", 0, 2, "meta"))
    assert stage.sample(stage.upstream_target(images), sample_request).shape == (2, 3, 12, 12)


def test_only_contiguous_weights_and_the_scale_are_saved() -> None:
    state = make().state_dict()
    assert set(state) == {"scale", *(name for name, _ in make().named_parameters())}
    assert all(tensor.is_contiguous() for tensor in state.values())


@pytest.mark.parametrize("joint", [False, True])
def test_the_network_compiles_into_one_graph(joint: bool) -> None:
    stage = make().train()
    upstream = latents(stage, 2).requires_grad_() if joint else None
    inputs = stage.preprocess(pixels(2), upstream, TrainContext(Draw(0)))

    def run(inputs: StageInputs) -> Tensor:
        estimate: Tensor = stage(inputs).estimate
        return estimate

    compiled = torch.compile(run, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(inputs), run(inputs), rtol=0, atol=1e-5)


# --- config


def test_too_many_levels_are_rejected() -> None:
    config = AutoencoderConfig(multipliers=[1] * 7)
    with raises_config("multipliers", "levels"):
        config.fit(ImageShape(1, 28))
    assert AutoencoderConfig(multipliers=[1] * 6).fit(ImageShape(1, 28)).upstream_shape(
        ImageShape(1, 28)
    ) == ImageShape(4, 1, latent=True)


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        ({"multipliers": [1]}, ["latent_channels"]),
        ({"kl_weight": 0.0}, ["kl_weight"]),
        ({"kl_weight": 0.0, "kl_warmup": 0.5}, ["kl_weight", "kl_warmup"]),
        ({}, []),
    ],
)
def test_advice_names_the_fields(settings: dict[str, object], fields: list[str]) -> None:
    advice = list(AutoencoderConfig.model_validate(settings).advice(ImageShape(3, 32), None))
    assert len(advice) == len(fields)
    assert all(field in text for field, text in zip(fields, advice, strict=True))
