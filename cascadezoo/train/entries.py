"""The entries of the built-in extra losses. Does not import torch."""

from __future__ import annotations

from cascadezoo.plugins.registry import LossEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    LossEntry(
        name="lpips",
        summary="learned perceptual distance (Zhang et al. 2018) on VGG, AlexNet or SqueezeNet",
        config="cascadezoo.train.loss_configs:LpipsConfig",
        impl="cascadezoo.train.lpips_loss:LpipsLoss",
    ),
)
