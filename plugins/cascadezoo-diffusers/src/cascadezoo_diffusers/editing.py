"""Edits existing images by DDIM, for models of diffusers.

diffusers' schedulers keep a state and cannot go back to a noisier timestep, as inpainting needs.
DDIM without noise (Song et al. 2021, eq. 12) needs the signal and noise of each timestep only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from cascadezoo import Edit, SampleRequest

__all__ = ["edit_states"]

Estimate = Callable[[Tensor, int], Tensor]
"""Maps a state [N, C, H, W] and its timestep to the estimate of the clean image."""


def edit_states(
    estimate: Estimate,
    rates: Sequence[tuple[float, float]],
    timesteps: Sequence[int],
    edit: Edit,
    start: Tensor,
    request: SampleRequest,
) -> Iterator[Tensor]:
    """The states of an edit: SDEdit (Meng et al. 2022), with a mask RePaint (Lugmayr et al. 2022).

    Args:
        estimate: the network's estimate of the clean image.
        rates: signal and noise, alpha and sigma, of each timestep.
        timesteps: of sampling, in descending order.
        edit: the image, the strength and the mask.
        start: standard normal noise [N, C, H, W].
        request: provides ``draw``.

    Yields:
        The state after each step; the last is the edited image, not limited.
    """
    image, mask, shape = edit.image, edit.mask, start.shape
    part = timesteps[len(timesteps) - max(1, round(len(timesteps) * edit.strength)) :]
    path = [*(rates[t] for t in part), (1.0, 0.0)]
    alpha, sigma = path[0]
    state = start if edit.strength == 1 else alpha * image + sigma * start
    for step, time in enumerate(part):
        (alpha, sigma), (next_alpha, next_sigma) = path[step], path[step + 1]
        repeats = 1 if mask is None else edit.resamplings
        for again in reversed(range(repeats)):
            x0 = estimate(state, time)
            noise = (state - alpha * x0) / sigma
            state = next_alpha * x0 + next_sigma * noise
            if mask is not None:
                known = image
                if next_sigma > 0:
                    known = next_alpha * image + next_sigma * request.draw.randn(*shape)
                state = torch.where(mask, state, known)
            if again:
                kept = alpha / next_alpha
                state = kept * state + (1 - kept**2) ** 0.5 * request.draw.randn(*shape)
        yield state
