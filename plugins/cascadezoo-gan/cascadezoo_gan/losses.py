"""The losses of a GAN, as pure functions of logits and images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["discriminator_loss", "generator_loss", "gradient_penalty"]


def generator_loss(generated: Tensor) -> Tensor:
    """The non-saturating loss (Goodfellow et al. 2014, section 3), a scalar.

    Args:
        generated: the discriminator's logits [N] of generated images.
    """
    return F.softplus(-generated).mean()


def discriminator_loss(real: Tensor, generated: Tensor) -> Tensor:
    """The logistic loss of the discriminator; log 4 if all logits are 0.

    Args:
        real: logits [N] of real images.
        generated: logits [N] of generated images.
    """
    return F.softplus(-real).mean() + F.softplus(generated).mean()


def gradient_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """The squared norm of the gradient of the logits with respect to the images, batch mean.

    For real images and times gamma / 2, it is R1 of Mescheder et al. (2018), equation 9.

    Args:
        logits: [N].
        images: [N, C, H, W], with a gradient.

    Returns:
        A scalar, differentiable with respect to the discriminator's weights.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.float().square().sum(dim=(1, 2, 3)).mean()
