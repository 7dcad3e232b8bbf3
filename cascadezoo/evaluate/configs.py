"""The configs of built-in metrics and feature extractors. Does not import torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cascadezoo.spec.configs import Model

__all__ = ["ClassifierMetricConfig", "LpipsMetricConfig", "TimmConfig"]


class LpipsMetricConfig(Model):
    """Learned Perceptual Image Patch Similarity, version 0.1 (Zhang et al. 2018)."""

    argument: ClassVar[str] = "net"
    """The field that the part of a name after the colon sets: ``lpips:alex``."""

    net: Literal["vgg", "alex", "squeeze"] = "vgg"
    """The backbone; its ImageNet weights come through torchvision (TORCH_HOME)."""


class ClassifierMetricConfig(Model):
    """The classifier that the metric trains."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 14
    """Number of epochs; more if the training images are few."""

    real_images: Annotated[int, Field(ge=1, le=2**31 - 1)] = 10_000
    """Maximum number of real images to train the classifier of label agreement. CAS uses as many
    as there are samples."""

    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """Seed of its weights, data order and augmentation."""


class TimmConfig(Model):
    """A network of timm."""

    argument: ClassVar[str] = "model"
    """The field that the part of a name after the colon sets: ``timm:resnet18.a1_in1k``."""

    model: Annotated[str, Field(min_length=1, max_length=100)]
    """Name of the network in timm, with the tag of its weights."""
