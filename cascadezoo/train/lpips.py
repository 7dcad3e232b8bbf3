"""LPIPS as a training loss, through the ``lpips`` package and never with random weights."""

from __future__ import annotations

import warnings
from urllib.error import URLError

import torch
from torch import Tensor, nn

from cascadezoo.configs import ImageShape
from cascadezoo.errors import InputError, WeightsUnavailable
from cascadezoo.train.losses import LpipsConfig

__all__ = ["LpipsLoss"]


class LpipsLoss(nn.Module):
    """Mean LPIPS between estimates and targets (Zhang et al. 2018, arXiv:1801.03924).

    Args:
        config: which backbone.
        shape: the images that are compared; grey ones are repeated to three channels.

    Raises:
        WeightsUnavailable: the backbone's weights are neither in TORCH_HOME nor to be downloaded.
        InputError: the images are too small for the backbone, or are latents.
    """

    def __init__(self, config: LpipsConfig, shape: ImageShape) -> None:
        super().__init__()
        if shape.latent:
            raise InputError("LPIPS compares images, and this stage makes latents")
        self.network = _load(config.net)
        self.network.requires_grad_(False).to(memory_format=torch.channels_last)
        probe = torch.zeros(1, 3, shape.size, shape.size)
        try:
            with torch.no_grad():
                self.network(probe, probe)
        except RuntimeError as error:
            raise InputError(
                f"{shape.size}x{shape.size} images are too small for LPIPS with {config.net}",
                hint="use net vgg (16x16 and more), or set the loss's weight to 0",
            ) from error

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """The mean distance, a scalar.

        Args:
            estimate: [N, C, H, W] in [-1, 1], C of 1 or 3.
            target: the same shape.
        """
        if estimate.shape[1] == 1:
            estimate, target = estimate.expand(-1, 3, -1, -1), target.expand(-1, 3, -1, -1)
        estimate = estimate.contiguous(memory_format=torch.channels_last)
        target = target.contiguous(memory_format=torch.channels_last)
        distance: Tensor = self.network(estimate, target)
        return distance.float().mean()


def _load(net: str) -> nn.Module:
    import lpips

    try:
        with warnings.catch_warnings():
            # lpips asks torchvision in a way that it deprecates.
            warnings.simplefilter("ignore", UserWarning)
            network: nn.Module = lpips.LPIPS(net=net, verbose=False)
    except (URLError, OSError, RuntimeError) as error:
        others = " or ".join(n for n in ("vgg", "alex", "squeeze") if n != net)
        raise WeightsUnavailable(
            f"the weights of LPIPS's {net} backbone cannot be had: {error}",
            hint="one of three: put torchvision's weights file into $TORCH_HOME/hub/checkpoints; "
            f"choose another net, {others} (training.losses.N.config.net); "
            "or set the loss's weight to 0 (--set training.losses=[] drops all such losses)",
        ) from error
    if not all(bool(p.isfinite().all()) for p in network.parameters()):
        raise WeightsUnavailable(
            f"the weights file of LPIPS's {net} backbone holds NaN or infinity",
            hint="remove it from $TORCH_HOME/hub/checkpoints and let it be downloaded again",
        )
    return network
