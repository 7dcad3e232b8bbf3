"""The losses of a GAN, as pure functions of logits and images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["discriminator_loss", "generator_loss", "gradient_penalty"]


def generator_loss(made: Tensor) -> Tensor:
    """The non-saturating loss (Goodfellow et al. 2014, section 3), a scalar.

    Args:
        made: the discriminator's logits [N] of made images.
    """
    return F.softplus(-made).mean()


def discriminator_loss(real: Tensor, made: Tensor) -> Tensor:
    """The logistic loss of telling apart: log 4 where the logits tell nothing.

    Args:
        real: logits [N] of real images.
        made: logits [N] of made ones.
    """
    return F.softplus(-real).mean() + F.softplus(made).mean()


def gradient_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """The squared norm of the logits' gradient by the images, mean over the batch.

    On real images, times gamma / 2, it is R1 of Mescheder et al. (2018), equation 9.

    Args:
        logits: [N].
        images: [N, C, H, W], with a gradient.

    Returns:
        A scalar that can be differentiated by the discriminator's weights.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.float().square().sum(dim=(1, 2, 3)).mean()
