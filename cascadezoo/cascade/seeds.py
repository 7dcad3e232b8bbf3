"""The seed of a sampling call."""

from __future__ import annotations

import secrets
from typing import SupportsIndex

import torch
from torch import Tensor

from cascadezoo.errors import SampleError

__all__ = ["chosen_seed"]

LARGEST_SEED = 2**63 - 1


def chosen_seed(seed: object, generator: torch.Generator | None) -> int:
    """The seed of a sampling call.

    Args:
        seed: a whole number; None draws one from the system.
        generator: draws the seed; its state moves on.

    Raises:
        SampleError: the seed is not a whole number from 0 to 2^63 - 1, or both are given.
    """
    if generator is not None:
        if seed != 0:
            raise SampleError(
                "seed and generator were both given",
                hint="give one of them",
                code="sample-seed-and-generator",
            )
        draw = torch.randint(
            LARGEST_SEED, (1,), generator=generator, device=generator.device, dtype=torch.int64
        )
        return int(draw)
    if seed is None:
        return secrets.randbelow(LARGEST_SEED)
    number = seed.__index__() if isinstance(seed, SupportsIndex) else None
    if isinstance(seed, (bool, Tensor)) or number is None or not 0 <= number <= LARGEST_SEED:
        raise SampleError(
            f"the seed {seed!r} is not a whole number from 0 to 2^63 - 1",
            hint="None draws a random seed",
            code="sample-seed-invalid",
            seed=seed,
        )
    return number
