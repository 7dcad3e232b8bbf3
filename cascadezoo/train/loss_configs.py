"""Configs of the built-in extra losses. Does not import torch."""

from __future__ import annotations

from typing import Literal

from cascadezoo.spec.configs import Model

__all__ = ["LpipsConfig"]


class LpipsConfig(Model):
    """Learned Perceptual Image Patch Similarity, version 0.1 (Zhang et al. 2018)."""

    net: Literal["vgg", "alex", "squeeze"] = "vgg"
    """The backbone, with ImageNet weights from torchvision (TORCH_HOME)."""
