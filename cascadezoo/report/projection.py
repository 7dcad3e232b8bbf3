"""Features of real and generated images in a plane, by principal components or UMAP."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cascadezoo.errors import InputError
from cascadezoo.report.charts import Axis, Chart, Point, Series

__all__ = [
    "Method",
    "Projection",
    "check_method",
    "class_chart",
    "pca",
    "project",
    "projection_chart",
]

Method = Literal["pca", "umap"]
_UMAP = "pip install umap-learn"

STYLES = (0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 13)
"""Styles that are easy to tell apart. The colour of 5 and 12 resembles that of 0, as does its
shape."""
CLASSES = len(STYLES)
"""Largest number of classes in one plot."""


@dataclass(frozen=True, slots=True)
class Projection:
    """Two sets of features in a plane.

    Args:
        real: [M, 2].
        generated: [N, 2].
        method: ``pca`` or ``umap``.
        extractor: name of the feature extractor.
        explained: share of the real features' variance along each axis; None for UMAP.
        split: split of the real images.
    """

    real: Tensor
    generated: Tensor
    method: Method
    extractor: str
    explained: tuple[float, float] | None
    split: str


def check_method(method: Method) -> None:
    """Check before sampling that a projection method is available.

    Raises:
        InputError: UMAP is requested but not installed.
    """
    if method == "umap":
        _umap()


def project(
    real: Tensor, generated: Tensor, method: Method, *, extractor: str, split: str
) -> Projection:
    """Project features onto a plane that the real features define.

    Args:
        real: float [M, D], M at least 3.
        generated: float [N, D].
        method: ``pca``: the plane of the real features' largest variance (Pearson 1901);
            ``umap``: fitted to the real features, applied to the generated ones
            (McInnes et al. 2018).
        extractor: name of the feature extractor.
        split: split of the real images.

    Raises:
        InputError: too few images, or UMAP is not installed.
    """
    if method == "pca":
        known, projected, explained = pca(real, generated)
        return Projection(known, projected, method, extractor, explained, split)
    if len(real) < 3 or len(generated) < 1:
        raise InputError(
            f"{len(real)} real images do not span a plane",
            hint="use more images: --features 500",
            code="input-too-few-images-plane",
            count=len(real),
        )
    reducer = _umap()(n_neighbors=min(15, len(real) - 1), random_state=0, n_jobs=1)
    known = torch.as_tensor(reducer.fit_transform(real.cpu().numpy()))
    projected = torch.as_tensor(reducer.transform(generated.cpu().numpy()))
    return Projection(known, projected, method, extractor, None, split)


def pca(real: Tensor, generated: Tensor) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """Coordinates along the two principal components of the real features.

    Args:
        real: float [M, D], M at least 3 and D at least 2.
        generated: float [N, D].

    Returns:
        Coordinates float64 [M, 2] and [N, 2] relative to the mean of the real features, and the
        share of the real features' variance along each axis. The largest entry of each axis is
        positive.

    Raises:
        InputError: too few images or dimensions, or features of different lengths.
    """
    if len(real) < 3 or real.shape[1] < 2 or real.shape[1] != generated.shape[1]:
        raise InputError(
            f"features {tuple(real.shape)} and {tuple(generated.shape)} do not span a common plane",
            hint="use more images: --features 500",
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
    others = generated.double().cpu() - mean
    return (known - mean) @ axes.T, others @ axes.T, (shares[0], shares[1])


def projection_chart(projection: Projection, title: str) -> Chart:
    """Return a scatter plot of real and generated features."""
    across, up = _axes(projection)
    series = [
        Series(name, [Point(float(x), float(y)) for x, y in points.tolist()])
        for name, points in (
            (f"{len(projection.real)} real ({projection.split})", projection.real),
            (f"{len(projection.generated)} generated", projection.generated),
        )
    ]
    return Chart(title, across, up, series, cloud=True)


def class_chart(
    projection: Projection, labels: Sequence[int], names: Sequence[str] | None, title: str
) -> Chart | None:
    """Return a scatter plot of the real points, with a colour and shape for each class.

    Args:
        projection: the points; only the real ones are drawn.
        labels: the class of each real point.
        names: the names of the classes; None writes their numbers.
        title: the title.

    Returns:
        The plot; None for more than :data:`CLASSES` classes, which no colours tell apart.
    """
    if len(set(labels)) > CLASSES:
        return None
    points: dict[int, list[Point]] = {label: [] for label in sorted(set(labels))}
    for label, (x, y) in zip(labels, projection.real.tolist(), strict=True):
        points[label].append(Point(float(x), float(y)))
    series = [
        Series(names[label] if names else f"label {label}", rows, style=style)
        for style, (label, rows) in zip(STYLES, points.items(), strict=False)
    ]
    across, up = _axes(projection)
    return Chart(title, across, up, series, cloud=True)


def _axes(projection: Projection) -> tuple[Axis, Axis]:
    if projection.method == "umap":
        return Axis("UMAP 1"), Axis("UMAP 2")
    shares = projection.explained or ()
    texts = [f" ({share:.0%} of the variance)" for share in shares] or ["", ""]
    return Axis(f"component 1{texts[0]}"), Axis(f"component 2{texts[1]}")


def _umap() -> type:
    try:
        umap: type = importlib.import_module("umap").UMAP
    except ImportError as error:
        raise InputError(
            f"--projection umap needs umap-learn, which is not installed ({error})",
            hint=f"run {_UMAP}, or leave out --projection for principal components",
            code="input-umap-missing",
        ) from error
    return umap
