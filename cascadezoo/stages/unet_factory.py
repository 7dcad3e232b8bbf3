"""Builds the U-Net of a config."""

from __future__ import annotations

from cascadezoo.nn.unet import UNet
from cascadezoo.stages.base import StageGeometry
from cascadezoo.stages.shared_config import UNetConfig

__all__ = ["is_convolutional", "make_unet"]


def make_unet(
    config: UNetConfig,
    geometry: StageGeometry,
    num_classes: int | None,
    *,
    learned: bool = False,
    condition: int = 0,
    levels: int = 0,
) -> UNet:
    """Build the network of a stage.

    Args:
        config: the fields of the U-Net.
        geometry: the place of the stage.
        num_classes: number of labels; None for a network without labels.
        learned: whether the network also outputs a variance for each value.
        condition: channels of a further image as condition.
        levels: number of further noise levels as conditions.
    """
    image = geometry.output.channels
    return UNet(
        image,
        2 * image if learned else image,
        size=geometry.output.size,
        channels=config.channels,
        multipliers=config.multipliers,
        blocks=config.blocks,
        dense_skips=config.dense_skips,
        attention=config.attention,
        middle_attention=config.middle_attention,
        heads=config.heads,
        scale_shift=config.scale_shift,
        dropout=config.dropout,
        num_classes=num_classes,
        label_conditioning=config.label_conditioning,
        condition=condition,
        levels=levels,
        pad_to=config.pad_to,
    )


def is_convolutional(config: UNetConfig) -> bool:
    """Whether the network has no attention, whose results would depend on the image's size."""
    crosses = config.label_conditioning == "cross-attention"
    return not (config.attention or config.middle_attention or crosses)
