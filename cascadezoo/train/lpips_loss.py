"""LPIPS as a training loss."""

from __future__ import annotations

from torch import Tensor, nn

from cascadezoo.errors import InputError
from cascadezoo.nn.perceptual import Perceptual
from cascadezoo.spec.configs import ImageShape
from cascadezoo.train.loss_configs import LpipsConfig

__all__ = ["LpipsLoss"]


class LpipsLoss(nn.Module):
    """Mean LPIPS between estimates and targets (Zhang et al. 2018, arXiv:1801.03924).

    Args:
        config: the backbone.
        shape: the shape of the images; one channel is repeated to three.

    Raises:
        WeightsUnavailableError: the backbone's weights are not in TORCH_HOME and cannot be
            downloaded.
        InputError: the images are too small for the backbone, or are latents.
    """

    def __init__(self, config: LpipsConfig, shape: ImageShape) -> None:
        super().__init__()
        if shape.latent:
            raise InputError(
                "LPIPS compares images, but this stage makes latents", code="input-lpips-latents"
            )
        others = " or ".join(n for n in ("vgg", "alex", "squeeze") if n != config.net)
        self.perceptual = Perceptual(
            config.net,
            hint="put torchvision's weights file into $TORCH_HOME/hub/checkpoints, "
            f"choose another net, {others} (training.losses.N.config.net), "
            "or set the loss's weight to 0 (--set training.losses=[] removes all such losses)",
        )
        if not self.perceptual.takes(shape.size):
            raise InputError(
                f"{shape.size}x{shape.size} images are too small for LPIPS with {config.net}",
                hint="use net vgg (16x16 or more), or set the loss's weight to 0",
                code="input-images-too-small",
                size=shape.size,
                name=config.net,
            )

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """The mean distance, a scalar.

        Args:
            estimate: [N, C, H, W] in [-1, 1], C of 1 or 3.
            target: the same shape.
        """
        distances: Tensor = self.perceptual(estimate, target)
        return distances.mean()
