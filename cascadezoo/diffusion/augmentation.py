"""Conditioning augmentation: degrade the upstream image so that a stage tolerates its errors.

Ho et al. 2021, "Cascaded Diffusion Models for High Fidelity Image Generation", section 4. An
upsampler trained on real small images receives generated ones in sampling. Trained on degraded
images, it no longer relies on their details.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cascadezoo.diffusion.process import add_noise, level_rates

__all__ = ["blur_augmentation", "gaussian_augmentation"]


def gaussian_augmentation(z: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """The upstream image at a noise level of the forward process (section 4.1 and 4.2).

    Args:
        z: upstream images, [N, C, H, W].
        noise: standard normal, of the same shape.
        level: noise levels, [N], from 0 (unchanged) to 1 (pure noise).
    """
    return add_noise(z, noise, *level_rates(level))


def blur_augmentation(
    z: Tensor,
    uniform: Tensor,
    *,
    probability: float = 0.5,
    sigmas: tuple[float, float] = (0.4, 0.6),
) -> Tensor:
    """Blur some of the upstream images by a 3x3 Gaussian kernel (section 4.3).

    The border is mirrored. The paper blurs half of the examples, in training only, with a standard
    deviation of 0.4 to 0.6 pixels.

    Args:
        z: upstream images, [N, C, H, W], at least 2x2.
        uniform: two numbers in [0, 1) per image, [N, 2]: whether it is blurred, and how much.
        probability: the share of blurred images.
        sigmas: the smallest and the largest standard deviation, in pixels.
    """
    selection, position = uniform.view(-1, 2, 1, 1, 1).unbind(1)
    low, high = sigmas
    sigma = low + (high - low) * position
    # The Gaussian at a distance of one pixel; it is 1 in the centre.
    beside = torch.exp(-0.5 / sigma**2)
    side, centre = beside / (1 + 2 * beside), 1 / (1 + 2 * beside)
    wide = F.pad(z, (1, 1, 1, 1), mode="reflect")
    rows = centre * wide[:, :, 1:-1] + side * (wide[:, :, :-2] + wide[:, :, 2:])
    blurred = centre * rows[..., 1:-1] + side * (rows[..., :-2] + rows[..., 2:])
    return torch.where(selection < probability, blurred, z)
