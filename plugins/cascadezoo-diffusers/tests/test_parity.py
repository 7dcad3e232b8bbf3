"""Images and latents from the same noise equal those of diffusers."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from cascadezoo_diffusers.arguments import SchedulerArguments
from cascadezoo_diffusers.reading import KL_DEFAULTS, UNET_DEFAULTS
from cascadezoo_diffusers.samplers import SAMPLERS, sampler_of
from cases import VAE, Case, perturbed, request, save_pipeline, small_unet, stage_from

from cascadezoo import Draw, ImageDraw, SampleRequest, TrainContext

BETAS = {"beta_start": 0.01, "beta_end": 0.3}


def request_of(count: int = 3, first: int = 0, **more: Any) -> SampleRequest:
    return SampleRequest(count, ImageDraw(5, "s", first, count), **more)


def noise(count: int = 3) -> list[torch.Generator]:
    """The generators of a request, one for each image.

    diffusers accepts such a list, and draws the initial noise and the noise of each step image by
    image, in the same order.
    """
    return ImageDraw(5, "s", 0, count).generators


def pixels(images: torch.Tensor) -> torch.Tensor:
    return images / 2 + 0.5


SOURCES = [
    pytest.param(diffusers.DDPMScheduler(num_train_timesteps=20, **BETAS), 20, {}, id="ddpm"),
    pytest.param(
        diffusers.DDPMScheduler(num_train_timesteps=20, **BETAS, variance_type="fixed_large"),
        20,
        {},
        id="l",
    ),
    pytest.param(
        diffusers.DDPMScheduler(
            num_train_timesteps=20,
            beta_schedule="squaredcos_cap_v2",
            prediction_type="sample",
            clip_sample=False,
        ),
        7,
        {},
        id="ddpm-sample",
    ),
    pytest.param(diffusers.DDIMScheduler(num_train_timesteps=20, **BETAS), 10, {}, id="ddim"),
    pytest.param(
        diffusers.DDIMScheduler(
            num_train_timesteps=20,
            **BETAS,
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
        ),
        10,
        {"eta": 0.7},
        id="ddim-v-zero-snr-eta",
    ),
]


@pytest.mark.parametrize(("scheduler", "steps", "options"), SOURCES)
def test_a_folder_gives_the_same_images_as_its_pipeline(
    tmp_path: Path, scheduler: Any, steps: int, options: dict[str, float]
) -> None:
    theirs = save_pipeline(tmp_path, scheduler)
    stage = stage_from(tmp_path)
    with torch.no_grad():
        mine = stage.sample(None, request_of(steps=steps, options=options))
    expected = theirs(
        batch_size=3, generator=noise(), num_inference_steps=steps, output_type="np", **options
    ).images
    expected = torch.from_numpy(expected).permute(0, 3, 1, 2)
    assert torch.equal(pixels(mine), expected)
    assert expected.std() > 0.1


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("saved")
    return folder, save_pipeline(folder)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_equals_that_of_diffusers(saved: tuple[Path, Any], name: str) -> None:
    folder, theirs = saved
    stage = stage_from(folder)
    with torch.no_grad():
        mine = stage.sample(None, request_of(sampler=name, steps=6))
    sampler = SAMPLERS[name]
    cls = getattr(diffusers, sampler.scheduler)
    settings = diffusers.DDPMScheduler.load_config(folder / "scheduler")
    scheduler = cls.from_config(settings, **sampler.settings)
    scheduler.set_timesteps(6)
    generators = noise()
    rows = [torch.randn(1, 3, 8, 8, generator=g) for g in generators]
    image = torch.cat(rows) * scheduler.init_noise_sigma
    extra = {"generator": generators} if takes(scheduler.step, "generator") else {}
    with torch.no_grad():
        for t in scheduler.timesteps:
            output = theirs.unet(scheduler.scale_model_input(image, t), t).sample
            image = scheduler.step(output, t, image, **extra).prev_sample
    assert torch.equal(mine, image.clamp(-1, 1))
    assert sampler_of(scheduler.config) == name


def takes(function: Any, name: str) -> bool:
    return name in inspect.signature(function).parameters


def test_the_source_sets_the_sampler_and_the_config_overrides_it(tmp_path: Path) -> None:
    scheduler = diffusers.EulerDiscreteScheduler(
        num_train_timesteps=20, **BETAS, use_karras_sigmas=True
    )
    save_pipeline(tmp_path, scheduler)
    stage = stage_from(tmp_path)
    assert stage.config.sampler == "euler"
    assert stage.config.scheduler.use_karras_sigmas
    assert stage.config.scheduler.timestep_spacing == "linspace"
    assert stage.network_evaluations(steps=4) == 4
    assert stage_from(tmp_path, sampler="heun").network_evaluations(steps=4) == 7


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_network_has_no_loss_and_an_exact_estimate(prediction: str) -> None:
    settings = {"unet": {"block_out_channels": [8], "norm_num_groups": 4}}
    case = Case(
        "diffusers-unet2d.v1",
        {**settings, "scheduler": {"prediction_type": prediction}},
        size=8,
        num_classes=None,
    )
    stage = case.make()
    target = case.target(4)
    inputs = stage.preprocess(target, None, TrainContext(Draw(0)))
    theirs = diffusers.DDPMScheduler(1000, prediction_type=prediction)
    noisy = theirs.add_noise(target, inputs.noise, inputs.times)
    assert (inputs.noisy - noisy).abs().max() < 1e-6
    answer = {
        "epsilon": inputs.noise,
        "v_prediction": theirs.get_velocity(target, inputs.noise, inputs.times),
        "sample": target,
    }[prediction]

    class Perfect(torch.nn.Module):
        def forward(self, *_: Any, **__: Any) -> tuple[torch.Tensor]:
            return (answer,)

    stage.network = Perfect()
    output = stage(inputs)
    assert output.losses["mse"] < 1e-9
    assert (output.estimate - target).abs().max() < 1e-3


def test_labels_and_guidance_reach_the_network(tmp_path: Path) -> None:
    unet = small_unet(num_class_embeds=6)
    diffusers.DDPMPipeline(
        unet, diffusers.DDIMScheduler(num_train_timesteps=20, **BETAS)
    ).save_pretrained(tmp_path)
    stage = stage_from(tmp_path, num_classes=5)
    labels = torch.tensor([0, 3, 4])
    with torch.no_grad():
        mine = stage.sample(None, request_of(steps=5, guidance=3.0, labels=labels))
        plain = stage.sample(None, request_of(steps=5, labels=labels))
        none = stage.sample(None, request_of(steps=5, guidance=0.0, labels=labels))
    scheduler = diffusers.DDIMScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    scheduler.set_timesteps(5)
    image = torch.cat([torch.randn(1, 3, 8, 8, generator=g) for g in noise()])
    with torch.no_grad():
        for t in scheduler.timesteps:
            out, free = (unet(image, t, y).sample for y in (labels, torch.full_like(labels, 5)))
            image = scheduler.step(free + 3.0 * (out - free), t, image).prev_sample
    assert torch.equal(mine, image.clamp(-1, 1))
    assert (mine - plain).abs().max() > 1e-3
    assert (none - plain).abs().max() > 1e-3


def test_the_upstream_image_follows_the_noisy_image_in_the_input(tmp_path: Path) -> None:
    unet = small_unet(in_channels=6)
    unet.save_pretrained(tmp_path / "unet")
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=20, **BETAS)
    scheduler.save_pretrained(tmp_path / "scheduler")
    stage = stage_from(tmp_path, "diffusers-unet2d-sr.v1")
    upstream = Draw("up").rand(3, 3, 4, 4) * 2 - 1
    with torch.no_grad():
        mine = stage.sample(upstream, request_of())
    generators = noise()
    image = torch.cat([torch.randn(1, 3, 8, 8, generator=g) for g in generators])
    large = torch.nn.functional.interpolate(upstream, size=(8, 8), mode="bilinear")
    scheduler.set_timesteps(20)
    with torch.no_grad():
        for t in scheduler.timesteps:
            output = unet(torch.cat([image, large], 1), t).sample
            image = scheduler.step(output, t, image, generator=generators).prev_sample
    assert torch.equal(mine, image.clamp(-1, 1))
    with torch.no_grad():
        assert (mine - stage.sample(-upstream, request_of())).abs().max() > 0.01


@pytest.mark.parametrize("pipeline", [False, True])
def test_an_autoencoder_encodes_and_decodes_as_diffusers_does(
    tmp_path: Path, pipeline: bool
) -> None:
    torch.manual_seed(0)
    blocks = {
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
    }
    more = {"scaling_factor": 0.4, "shift_factor": 0.05}
    theirs = perturbed(diffusers.AutoencoderKL(**VAE, **blocks, **more).eval(), 0.1)
    theirs.save_pretrained(tmp_path / "vae" if pipeline else tmp_path)
    stage = stage_from(tmp_path, "diffusers-autoencoder-kl.v1", size=16)
    assert stage.config.frozen
    assert not any(p.requires_grad for p in stage.parameters())
    images = Draw("pixels").rand(3, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        latents = stage.upstream_target(images)
        expected = (theirs.encode(images).latent_dist.mode() - 0.05) * 0.4
        assert (latents - expected).abs().max() < 1e-5
        mine = stage.sample(latents, request(Case("d", num_classes=None), 0, 3))
        decoded = theirs.decode(expected / 0.4 + 0.05).sample.clamp(-1, 1)
        assert (mine - decoded).abs().max() < 1e-5
        assert decoded.std() > 0.05


def test_an_autoencoder_measures_a_missing_scale() -> None:
    case = Case("diffusers-autoencoder-kl.v1", {"vae": VAE})
    stage = case.stage()
    batches = [case.target(16), case.target(8)]
    stage.finish_phase(batches)
    with torch.no_grad():
        latents = torch.cat([stage.upstream_target(batch) for batch in batches])
    assert latents.std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_defaults_equal_those_of_diffusers() -> None:
    for cls, table in (
        (diffusers.UNet2DModel, UNET_DEFAULTS),
        (diffusers.AutoencoderKL, KL_DEFAULTS),
    ):
        known = inspect.signature(cls.__init__).parameters
        for name, value in table.items():
            theirs = known[name].default
            assert (list(theirs) if isinstance(theirs, tuple) else theirs) == value, name
    mine = SchedulerArguments()
    for name, sampler in SAMPLERS.items():
        known = inspect.signature(getattr(diffusers, sampler.scheduler).__init__).parameters
        if "timestep_spacing" in known:
            assert known["timestep_spacing"].default == sampler.spacing, name
        assert ("rescale_betas_zero_snr" in known) == sampler.zero_snr, name
        for field in SchedulerArguments.model_fields:
            special = {"timestep_spacing", "set_alpha_to_one", "clip_sample", "variance_type"}
            if sampler.scheduler.startswith(("Heun", "KDPM2")):
                special |= {"beta_start", "beta_end"}
            if field in known and field not in special:
                assert known[field].default == getattr(mine, field), (name, field)


def test_the_terminal_signal_equals_that_of_diffusers() -> None:
    for schedule in ("linear", "scaled_linear", "squaredcos_cap_v2"):
        for steps in (20, 1000):
            mine = SchedulerArguments(num_train_timesteps=steps, beta_schedule=schedule)
            theirs = diffusers.DDPMScheduler(steps, beta_schedule=schedule).alphas_cumprod[-1]
            assert mine.signal() == pytest.approx(float(theirs), rel=0.01), (schedule, steps)
