"""The config of autoencoder.v1: what it refuses and what it warns of."""

from __future__ import annotations

import pytest
from errors_help import raises_config

from cascadezoo.spec.configs import ImageShape
from cascadezoo.stages.autoencoder.config import AutoencoderConfig


def test_levels_that_cannot_be_halved_are_refused() -> None:
    config = AutoencoderConfig(multipliers=[1] * 7)
    with raises_config("multipliers", "levels") as caught:
        config.fit(ImageShape(1, 28))
    assert caught.value.field == "multipliers"
    assert AutoencoderConfig(multipliers=[1] * 6).fit(ImageShape(1, 28)).upstream_shape(
        ImageShape(1, 28)
    ) == ImageShape(4, 1, latent=True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"multipliers": [1]}, ["hold as many numbers as the image"]),
        ({"kl_weight": 0.0}, ["nothing keeps the latents"]),
        (
            {"kl_weight": 0.0, "kl_warmup": 0.5},
            ["nothing keeps the latents", "kl_warmup has no effect"],
        ),
        ({}, []),
    ],
)
def test_advice(settings: dict[str, object], said: list[str]) -> None:
    found = list(AutoencoderConfig.model_validate(settings).advice(ImageShape(3, 32), None))
    assert len(found) == len(said)
    assert all(part in text for part, text in zip(said, found, strict=True))
