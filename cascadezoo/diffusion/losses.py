"""Losses of diffusion besides the plain squared error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, assert_never

import torch
from torch import Tensor

__all__ = ["VLB_WEIGHT", "min_snr_weights", "posterior_table", "vlb_term"]

VLB_WEIGHT = 0.001
"""Lambda of the hybrid loss (Nichol & Dhariwal 2021, eq. 16): the weight of the bound, which is the
sum of its T terms, relative to the squared error."""

# Half of the distance between two of the 256 values of a pixel in [-1, 1].
HALF_STEP = 1 / 255


def min_snr_weights(
    alpha: Tensor, sigma: Tensor, prediction: Literal["eps", "x0", "v"], gamma: float = 5.0
) -> Tensor:
    """Weights of the squared error that prevent easy timesteps from dominating.

    Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting", section 3.4: the error
    of x0 has weight ``min(snr, gamma)``, which for eps is ``min(1, gamma / snr)`` and for v
    ``min(snr, gamma) / (snr + 1)``. Finite also without noise and without signal.

    Args:
        alpha: the rates of the signal, of any shape.
        sigma: the rates of the noise, of the same shape; squares add up to 1.
        prediction: the predicted quantity.
        gamma: the maximum weight of x0, as a signal-to-noise ratio.

    Returns:
        The weights, of the same shape.
    """
    signal, noise = alpha**2, sigma**2
    if prediction == "x0":
        return (signal / noise).clamp(max=gamma)
    if prediction == "eps":
        return (gamma * noise / signal).clamp(max=1.0)
    if prediction == "v":
        return torch.minimum(signal, gamma * noise)
    assert_never(prediction)


def posterior_table(signal: Sequence[float], dtype: torch.dtype = torch.float32) -> Tensor:
    """The coefficients of :func:`vlb_term` at every timestep, computed in float64.

    Args:
        signal: ``alphas_cumprod`` of all timesteps.
        dtype: type of the table.

    Returns:
        [T, 4] on the CPU: the coefficients of x0 and of x_t in the mean of
        ``q(x_{t-1} | x_t, x0)`` (Ho et al. 2020, eq. 7), and the logarithms of its variance and of
        beta. The logarithm of the first variance, which is 0, is replaced by that of the second,
        or of beta if there is no second.
    """
    rows: list[tuple[float, float, float, float]] = []
    for now, before in zip(signal, (1.0, *signal), strict=False):
        kept = now / before
        beta, noise = 1 - kept, 1 - now
        variance = beta * (1 - before) / noise
        rows.append(
            (
                math.sqrt(before) * beta / noise,
                math.sqrt(kept) * (1 - before) / noise,
                math.log(variance) if variance > 0 else math.nan,
                math.log(beta),
            )
        )
    floor = rows[1][2] if len(rows) > 1 else rows[0][3]
    rows[0] = (*rows[0][:2], floor, rows[0][3])
    return torch.tensor(rows, dtype=dtype, device="cpu")


def vlb_term(
    x0: Tensor, x_t: Tensor, estimate: Tensor, spread: Tensor, table: Tensor, timesteps: Tensor
) -> Tensor:
    """One term of the variational bound, which only trains a learned variance.

    Nichol & Dhariwal 2021, section 3.1 (eqs. 4-6 and 15): at timestep 0 the negative
    log-likelihood of the 256-valued pixels of x0, elsewhere the divergence of the model's step from
    the posterior. No gradient flows through the estimate of x0, and so through the mean. For
    latents, which are not bytes, the term at timestep 0 only bounds the variance.

    Args:
        x0: clean images in [-1, 1], [N, C, H, W].
        x_t: the noised images.
        estimate: of x0.
        spread: the position of the logarithm of the variance between those of the posterior (-1)
            and of beta (1), [N, C, H, W]; the network's output, not bounded.
        table: the result of :func:`posterior_table`, [T, 4].
        timesteps: int64 [N].

    Returns:
        [N], in bits per dimension.
    """
    of_x0, of_x_t, low, high = table[timesteps].view(-1, 4, 1, 1, 1).unbind(1)
    fraction = (spread + 1) / 2
    log_variance = fraction * high + (1 - fraction) * low
    true_mean = of_x0 * x0 + of_x_t * x_t
    mean = of_x0 * estimate.detach() + of_x_t * x_t
    divergence = 0.5 * (
        log_variance
        - low
        - 1
        + (low - log_variance).exp()
        + (true_mean - mean) ** 2 * (-log_variance).exp()
    )
    unlikely = -_pixel_log_likelihood(x0, mean, (0.5 * log_variance).exp())
    nats = torch.where(timesteps.view(-1, 1, 1, 1) == 0, unlikely, divergence)
    return nats.mean(dim=(1, 2, 3)) / math.log(2)


def _pixel_log_likelihood(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Log-likelihood of 256-valued pixels in [-1, 1] under a Gaussian (Ho et al. 2020, eq. 13).

    The first and the last value include everything beyond them.
    """
    # Only lower tails, which stay precise far from the mean.
    away = x - mean
    below = torch.special.ndtr((HALF_STEP + away) / deviation)
    above = torch.special.ndtr((HALF_STEP - away) / deviation)
    inside = torch.special.ndtr((HALF_STEP - away.abs()) / deviation) - torch.special.ndtr(
        (-HALF_STEP - away.abs()) / deviation
    )
    likelihood = torch.where(x > 0.999, above, torch.where(x < -0.999, below, inside))
    return likelihood.clamp(min=1e-12).log()
