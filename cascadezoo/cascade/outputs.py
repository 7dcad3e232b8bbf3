"""Seeds and formats of sampled images."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cascadezoo.data.pixels import to_uint8
from cascadezoo.errors import SampleError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["OutputType", "chosen_seed", "converted", "require_output_type"]

OutputType = Literal["pt", "np", "pil"]

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


def require_output_type(name: object) -> None:
    """Check the name of a format.

    Raises:
        SampleError: it is unknown.
    """
    if name not in ("pt", "np", "pil"):
        raise SampleError(
            f"unknown output type {name!r}",
            hint="choose pt (a tensor), np (a uint8 array) or pil (a list of pictures)",
            code="sample-output-type-unknown",
            name=name,
        )


def converted(images: Tensor, output_type: OutputType) -> Tensor | NDArray[Any] | list[Image.Image]:
    """Images in the requested format.

    Args:
        images: floating [n, C, H, W] in [-1, 1], or latents if ``output_type`` is ``pt``.
        output_type: ``pt``: unchanged; ``np``: uint8 [n, H, W, C]; ``pil``: a list of n pictures of
            mode ``L`` or ``RGB``.
    """
    if output_type == "pt":
        return images
    rows = np.ascontiguousarray(to_uint8(images).permute(0, 2, 3, 1).cpu().numpy())
    if output_type == "np":
        return rows
    from PIL import Image

    return [Image.fromarray(row[:, :, 0] if row.shape[2] == 1 else row) for row in rows]
