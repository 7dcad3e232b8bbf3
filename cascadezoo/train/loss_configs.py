"""Configs of the built-in extra losses. Free of torch."""

from __future__ import annotations

from typing import Literal

from cascadezoo.spec.configs import Model

__all__ = ["LpipsConfig"]


class LpipsConfig(Model):
    """Learned Perceptual Image Patch Similarity, version 0.1 (Zhang et al. 2018)."""

    net: Literal["vgg", "alex", "squeeze"] = "vgg"
    """The backbone; its ImageNet weights come through torchvision (TORCH_HOME)."""
