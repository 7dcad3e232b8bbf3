"""LPIPS by the ``lpips`` package, for training and metrics. It never uses random weights."""

from __future__ import annotations

import warnings
from urllib.error import URLError

import torch
from torch import Tensor, nn

from cascadezoo.errors import WeightsUnavailableError

__all__ = ["VERSION", "Perceptual"]

VERSION = "0.1"
"""The version of LPIPS's linear layers."""


class Perceptual(nn.Module):
    """Learned Perceptual Image Patch Similarity (Zhang et al. 2018, arXiv:1801.03924).

    Its weights are frozen; gradients reach the images.

    Args:
        net: the backbone: ``vgg``, ``alex`` or ``squeeze``.
        hint: alternatives if the backbone's weights are unavailable.

    Raises:
        WeightsUnavailableError: the backbone's weights are not in TORCH_HOME and cannot be
            downloaded, or they are damaged.
    """

    def __init__(self, net: str, *, hint: str) -> None:
        super().__init__()
        self.network = _load(net, hint)
        self.network.requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """The distance of each image to its counterpart, float32 [N], at least 0.

        Args:
            images: floating [N, C, H, W] in [-1, 1], C of 1 or 3; grey is repeated to three.
            others: the same shape.
        """
        if images.shape[1] == 1:
            images, others = images.expand(-1, 3, -1, -1), others.expand(-1, 3, -1, -1)
        images = images.contiguous(memory_format=torch.channels_last)
        others = others.contiguous(memory_format=torch.channels_last)
        distances: Tensor = self.network(images, others)
        return distances.float().flatten()

    def takes(self, size: int) -> bool:
        """Whether images of this height and width in pixels are large enough."""
        device = next(self.network.parameters()).device
        probe = torch.zeros(1, 3, size, size, device=device)
        try:
            with torch.no_grad():
                self.network(probe, probe)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            return False
        return True


def _load(net: str, hint: str) -> nn.Module:
    # lpips imports torchvision, which takes seconds.
    import lpips

    try:
        with warnings.catch_warnings():
            # lpips uses a deprecated argument of torchvision.
            warnings.simplefilter("ignore", UserWarning)
            network: nn.Module = lpips.LPIPS(net=net, verbose=False)
    except (URLError, OSError, RuntimeError) as error:
        raise WeightsUnavailableError(
            f"the weights of the {net} backbone of LPIPS are unavailable: {error}",
            hint=hint,
            code="weights-unavailable",
            name=net,
        ) from error
    if not all(bool(p.isfinite().all()) for p in network.parameters()):
        raise WeightsUnavailableError(
            f"the weights file of the {net} backbone of LPIPS contains NaN or infinity",
            hint="remove it from $TORCH_HOME/hub/checkpoints to download it again",
            code="weights-not-finite",
            name=net,
        )
    return network
