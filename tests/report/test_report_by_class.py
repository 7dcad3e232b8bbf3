"""Plots of real images by class, of pixels, and of latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cascadezoo import Cascade
from cascadezoo.data.pixels import to_float
from cascadezoo.data.split import load_split
from cascadezoo.evaluate.real_features import choose_real
from cascadezoo.report.model_view import ModelView, view_features
from cascadezoo.report.projection import CLASSES, Projection, class_chart, pca

LATENT: dict[str, Any] = {
    "name": "latent",
    "data": {"source": "shapes", "config": {"size": 8, "count": 64, "test_count": 32}},
    "stages": [
        {"name": "draw", "kind": "flow.v1", "config": {"channels": 8, "steps": 1}},
        {
            "name": "decode",
            "kind": "autoencoder.v1",
            "config": {"channels": 8, "multipliers": [1, 2], "latent_channels": 2},
        },
    ],
    "training": {"phases": [{"name": "p", "train": ["decode"], "steps": 1}]},
    "evaluation": {"split": "test"},
}


def plane(points: torch.Tensor) -> Projection:
    return Projection(points, points[:0], "pca", "small", (0.5, 0.25), "train")


def test_each_class_has_a_colour_and_shape() -> None:
    points = torch.arange(12.0).view(6, 2)
    labels = [3, 1, 3, 1, 7, 3]
    chart = class_chart(plane(points), labels, None, "title")
    assert chart is not None
    assert chart.x.label == "component 1 (50% of the variance)"
    rows = [(s.name, s.style, [(p.x, p.y) for p in s.points]) for s in chart.series]
    assert rows == [
        ("label 1", 0, [(2.0, 3.0), (6.0, 7.0)]),
        ("label 3", 1, [(0.0, 1.0), (4.0, 5.0), (10.0, 11.0)]),
        ("label 7", 2, [(8.0, 9.0)]),
    ]
    named = class_chart(plane(points), [0, 1, 0, 1, 0, 1], ["star", "ring"], "title")
    assert named is not None
    assert [s.name for s in named.series] == ["star", "ring"]
    many = torch.zeros(CLASSES + 1, 2)
    assert class_chart(plane(many), list(range(CLASSES + 1)), None, "title") is None


def test_pixels_and_latents_of_real_images_by_class(tmp_path: Path) -> None:
    cascade = Cascade.from_spec(LATENT).eval()
    folder = cascade.save_pretrained(tmp_path / "model")
    view = ModelView("latent", "latent", cascade.resolved)

    def request(n: int, first: int = 0) -> dict[str, Any]:
        return {"seed": 0}

    view_features(view, cascade, folder, 12, None, "pca", required=True, request=request)
    real = load_split(cascade.resolved, "test")
    chosen = choose_real(len(real), 12)
    images = torch.from_numpy(real.images[chosen])
    generated = to_float((cascade.sample(12, seed=0) * 127.5 + 127.5).round().to(torch.uint8))
    vectors = images.flatten(1).double() / 255
    known, drawn, _ = pca(vectors, (generated.flatten(1).double() + 1) / 2)
    assert view.projection is not None
    assert view.projection.extractor == "pixels"
    assert torch.allclose(view.projection.real, known, atol=1e-5)
    assert torch.allclose(view.projection.generated, drawn, atol=0.05)

    features, latents = view.by_class
    assert features.title == "latent: real images by class"
    assert latents.title.startswith("latent: latents for draw (")
    assert real.labels is not None
    labels = [int(label) for label in real.labels[chosen]]
    encoded = cascade.targets(to_float(images))[0].detach().flatten(1)
    expected, _, _ = pca(encoded, encoded)
    for chart, points in ((features, known), (latents, expected)):
        assert sum(len(series.points) for series in chart.series) == 12
        (first,) = (s for s in chart.series if s.name == cascade.class_names[labels[0]])  # type: ignore[index]
        assert (first.points[0].x, first.points[0].y) == pytest.approx(
            tuple(points[0].tolist()), abs=1e-4
        )
