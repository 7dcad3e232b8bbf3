"""Kernel Inception Distance, with torchmetrics' arithmetic on streamed features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cascadezoo.errors import InputError
from cascadezoo.evaluate.metrics.base import Measured, MetricFeatures
from cascadezoo.spec.configs import EmptyConfig

__all__ = [
    "Kid",
    "kernel_inception_distance",
    "measure",
    "require_enough",
    "usual_subset_size",
]

SUBSETS = 100
SUBSET_SIZE = 1000


@dataclass(frozen=True, slots=True)
class Kid:
    """Mean and standard deviation over the subsets. Around 0 for images of one distribution."""

    mean: float
    std: float


def usual_subset_size(n: int, n_real: int) -> int:
    """A subset size that fits: 1000, or half of the images where there are fewer than 2000.

    Subsets of all the images would be the same subset each time, and their spread 0.
    """
    return max(2, min(SUBSET_SIZE, n // 2, n_real // 2))


def require_enough(n: int, n_real: int, subset_size: int) -> None:
    """Refuse a KID that could not be measured; to be asked before anything is sampled.

    Args:
        n: how many images will be sampled.
        n_real: how many real ones there are to compare with.
        subset_size: how many of each are in a subset.

    Raises:
        InputError: a subset is larger than what there is to choose from.
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

    The subsets are those that ``torchmetrics.image.kid.KernelInceptionDistance`` draws after
    ``torch.manual_seed(seed)``, and the value is the one that it gives, to the last bit.

    Args:
        generated: features, floating [N, D].
        real: features, floating [M, D], on the same device.
        subsets: how many pairs of subsets are compared, at least 1.
        subset_size: how many vectors are in a subset, at least 2.
        seed: of the choice of subsets.

    Returns:
        The unbiased estimate, which may be slightly negative, and its spread over subsets.

    Raises:
        InputError: fewer vectors than ``subset_size``, lengths D that differ, or a number
            below its least.
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
    found = torch.stack(values)
    return Kid(float(found.mean()), float(found.std(unbiased=False)))


def measure(config: EmptyConfig, features: MetricFeatures) -> Measured:
    """KID as ``evaluation.metrics`` of a spec asks for it."""
    require_enough(features.n, features.n_real, features.subset_size)
    found = kernel_inception_distance(
        features.generated,
        features.real,
        subsets=features.subsets,
        subset_size=features.subset_size,
        seed=features.seed,
    )
    return Measured(found.mean, found.std, by_subsets=True)


def _check(generated: Tensor, real: Tensor, subsets: int, subset_size: int) -> None:
    if generated.dim() != 2 or real.dim() != 2 or generated.shape[1] != real.shape[1]:
        raise InputError(
            f"features of the shapes {tuple(generated.shape)} and {tuple(real.shape)} cannot be "
            "compared; both must be [N, D] with one D",
            hint="make both with one extractor",
            code="input-features-unlike",
            shapes=(tuple(generated.shape), tuple(real.shape)),
        )
    if subsets < 1 or subset_size < 2:
        raise InputError(
            f"KID over {subsets} subsets of {subset_size} is not defined",
            hint="take at least 1 subset of at least 2 images",
            code="input-subsets-invalid",
            subsets=subsets,
            subset_size=subset_size,
        )
    for which, count in (("generated", len(generated)), ("real", len(real))):
        if count < subset_size:
            raise InputError(
                f"KID with subsets of {subset_size} needs as many {which} images, "
                f"and there are {count}",
                hint=f"take at least {subset_size} {which} images, or set subset_size to at most "
                f"{count} (half of that, for a spread that means something)",
                code="input-too-few-images",
                which=which,
                count=count,
                needed=subset_size,
            )
