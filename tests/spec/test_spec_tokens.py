"""Discrete latents: shapes of tokens, and which stages may stand beside each other."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from errors_help import raises

from cascadezoo.errors import SpecError
from cascadezoo.plugins.manager import PluginHost
from cascadezoo.plugins.registry import Origin, StageEntry
from cascadezoo.spec import resolve
from cascadezoo.spec.configs import (
    ConfigError,
    DecoderConfig,
    GeneratorConfig,
    ImageShape,
    StageConfig,
    UpsamplerConfig,
)


class PriorConfig(GeneratorConfig):
    """Makes tokens, for decoders without a limit."""

    makes_tokens: ClassVar[bool] = True
    most: int = 64

    def check_downstream(self, downstream: StageConfig) -> None:
        if isinstance(downstream, CodesConfig) and downstream.vocabulary > self.most:
            raise ConfigError("most", f"is {self.most}, less than {downstream.vocabulary}")


class CodesConfig(DecoderConfig):
    """Decodes tokens."""

    vocabulary: int = 16

    def upstream_shape(self, output: ImageShape) -> ImageShape:
        return ImageShape(1, output.size // 2, latent=True, tokens=self.vocabulary)


def resolved(*stages: tuple[str, dict[str, Any]]) -> Any:
    from importlib.metadata import entry_points

    points = entry_points(group="cascadezoo")
    builtin = [p for p in points if p.value == "cascadezoo.plugins.builtin"]
    registry = PluginHost(builtin).registry
    for kind, role, name in (("prior", "generator", "Prior"), ("codes", "decoder", "Codes")):
        entry = StageEntry(
            name=f"{kind}.v1",
            role=role,
            summary="",
            config=f"{__name__}:{name}Config",
            impl=f"{__name__}:{name}",
        )
        registry.stages.add(entry, Origin("pluggy", "1.0", "toys"))
    data = {
        "name": "tokens",
        "data": {"source": "shapes", "config": {"size": 16}},
        "stages": [
            {"name": f"s{i}", "kind": f"{kind}.v1", "config": config}
            for i, (kind, config) in enumerate(stages)
        ],
    }
    return resolve(data, registry=registry)


def test_the_shape_of_tokens() -> None:
    shape = ImageShape(1, 7, latent=True, tokens=128)
    assert str(shape) == "1x7x7 tokens of 128"
    assert shape != ImageShape(1, 7, latent=True)
    assert str(ImageShape(4, 8, latent=True)) == "4x8x8 latents"
    for wrong in ({"latent": True, "tokens": 0}, {"tokens": 4}):
        with pytest.raises(ValueError, match="latent=True"):
            ImageShape(1, 7, **wrong)
    assert UpsamplerConfig().upstream_shape(ImageShape(1, 8, True, 5)) == ImageShape(1, 4, True, 5)


def test_a_generator_of_tokens_before_their_decoder() -> None:
    spec = resolved(("prior", {}), ("codes", {}))
    assert [str(stage.output) for stage in spec.stages] == ["1x8x8 tokens of 16", "3x16x16"]
    assert spec.stages[0].config.size == 8


@pytest.mark.parametrize(
    "stages",
    [
        # Before a continuous autoencoder, an upsampler, and as the last stage.
        (("prior", {}), ("autoencoder", {"channels": 8})),
        (("prior", {}), ("pixelshuffle", {})),
        (("prior", {}),),
        # Others before a decoder of tokens.
        (("flow", {"channels": 8}), ("codes", {})),
    ],
    ids=["autoencoder", "upsampler", "alone", "flow"],
)
def test_tokens_and_other_images_do_not_mix(stages: tuple[tuple[str, dict[str, Any]], ...]) -> None:
    with raises(SpecError, "spec", problems={"stages.0.kind": "tokens"}) as caught:
        resolved(*stages)
    text = str(caught.value)
    assert stages[0][0] in text
    assert "tokens" in text


def test_a_config_checks_the_stage_after_it() -> None:
    assert resolved(("prior", {"most": 16}), ("codes", {"vocabulary": 16}))
    with raises(SpecError, "spec", problems={"stages.0.config.most": "invalid"}) as caught:
        resolved(("prior", {"most": 8}), ("codes", {"vocabulary": 16}))
    assert "is 8, less than 16" in str(caught.value)
