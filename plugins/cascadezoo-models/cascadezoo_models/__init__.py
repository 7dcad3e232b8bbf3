"""Pretrained cascades in a distribution, which work offline and without the Hub."""

import json
from collections.abc import Iterable
from importlib import resources
from typing import Any

from cascadezoo import SpecEntry, ZooEntry, hookimpl


@hookimpl
def register_zoos() -> Iterable[ZooEntry]:
    """The models of this distribution."""
    return [
        ZooEntry(
            name="models",
            summary="pretrained cascades in the distribution cascadezoo-models",
            impl="cascadezoo_models:load",
            folder="cascadezoo_models/models",
        )
    ]


@hookimpl
def register_specs() -> Iterable[SpecEntry]:
    """The specs of models that one CPU core trains in an hour."""
    return [
        SpecEntry(name=name, summary=summary, impl=f"cascadezoo_models.specs:{name}.json")
        for name, summary in (
            ("mnist", "MNIST digits at 28x28 by two rectified flows"),
            ("fashion", "Fashion-MNIST garments at 28x28 by two rectified flows"),
            ("upscaler-x2", "an upsampler of pictures by convolutions, trained on CIFAR-10"),
        )
    ]


def load() -> dict[str, Any]:
    """The manifest of the models."""
    text = resources.files(__name__).joinpath("zoo_manifest.json").read_text(encoding="utf-8")
    manifest: dict[str, Any] = json.loads(text)
    return manifest
