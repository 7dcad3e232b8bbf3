"""Kernel Inception Distance by torchmetrics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cascadezoo.errors import InputError
from cascadezoo.evaluate.metrics.base import Measured, MetricFeatures
from cascadezoo.spec.configs import EmptyConfig

__all__ = [
    "Kid",
    "default_subset_size",
    "kernel_inception_distance",
    "measure",
    "require_enough",
]

SUBSETS = 100
SUBSET_SIZE = 1000


@dataclass(frozen=True, slots=True)
class Kid:
    """Mean and standard deviation over the subsets; about 0 for equal distributions."""

    mean: float
    std: float


def default_subset_size(n: int, n_real: int) -> int:
    """The default subset size: 1000, or half of the images if there are fewer than 2000.

    Subsets of all images would be equal, so their spread would be 0.
    """
    return max(2, min(SUBSET_SIZE, n // 2, n_real // 2))


def require_enough(n: int, n_real: int, subset_size: int) -> None:
    """Refuse a KID with too few images for a subset. Call this before sampling.

    Args:
        n: number of sampled images.
        n_real: number of real images.
        subset_size: number of images of each kind in a subset.

    Raises:
        InputError: a subset is larger than the number of images.
    """
    if min(n, n_real) < subset_size:
        raise InputError(
            f"KID with subsets of {subset_size} cannot be measured on {n} generated and "
            f"{n_real} real images",
            hint=f'set "evaluation.samples" to at least {subset_size}'
            if n < subset_size
            else f'set "evaluation.subset_size" to at most {n_real}',
            code="input-too-few-images",
            subset_size=subset_size,
            n=n,
            n_real=n_real,
        )


def kernel_inception_distance(
    generated: Tensor,
    real: Tensor,
    *,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = 0,
) -> Kid:
    """The squared maximum mean discrepancy under a cubic kernel (Binkowski et al. 2018, eq. 4).

    Subsets and value equal those of ``torchmetrics.image.kid.KernelInceptionDistance`` after
    ``torch.manual_seed(seed)``, to the last bit.

    Args:
        generated: features, floating [N, D].
        real: features, floating [M, D], on the same device.
        subsets: number of pairs of subsets, at least 1.
        subset_size: number of vectors in a subset, at least 2.
        seed: seed of the choice of subsets.

    Returns:
        The unbiased estimate, which may be slightly negative, and its spread over subsets.

    Raises:
        InputError: there are fewer vectors than ``subset_size``, the lengths D differ, or a number
            is below its minimum.
    """
    # torchmetrics takes seconds to import.
    from torchmetrics.image.kid import poly_mmd

    _check(generated, real, subsets, subset_size)
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(subsets):
        rows = torch.randperm(len(real), generator=generator)[:subset_size]
        f_real = real[rows.to(real.device)]
        rows = torch.randperm(len(generated), generator=generator)[:subset_size]
        f_generated = generated[rows.to(generated.device)]
        values.append(poly_mmd(f_real, f_generated))
    distances = torch.stack(values)
    return Kid(float(distances.mean()), float(distances.std(unbiased=False)))


def measure(config: EmptyConfig, features: MetricFeatures) -> Measured:
    """The metric ``kid``."""
    require_enough(features.n, features.n_real, features.subset_size)
    kid = kernel_inception_distance(
        features.generated,
        features.real,
        subsets=features.subsets,
        subset_size=features.subset_size,
        seed=features.seed,
    )
    return Measured(kid.mean, kid.std, by_subsets=True)


def _check(generated: Tensor, real: Tensor, subsets: int, subset_size: int) -> None:
    if generated.dim() != 2 or real.dim() != 2 or generated.shape[1] != real.shape[1]:
        raise InputError(
            f"cannot compare features of shapes {tuple(generated.shape)} and {tuple(real.shape)}; "
            "both must be [N, D] with the same D",
            hint="use the same extractor for both",
            code="input-features-unlike",
            shapes=(tuple(generated.shape), tuple(real.shape)),
        )
    if subsets < 1 or subset_size < 2:
        raise InputError(
            f"KID is not defined for {subsets} subsets of {subset_size}",
            hint="use at least 1 subset of at least 2 images",
            code="input-subsets-invalid",
            subsets=subsets,
            subset_size=subset_size,
        )
    for which, count in (("generated", len(generated)), ("real", len(real))):
        if count < subset_size:
            raise InputError(
                f"KID with subsets of {subset_size} needs at least {subset_size} {which} images, "
                f"not {count}",
                hint=f"use at least {subset_size} {which} images, or set subset_size to at most "
                f"{count} (half of that for a meaningful spread)",
                code="input-too-few-images",
                which=which,
                count=count,
                needed=subset_size,
            )
