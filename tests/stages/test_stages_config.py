"""Configs: errors with their path, and filled-in values."""

from __future__ import annotations

from typing import Any

import pytest
from errors_help import raises_config
from pydantic import ValidationError
from stage_cases import ENTRIES, SMALL

from cascadezoo.spec.configs import ImageShape
from cascadezoo.stages.diffusion.config import DiffusionConfig
from cascadezoo.stages.flow.config import FlowConfig
from cascadezoo.stages.pixelshuffle.config import PixelShuffleConfig
from cascadezoo.stages.vit.config import ViTConfig


@pytest.mark.parametrize(
    ("kind", "settings", "path", "kind_of_error"),
    [
        ("flow.v1", {"chanels": 8}, "chanels", "extra_forbidden"),
        ("flow.v1", {"channels": 0}, "channels", "greater_than_equal"),
        ("flow.v1", {"channels": "32"}, "channels", "int_type"),
        ("flow.v1", {"multipliers": []}, "multipliers", "too_short"),
        ("flow.v1", {"multipliers": [1, 0]}, "multipliers.1", "greater_than_equal"),
        ("flow.v1", {"multipliers": [1] * 9}, "multipliers", "too_long"),
        ("flow.v1", {"blocks": 0}, "blocks", "greater_than_equal"),
        ("flow.v1", {"dropout": 1.0}, "dropout", "less_than"),
        ("flow.v1", {"label_drop": 1.5}, "label_drop", "less_than_equal"),
        ("flow.v1", {"guidance": -1}, "guidance", "greater_than_equal"),
        ("flow.v1", {"guidance": float("nan")}, "guidance", "finite_number"),
        ("flow.v1", {"steps": 0}, "steps", "greater_than_equal"),
        ("flow.v1", {"sampler": "ddpm"}, "sampler", "literal_error"),
        ("flow.v1", {"time_sampling": "cosine"}, "time_sampling", "literal_error"),
        ("diffusion.v1", {"skip_every": 7}, "skip_every", "value_error"),
        ("diffusion.v1", {"layers": 1}, "skip_every", "value_error"),
        ("diffusion.v1", {"beta_start": 0.0}, "beta_start", "greater_than"),
        ("diffusion.v1", {"beta_start": 0.03}, "beta_end", "value_error"),
        ("diffusion.v1", {"beta_end": 0.0001}, "beta_end", "value_error"),
        ("diffusion.v1", {"beta_end": 0.9, "timesteps": 200}, "beta_end", "value_error"),
        ("diffusion.v1", {"timesteps": 1}, "timesteps", "greater_than_equal"),
        ("diffusion.v1", {"steps": 26}, "steps", "value_error"),
        ("diffusion.v1", {"zero_terminal_snr": True}, "prediction", "value_error"),
        ("diffusion.v1", {"prediction": "noise"}, "prediction", "literal_error"),
        ("diffusion.v1", {"eta": 1.1}, "eta", "less_than_equal"),
        ("pixelshuffle.v1", {"factor": 5}, "factor", "literal_error"),
        ("pixelshuffle.v1", {"blocks": -1}, "blocks", "greater_than_equal"),
        ("pixelshuffle.v1", {"residual_scale": 0.0}, "residual_scale", "greater_than"),
        ("pixelshuffle.v1", {"interpolation": "area"}, "interpolation", "literal_error"),
        ("vit.v1", {"heads": 7}, "heads", "value_error"),
        ("vit.v1", {"patch_size": 0}, "patch_size", "greater_than_equal"),
        ("vit.v1", {"mlp_ratio": 0.5}, "mlp_ratio", "greater_than_equal"),
    ],
)
def test_invalid_settings_are_rejected_with_their_path(
    kind: str, settings: dict[str, Any], path: str, kind_of_error: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        ENTRIES[kind].load_config().model_validate(settings)
    (error,) = caught.value.errors()
    assert ".".join(map(str, error["loc"])) == path
    assert error["type"] == kind_of_error


@pytest.mark.parametrize(
    ("config", "size", "field", "code"),
    [
        (FlowConfig(size=8), 16, "size", "size"),
        (FlowConfig(attention=[7]), 16, "attention", "no-level"),
        (FlowConfig(attention=[14], multipliers=[1, 2, 2, 2]), 28, "attention", "no-level"),
        (DiffusionConfig(size=8), 16, "size", "size"),
        (ViTConfig(patch_size=5), 32, "patch_size", "not-divisible"),
    ],
)
def test_configs_that_contradict_their_place_are_rejected(
    config: FlowConfig, size: int, field: str, code: str
) -> None:
    with raises_config(field, code):
        config.fit(ImageShape(3, size))


@pytest.mark.parametrize(
    ("config", "size", "upstream"),
    [
        (FlowConfig(), 16, None),
        (DiffusionConfig(), 16, None),
        (PixelShuffleConfig(factor=4), 32, ImageShape(3, 8)),
        (ViTConfig(), 32, ImageShape(3, 32)),
    ],
)
def test_the_required_upstream_shape(
    config: FlowConfig, size: int, upstream: ImageShape | None
) -> None:
    assert config.fit(ImageShape(3, size)).upstream_shape(ImageShape(3, size)) == upstream


def test_generators_take_the_size_that_follows() -> None:
    assert FlowConfig().fit(ImageShape(3, 16)).size == 16
    assert DiffusionConfig(size=16).fit(ImageShape(3, 16)).size == 16


@pytest.mark.parametrize("kind", sorted(ENTRIES))
def test_defaults_survive_a_round_trip_and_every_field_is_described(kind: str) -> None:
    model = ENTRIES[kind].load_config()
    config = model()
    assert model.model_validate_json(config.model_dump_json()) == config
    fields = model.model_json_schema()["properties"]
    assert [name for name, field in fields.items() if not field.get("description")] == []


def test_the_study_is_the_default() -> None:
    config = DiffusionConfig()
    assert (config.channels, config.latent, config.layers, config.skip_every) == (128, 256, 6, 2)
    assert (config.timesteps, config.beta_start, config.beta_end) == (25, 1e-4, 0.02)
    assert (config.embedding, config.embedding_hidden) == (32, 128)
    assert (config.schedule, config.prediction, config.sampler) == ("linear", "eps", "ddpm")


def test_the_second_diffusion_differs_from_the_first_in_its_defaults() -> None:
    first = SMALL["diffusion.v1"].config().model_dump()
    second = SMALL["diffusion.v2"].config()
    changed = {name: value for name, value in second.model_dump().items() if value != first[name]}
    assert changed == {"schedule": "cosine", "zero_terminal_snr": True, "prediction": "v"}
    shape = ImageShape(3, 12)
    assert second.first_signal(shape) < 1e-12
    assert not list(second.advice(shape, None))
    assert list(SMALL["diffusion.v1"].config().advice(shape, None))
