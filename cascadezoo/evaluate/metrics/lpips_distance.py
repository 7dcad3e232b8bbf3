"""LPIPS as metrics use it: the network of a config, with its digest, on bytes and in parts."""

from __future__ import annotations

import torch
from torch import Tensor

from cascadezoo.data.pixels import to_float
from cascadezoo.errors import InputError
from cascadezoo.evaluate.configs import LpipsMetricConfig
from cascadezoo.evaluate.features.base import tensors_digest
from cascadezoo.nn.perceptual import VERSION, Perceptual

__all__ = ["LEAST_LPIPS", "Lpips"]

LEAST_LPIPS = 1e-4
"""By how much mean distances may differ between machines for rounding alone."""

_PIXELS = 1 << 18


class Lpips:
    """Distances of pairs of images.

    Args:
        config: which backbone.
        device: where it shall be.

    Raises:
        WeightsUnavailableError: the backbone's weights are not to be had.
    """

    def __init__(self, config: LpipsMetricConfig, device: torch.device) -> None:
        others = [net for net in ("vgg", "alex", "squeeze") if net != config.net]
        self.net = config.net
        self.network = Perceptual(
            config.net,
            hint="one of three: put torchvision's weights file into $TORCH_HOME/hub/checkpoints; "
            f"choose another backbone, lpips:{others[0]} or lpips:{others[1]}; "
            "or measure without it",
        )
        self.sha256 = tensors_digest(self.network.network.state_dict().items())
        self.network.to(device)
        self.device = device

    def takes(self, size: int) -> bool:
        """Whether images of so many pixels in height and width are large enough."""
        return self.network.takes(size)

    def require(self, size: int) -> None:
        """Refuse images that are too small.

        Raises:
            InputError: they are.
        """
        if not self.takes(size):
            raise InputError(
                f"{size}x{size} images are too small for LPIPS with {self.net}",
                hint="vgg takes images of 16x16 and more, alex and squeeze larger ones only",
                code="input-images-too-small",
                size=size,
                name=self.net,
            )

    def __call__(self, images: Tensor, others: Tensor) -> Tensor:
        """The distance of each image to its counterpart.

        Args:
            images: uint8, or floating in [-1, 1]; [N, C, H, W] with 1 or 3 channels.
            others: the same shape.

        Returns:
            float32 [N], at least 0, on the CPU.
        """
        parts = max(1, _PIXELS // (images.shape[-1] * images.shape[-2]))
        rows = [torch.empty(0)]
        with torch.inference_mode():
            pairs = zip(torch.split(images, parts), torch.split(others, parts), strict=True)
            for left, right in pairs:
                pair = to_float(left.to(self.device)), to_float(right.to(self.device))
                rows.append(self.network(*pair).cpu())
        return torch.cat(rows)

    def described(self) -> dict[str, str]:
        """The fields of a figure that tell the network."""
        return {
            "extractor": self.net,
            "extractor_version": VERSION,
            "extractor_sha256": self.sha256,
        }
