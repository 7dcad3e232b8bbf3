"""Features of real and of generated images in a plane: by their principal components, or UMAP."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cascadezoo.errors import InputError
from cascadezoo.report.charts import Axis, Chart, Point, Series

__all__ = ["Method", "Projection", "check_method", "pca", "project", "projection_chart"]

Method = Literal["pca", "umap"]
_UMAP = "pip install umap-learn"


@dataclass(frozen=True, slots=True)
class Projection:
    """Two sets of features in a plane.

    Args:
        real: [M, 2].
        generated: [N, 2].
        method: ``pca`` or ``umap``.
        extractor: what made the features.
        explained: the share of the real features' variance along each axis; None of UMAP.
        split: the part of the data that the real images are from.
    """

    real: Tensor
    generated: Tensor
    method: Method
    extractor: str
    explained: tuple[float, float] | None
    split: str


def check_method(method: Method) -> None:
    """See that a projection can be had, before anything is sampled.

    Raises:
        InputError: UMAP is asked for, and is not installed.
    """
    if method == "umap":
        _umap()


def project(
    real: Tensor, generated: Tensor, method: Method, *, extractor: str, split: str
) -> Projection:
    """Lay features into a plane that the real ones define.

    Args:
        real: float [M, D], M at least 3.
        generated: float [N, D].
        method: ``pca``: the plane of the real features' greatest variance (Pearson 1901);
            ``umap``: fitted to the real features, the others are put where they fit
            (McInnes et al. 2018).
        extractor: the name of what made them.
        split: where the real images are from.

    Raises:
        InputError: too few images, or UMAP is not installed.
    """
    if method == "pca":
        plane, spots, explained = pca(real, generated)
        return Projection(plane, spots, method, extractor, explained, split)
    if len(real) < 3 or len(generated) < 1:
        raise InputError(
            f"{len(real)} real images span no plane",
            hint="--features 500",
            code="input-too-few-images-plane",
            count=len(real),
        )
    reducer = _umap()(n_neighbors=min(15, len(real) - 1), random_state=0, n_jobs=1)
    plane = torch.as_tensor(reducer.fit_transform(real.cpu().numpy()))
    spots = torch.as_tensor(reducer.transform(generated.cpu().numpy()))
    return Projection(plane, spots, method, extractor, None, split)


def pca(real: Tensor, generated: Tensor) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """Coordinates along the two principal components of the real features.

    Args:
        real: float [M, D], M at least 3 and D at least 2.
        generated: float [N, D].

    Returns:
        Coordinates float64 [M, 2] and [N, 2] from the mean of the real features on, and the share
        of the real features' variance along each axis. The signs are chosen so that the largest
        entry of each axis is positive.

    Raises:
        InputError: too few images or dimensions, or features of different lengths.
    """
    if len(real) < 3 or real.shape[1] < 2 or real.shape[1] != generated.shape[1]:
        raise InputError(
            f"features {tuple(real.shape)} and {tuple(generated.shape)} span no common plane",
            hint="--features 500",
            code="input-features-plane",
        )
    known = real.double().cpu()
    mean = known.mean(0)
    _, sizes, axes = torch.linalg.svd(known - mean, full_matrices=False)
    axes = axes[:2]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    axes = axes * torch.where(largest < 0, -1.0, 1.0)
    total = float((sizes**2).sum())
    shares = [float(s) ** 2 / total if total > 0 else 0.0 for s in sizes[:2]]
    made = generated.double().cpu() - mean
    return (known - mean) @ axes.T, made @ axes.T, (shares[0], shares[1])


def projection_chart(found: Projection, title: str) -> Chart:
    """Real and generated features as a scatter plot."""
    names = ("component 1", "component 2") if found.method == "pca" else ("UMAP 1", "UMAP 2")
    if found.explained is not None:
        names = tuple(  # type: ignore[assignment]
            f"{name} ({share:.0%} of the variance)"
            for name, share in zip(names, found.explained, strict=True)
        )
    series = [
        Series(name, [Point(float(x), float(y)) for x, y in spots.tolist()])
        for name, spots in (
            (f"{len(found.real)} real ({found.split})", found.real),
            (f"{len(found.generated)} generated", found.generated),
        )
    ]
    return Chart(title, Axis(names[0]), Axis(names[1]), series, cloud=True)


def _umap() -> type:
    try:
        found: type = importlib.import_module("umap").UMAP
    except ImportError as error:
        raise InputError(
            f"--projection umap needs umap-learn, which is not installed ({error})",
            hint=f"{_UMAP}, or leave --projection out for principal components",
            code="input-umap-missing",
        ) from error
    return found
