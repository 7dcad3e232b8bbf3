"""The presets of the papers against the numbers of their texts (docs/papers.md names the texts).

Each table below is copied from a text; the comments name its place there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from cascadezoo.diffusion.schedules import alphas_cumprod, cosine_betas
from cascadezoo.errors import InputError, SpecError
from cascadezoo.spec import ResolvedSpec, complete, load_spec, read_spec

# --- S1, Cascaded Diffusion Models, appendix B

RESOLUTION_32 = {
    "base channels": 256,
    "channel multipliers": [1, 2, 3, 4],
    "residual blocks": 6,
    "attention resolutions": {8, 16},
    "attention heads": 4,
    "batch size": 2048,
    "learning rate": 1e-4,
    "steps": 700_000,
    "dropout": 0.1,
    "ema": 0.9999,
    "timesteps": 4000,
    "schedule": "cosine",
    "learned variances": True,
}
RESOLUTION_64 = {**RESOLUTION_32, "residual blocks": 5, "steps": 400_000}
RESOLUTION_128 = {
    "base channels": 128,
    "channel multipliers": [1, 2, 4, 8, 8],
    "residual blocks": 3,
    "attention resolutions": {16},
    "attention heads": 1,
    "batch size": 1024,
    "learning rate": 1e-4,
    "steps": 500_000,
    "dropout": 0.0,
    "ema": 0.9999,
    "timesteps": 2000,
    "schedule": "linear",
    "learned variances": False,
}
RESOLUTION_256 = {**RESOLUTION_128, "channel multipliers": [1, 2, 4, 4, 8, 8]}
CDM = {
    "imagenet64-cdm": {"base": RESOLUTION_32, "up64": RESOLUTION_64},
    "imagenet128-cdm": {"base": RESOLUTION_32, "up64": RESOLUTION_64, "up128": RESOLUTION_128},
    "imagenet256-cdm": {"base": RESOLUTION_32, "up64": RESOLUTION_64, "up256": RESOLUTION_256},
}

# --- S3, Diffusion in Computer Vision

TABLE_1 = {"channels": 32, "multipliers": [1, 2, 3, 3], "attention": [4], "blocks": 1}
TABLE_6 = {"channels": 64, "multipliers": [1, 2], "attention": [4], "blocks": 1, "pad_to": 8}
TABLE_4 = {"channels": 64, "multipliers": [1, 2, 4], "latent_channels": 2, "kl_weight": 1e-5}
TABLES_2_AND_7 = {"timesteps": 1000, "schedule": "cosine", "prediction": "eps"}
TABLE_12 = {"sampler": "euler", "steps": 50, "time_sampling": "uniform"}
SECTION_4 = {"label_drop": 0.1, "sampler": "ddim", "steps": 100, "eta": 0.05, "guidance": 3.0}
MNIST: dict[str, dict[str, Any]] = {
    "paper-mnist-ddpm": {"draw": {**TABLE_1, **TABLES_2_AND_7, "sampler": "ddpm", "eta": 0.0}},
    "paper-mnist-flow": {"draw": {**TABLE_1, **TABLE_12}},
    "paper-mnist-latent-ddpm": {
        "draw": {**TABLE_6, **TABLES_2_AND_7, "eta": 0.05},
        "decode": TABLE_4,
    },
    "paper-mnist-latent-cfg-concat": {
        "draw": {**TABLE_6, **TABLES_2_AND_7, **SECTION_4, "label_conditioning": "concat"},
        "decode": TABLE_4,
    },
    "paper-mnist-latent-cfg-crossattn": {
        "draw": {**TABLE_6, **TABLES_2_AND_7, **SECTION_4, "label_conditioning": "cross-attention"},
        "decode": TABLE_4,
    },
    "paper-mnist-latent-flow": {"draw": {**TABLE_6, **TABLE_12}, "decode": TABLE_4},
}
# Tables 2, 7, 10 and 12: epochs and batch size of the U-Net.
TRAINED = dict.fromkeys(MNIST, (100, 512)) | {
    "paper-mnist-latent-cfg-concat": (40, 1024),
    "paper-mnist-latent-cfg-crossattn": (100, 1024),
}
# Tables 1, 6 and 9, in millions. Labels add to the U-Nets of table 10.
PARAMETERS = {
    "paper-mnist-ddpm": {"draw": 2.7},
    "paper-mnist-flow": {"draw": 2.7},
    "paper-mnist-latent-ddpm": {"draw": 2.8, "decode": 9.8},
    "paper-mnist-latent-flow": {"draw": 2.8, "decode": 9.8},
}

# --- S0, the cascade study, section 6.1

STUDY = {
    "coarse": {
        "size": 16,
        "timesteps": 25,
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "embedding": 32,
        "embedding_hidden": 128,
        "channels": 128,
        "latent": 256,
        "layers": 6,
        "skip_every": 2,
    },
    "up": {"hidden": 256, "factor": 2, "blocks": 2},
    "refine": {"features": 256, "blocks": 2},
}


def configs(resolved: ResolvedSpec) -> dict[str, dict[str, Any]]:
    return {stage.name: stage.config.model_dump() for stage in resolved.stages}


def chosen(config: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    return {name: config[name] for name in names}


@pytest.mark.parametrize("name", CDM)
def test_cascaded_diffusion_models_appendix_b(name: str) -> None:
    resolved = load_spec(name)
    training = resolved.spec.training
    phases = {phase.name: phase for phase in training.phases or []}
    found = {}
    for stage, config in configs(resolved).items():
        phase = phases[stage]
        assert phase.train == [stage]
        assert training.ema is not None
        assert phase.optimizer is not None
        assert phase.optimizer.kind == "adam"
        found[stage] = {
            "base channels": config["channels"],
            "channel multipliers": config["multipliers"],
            "residual blocks": config["blocks"],
            "attention resolutions": set(config["attention"]),
            "attention heads": config["heads"],
            "batch size": phase.batch_size or training.batch_size,
            "learning rate": phase.optimizer.lr,
            "steps": phase.steps,
            "dropout": config["dropout"],
            "ema": training.ema.decay,
            "timesteps": config["timesteps"],
            "schedule": config["schedule"],
            "learned variances": config["variance"] == "learned",
        }
    assert found == CDM[name]


@pytest.mark.parametrize("name", CDM)
def test_cascaded_diffusion_models_have_nothing_that_the_paper_does_not_state(name: str) -> None:
    resolved = load_spec(name)
    training = resolved.spec.training
    assert training.clip_norm is None
    for phase in training.phases or []:
        assert phase.schedule is not None
        assert (phase.schedule.kind, phase.schedule.warmup_steps) == ("constant", 0)
    assert {config["label_drop"] for config in configs(resolved).values()} == {0.0}
    assert {config["guidance"] for config in configs(resolved).values()} == {1.0}
    assert resolved.spec.evaluation.samples == 50_000  # section 4
    assert resolved.spec.evaluation.metrics == ["fid", "inception-score"]


@pytest.mark.parametrize(
    ("name", "stage"), [("imagenet128-cdm", "up128"), ("imagenet256-cdm", "up256")]
)
def test_high_resolutions_blur_and_take_100_steps(name: str, stage: str) -> None:
    config = configs(load_spec(name))[stage]
    wanted = {"augmentation": "blur", "noise_conditioning": "continuous", "steps": 100}
    assert chosen(config, wanted) == wanted


def test_the_noise_of_the_condition_is_that_of_timestep_501() -> None:
    config = configs(load_spec("imagenet64-cdm"))["up64"]
    # Table 1a is the row s = 501 of table 3a: FID 1.48, IS 67.95. Any s is trained (section 3.2).
    signal = alphas_cumprod(cosine_betas(4000))[500]
    level = 2 / math.pi * math.acos(math.sqrt(signal))
    assert config["s"] == pytest.approx(level, abs=5e-4)
    wanted = {"augmentation": "gaussian", "s_max": 1.0, "truncated": True}
    assert chosen(config, wanted) == wanted


@pytest.mark.parametrize("name", MNIST)
def test_the_mnist_models_of_diffusion_in_computer_vision(name: str) -> None:
    resolved = load_spec(name)
    found = configs(resolved)
    for stage, wanted in MNIST[name].items():
        assert chosen(found[stage], wanted) == wanted
    assert resolved.num_classes == (10 if "cfg" in name else None)
    latent = "latent" in name
    assert resolved.spec.data.size == 28
    assert str(resolved.stages[0].output) == ("2x4x4 latents" if latent else "1x28x28")
    training = resolved.spec.training
    # Tables 2, 5, 7 and 12: clipping only for latents.
    assert training.clip_norm == (1.0 if latent else None)
    assert training.ema is not None
    assert training.ema.decay == 0.995
    phases = {phase.name: phase for phase in training.phases or []}
    assert set(phases) == ({"autoencoder", "draw"} if latent else {"draw"})
    rates = {"draw": 1e-3, "autoencoder": 1e-4}
    lengths = {"draw": TRAINED[name], "autoencoder": (100, 512)}
    for key, phase in phases.items():
        assert phase.optimizer is not None
        assert phase.schedule is not None
        assert (phase.epochs, phase.batch_size or training.batch_size) == lengths[key]
        assert (phase.optimizer.kind, phase.optimizer.weight_decay) == ("adamw", 1e-4)
        assert phase.optimizer.lr == rates[key]
        assert (phase.schedule.kind, phase.schedule.warmup_steps) == ("cosine", 0)
        assert phase.schedule.final * phase.optimizer.lr == pytest.approx(1e-6)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_mnist_models_have_the_stated_number_of_parameters(name: str) -> None:
    from cascadezoo.build.plan import make_plan

    rows = {row.name: row.parameters for row in make_plan(load_spec(name), "cpu").stages}
    assert {stage: round(count / 1e6, 1) for stage, count in rows.items()} == PARAMETERS[name]


def test_the_cifar10_model_of_enhancing_diffusion_models() -> None:
    resolved = load_spec("paper-cifar10-ddim")
    config = configs(resolved)["draw"]
    # Sections IV-D3 and VII-E: linear, 250 DDIM steps in place of 1000; section V-A: eta 0.
    wanted = {"schedule": "linear", "timesteps": 1000, "sampler": "ddim", "steps": 250, "eta": 0.0}
    assert chosen(config, wanted) == wanted
    (phase,) = resolved.spec.training.phases or []
    assert phase.steps == 61_000  # section VIII-B2
    assert resolved.spec.training.batch_size == 128  # section III-B
    assert resolved.spec.data.flip
    assert resolved.spec.evaluation.metrics == ["fid", "inception-score"]  # section IV-B


def test_the_sweep_over_ddim_steps() -> None:
    from cascadezoo import load_sweep

    cells = load_sweep("paper-ddim-steps").cells
    found = {
        (c.spec["stages"][0]["config"]["steps"], c.spec["stages"][0]["config"]["eta"])
        for c in cells
    }
    # Table I has 10, 50 and 1000 steps; section VII-E has 250.
    assert found == {(steps, eta) for steps in (10, 50, 100, 250, 1000) for eta in (0.0, 1.0)}


@pytest.mark.parametrize("name", ["paper-baseline", "paper-baseline-fixed"])
def test_the_studys_baseline(name: str) -> None:
    resolved = load_spec(name)
    found = configs(resolved)
    assert {stage: chosen(found[stage], wanted) for stage, wanted in STUDY.items()} == STUDY
    training = resolved.spec.training
    assert training.batch_size == 128
    rows = [
        (p.epochs, p.teacher_forcing.start, p.teacher_forcing.end) for p in training.phases or []
    ]
    assert rows == [(35, 1.0, 1.0), (35, 0.9, 0.1), (30, 0.1, 0.0)]
    for phase in training.phases or []:
        assert phase.optimizer is not None
        assert phase.schedule is not None
        assert phase.optimizer.lr == 2e-4
        schedule = phase.schedule
        assert (schedule.kind, schedule.step_epochs, schedule.gamma) == ("step", 15, 0.5)


def test_the_fixed_baseline_is_the_baseline_and_three_settings() -> None:
    base, fixed = read_spec("paper-baseline")[0], read_spec("paper-baseline-fixed")[0]
    assert base["stages"][0]["name"] == "coarse"
    config = fixed["stages"][0]["config"]
    changed = {key: config.pop(key) for key in ("schedule", "zero_terminal_snr", "prediction")}
    assert changed == {"schedule": "cosine", "zero_terminal_snr": True, "prediction": "v"}
    for text in ("name", "description"):
        assert fixed.pop(text) != base.pop(text)
    assert fixed == base


def test_a_spec_without_base_is_complete() -> None:
    data = {"name": "x"}
    assert complete(data, "x") is data


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"base": "nobody"}, "base"),
        ({"base": 3}, "base"),
        ({"base": "paper-baseline-fixed"}, "base"),
        ({"base": "paper-baseline", "settings": []}, "settings"),
    ],
)
def test_a_base_must_be_a_complete_shipped_spec(data: dict[str, Any], path: str) -> None:
    with pytest.raises(SpecError) as caught:
        complete(data, "x")
    assert [problem.path for problem in caught.value.problems] == [path]


def test_settings_of_a_base_must_have_a_place() -> None:
    with pytest.raises(InputError) as caught:
        complete({"base": "paper-baseline", "settings": {"stages.nobody.kind": 1}}, "x")
    assert caught.value.code == "input-setting-no-item"
