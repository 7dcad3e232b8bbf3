"""LPIPS for metrics: on 8-bit images, in chunks, with the digest of the network."""

from __future__ import annotations

import torch
from torch import Tensor

from cascadezoo.data.pixels import to_float
from cascadezoo.errors import InputError
from cascadezoo.evaluate.configs import LpipsNetConfig
from cascadezoo.evaluate.features.base import FeatureExtractor, tensors_digest
from cascadezoo.nn.perceptual import VERSION, Perceptual

__all__ = ["MIN_TOLERANCE", "Lpips", "prepare"]

MIN_TOLERANCE = 1e-4
"""Minimum tolerance of a mean distance, for rounding differences between machines."""

_PIXELS = 1 << 18


class Lpips:
    """Distances of pairs of images.

    Args:
        config: the backbone.
        device: the device of the network.

    Raises:
        WeightsUnavailableError: the weights of the backbone are unavailable.
    """

    def __init__(self, config: LpipsNetConfig, device: torch.device) -> None:
        others = [net for net in ("vgg", "alex", "squeeze") if net != config.net]
        self.net = config.net
        self.network = Perceptual(
            config.net,
            hint="put torchvision's weights file into $TORCH_HOME/hub/checkpoints; or choose "
            f"another backbone, lpips:{others[0]} or lpips:{others[1]}; or leave the metric out",
        )
        self.sha256 = tensors_digest(self.network.network.state_dict().items())
        self.network.to(device)
        self.device = device

    def takes(self, size: int) -> bool:
        """Whether images with this height and width in pixels are large enough."""
        return self.network.takes(size)

    def require(self, size: int) -> None:
        """Refuse images that are too small.

        Raises:
            InputError: images of this size are too small for the backbone.
        """
        if not self.takes(size):
            raise InputError(
                f"{size}x{size} images are too small for LPIPS with {self.net}",
                hint="vgg needs at least 16x16; alex and squeeze need larger images",
                code="input-images-too-small",
                size=size,
                name=self.net,
            )

    def __call__(self, images: Tensor, others: Tensor) -> Tensor:
        """Compute the distance of each image to its counterpart.

        Args:
            images: uint8, or floating in [-1, 1]; [N, C, H, W] with 1 or 3 channels.
            others: the counterparts, in the same shape.

        Returns:
            float32 [N], at least 0, on the CPU.
        """
        chunk = max(1, _PIXELS // (images.shape[-1] * images.shape[-2]))
        rows = [torch.empty(0)]
        with torch.inference_mode():
            pairs = zip(torch.split(images, chunk), torch.split(others, chunk), strict=True)
            for left, right in pairs:
                pair = to_float(left.to(self.device)), to_float(right.to(self.device))
                rows.append(self.network(*pair).cpu())
        return torch.cat(rows)

    def describe(self) -> dict[str, str]:
        """The fields of a figure that describe the network."""
        return {
            "extractor": self.net,
            "extractor_version": VERSION,
            "extractor_sha256": self.sha256,
        }


def prepare(config: LpipsNetConfig, extractor: FeatureExtractor, size: int) -> None:
    """Load the weights of the backbone, and run it on an image of this size, before training.

    Raises:
        InputError: images of this size are too small for the backbone.
        WeightsUnavailableError: the weights of the backbone are unavailable.
    """
    Lpips(config, extractor.device).require(size)
