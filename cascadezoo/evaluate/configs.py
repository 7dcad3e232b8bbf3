"""The configs of built-in metrics and feature extractors. Free of torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cascadezoo.spec.configs import Model

__all__ = ["ClassifierMetricConfig", "LpipsMetricConfig", "TimmConfig"]


class LpipsMetricConfig(Model):
    """Learned Perceptual Image Patch Similarity, version 0.1 (Zhang et al. 2018)."""

    argument: ClassVar[str] = "net"
    """The field that a name sets after the colon: ``lpips:alex``."""

    net: Literal["vgg", "alex", "squeeze"] = "vgg"
    """The backbone; its ImageNet weights come through torchvision (TORCH_HOME)."""


class ClassifierMetricConfig(Model):
    """The classifier that is trained to measure with."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 14
    """How often it sees each image that it learns from; where these are few, more often."""

    real_images: Annotated[int, Field(ge=1, le=2**31 - 1)] = 10_000
    """How many real images the judge of label agreement learns from, or all where there are
    fewer; for CAS it is as many as there are samples."""

    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """Of its weights, order and augmentation."""


class TimmConfig(Model):
    """A network of timm."""

    argument: ClassVar[str] = "model"
    """The field that a name sets after the colon: ``timm:resnet18.a1_in1k``."""

    model: Annotated[str, Field(min_length=1, max_length=100)]
    """timm's name of the network, with the tag of its weights."""
