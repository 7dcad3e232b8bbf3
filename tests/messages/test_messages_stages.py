"""The wording of errors and warnings of stages, datasets and specs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from cascadezoo.data.pixels import check_images
from cascadezoo.errors import CascadezooError
from cascadezoo.spec import load_spec
from cascadezoo.spec.configs import ConfigError, ImageShape
from cascadezoo.stages.autoencoder.config import AutoencoderConfig
from cascadezoo.stages.dae.config import DAEConfig
from cascadezoo.stages.diffusion.config import DiffusionConfig
from cascadezoo.stages.request_options import checked_guidance, share
from cascadezoo.stages.resnet.config import ResNetConfig
from cascadezoo.stages.transposed.config import TransposedConfig
from cascadezoo.stages.vit.config import ViTConfig

SHAPE = ImageShape(3, 32)


def load(*settings: str) -> None:
    load_spec("diffusion-pixelshuffle-vit-tiny", settings=settings)


MESSAGES: dict[str, tuple[Callable[[], object], str]] = {
    "guidance": (
        lambda: checked_guidance(-1.0),
        "cannot sample with guidance -1\n"
        "Hint: use 0 or more: 1 is none, 2 to 4 follow the label more closely",
    ),
    "a fraction": (
        lambda: share({"eta": 2}, "eta", "0 adds no noise, 1 as much as ddpm"),
        "eta must be between 0 and 1, not 2\nHint: 0 adds no noise, 1 as much as ddpm",
    ),
    "images that are not finite": (
        lambda: check_images(torch.full((2, 3, 4, 4), torch.nan)),
        "2 of 2 images contain NaN or infinite values (number 0, 1)\n"
        "Hint: the model diverged: lower its learning rate, clip gradients, or train with "
        '"precision": "fp32"',
    ),
    "a factor": (
        lambda: load("stages.1.config.factor=3"),
        "stages.1.config.factor: is 3, which does not divide 16 pixels",
    ),
    "a kind in the wrong place": (
        lambda: load("stages.0.kind=vit", "stages.0.config={}"),
        "stages.0.kind: the first stage must be a generator; vit.v1 is a refiner",
    ),
    "a repeated name": (
        lambda: load("stages.2.name=up"),
        "another of the stages already has the name 'up'",
    ),
    "a requirement": (
        lambda: load('requires=["pluggy>=900"]'),
        "requires.0: requires pluggy>=900, but pluggy ",
    ),
    "too many levels": (
        lambda: AutoencoderConfig(multipliers=[1] * 7).fit(ImageShape(1, 28)),
        "has 7 levels, but 6 levels already reduce 28 pixels to one",
    ),
    "too many halvings": (
        lambda: ResNetConfig(halvings=8).fit(SHAPE),
        "is 8, but 5 halvings already reduce 32 pixels to one",
    ),
    "a kernel with gaps": (
        lambda: TransposedConfig(factor=3, kernel=2).fit(ImageShape(3, 33)),
        "is 2, which leaves gaps at a stride of 3",
    ),
    "patches": (
        lambda: ViTConfig(patch_size=5).fit(SHAPE),
        "is 5, which does not divide 32 pixels",
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_messages_say_what_where_and_how_to_fix_it(case: str) -> None:
    action, text = MESSAGES[case]
    with pytest.raises((CascadezooError, ConfigError)) as caught:
        action()
    assert text in str(caught.value)


def test_warnings_say_what_to_change() -> None:
    assert list(DiffusionConfig().advice(ImageShape(3, 16), 10)) == [
        "the last of 25 timesteps still keeps 78 % of the signal's variance, so sampling from pure "
        "noise does not match training; set zero_terminal_snr with prediction v (see "
        "paper-baseline-fixed)"
    ]
    assert list(DAEConfig(levels=4).advice(ImageShape(3, 16), None)) == [
        "the noise of the last of 4 levels has a standard deviation of 1, so images remain visible "
        "and sampling from pure noise does not match training; raise levels or sigma"
    ]
