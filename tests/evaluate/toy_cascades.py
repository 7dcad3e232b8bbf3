"""Cascades whose stages are functions of a test, on the images of a built-in dataset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cascadezoo import Cascade, load_spec
from cascadezoo.data.base import ImageData
from cascadezoo.evaluate.evaluate_metrics import Subject
from cascadezoo.evaluate.features.base import FeatureExtractor
from cascadezoo.evaluate.metrics.base import MetricCascade
from cascadezoo.evaluate.samples import Samples
from cascadezoo.stages.base import SampleRequest, Stage, StageInputs, StageOutput, TrainContext

Make = Callable[[Tensor | None, SampleRequest], Tensor]


class ToyStage(Stage):
    """A stage that samples by a function and cannot be trained. Records its inputs."""

    def __init__(self, like: Stage, make: Make) -> None:
        super().__init__(like.config, like.geometry)
        self.make = make
        self.inputs: list[tuple[Tensor | None, Tensor | None]] = []

    def preprocess(
        self, target: Tensor, upstream: Tensor | None, context: TrainContext
    ) -> StageInputs:
        raise AssertionError("this stage is not trained")

    def forward(self, inputs: StageInputs) -> StageOutput:
        raise AssertionError("this stage is not trained")

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        self.inputs.append((upstream, request.labels))
        return self.make(upstream, request)


def spec(size: int = 16, *, factor: int = 2, refine: bool = True, **changes: Any) -> dict[str, Any]:
    stages = [
        {
            "name": "coarse",
            "kind": "flow.v1",
            "config": {"channels": 8, "multipliers": [1], "steps": 1},
        },
        {"name": "up", "kind": "pixelshuffle.v1", "config": {"hidden": 8, "factor": factor}},
    ]
    if refine:
        stages.append({"name": "refine", "kind": "vit.v1", "config": {"features": 8, "heads": 1}})
    data = {"source": "shapes", "config": {"size": size, "count": 256, "test_count": 64}}
    return {"name": "toy", "data": data, "stages": stages, "training": {"losses": []}, **changes}


def toy(data: dict[str, Any], *makes: Make) -> Cascade:
    """A cascade of a spec with toy stages in place of the real ones."""
    real = Cascade.from_spec(load_spec(data))
    stages = [ToyStage(s, make) for (_, s), make in zip(real.named_stages(), makes, strict=True)]
    return Cascade(real.resolved, stages).eval()


def noise(upstream: Tensor | None, request: SampleRequest) -> Tensor:
    return (request.draw.randn(request.count, 3, 8, 8) / 3).clamp(-1, 1)


def bicubic(upstream: Tensor | None, request: SampleRequest) -> Tensor:
    assert upstream is not None
    size = 2 * upstream.shape[-1]
    return F.interpolate(upstream, (size, size), mode="bicubic").clamp(-1, 1)


def same(upstream: Tensor | None, request: SampleRequest) -> Tensor:
    assert upstream is not None
    return upstream


def smooth(count: int, size: int = 16, *, seed: int = 0, split: str = "train") -> ImageData:
    """Smooth random images with eight cyclic labels."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    images = F.interpolate(coarse, (size, size), mode="bilinear") * 255
    return ImageData(images.round().byte().numpy(), np.arange(count) % 8, split)


def cascade_inputs(
    cascade: Cascade,
    extractor: FeatureExtractor,
    real: ImageData,
    *,
    n: int,
    test: ImageData | None = None,
    sample: Callable[[int, int], Tensor] | None = None,
    **rest: Any,
) -> MetricCascade:
    """The input of a metric on a cascade."""
    draw = sample or (lambda first, count: cascade.sample(count, first=first, batch_size=count))
    batch_size = rest.setdefault("batch_size", 16)
    samples = Samples(draw, real.images.shape[1:], batch_size=batch_size)
    splits = {"train": real, "test": real if test is None else test}
    return MetricCascade(
        cascade=cascade,
        samples=samples,
        real=real,
        split=lambda split: splits[split],
        n=n,
        seed=rest.pop("seed", 0),
        extractor=extractor,
        **rest,
    )


def subject(cascade: Cascade, real: ImageData) -> Subject:
    return Subject(cascade=cascade, real=real, split=lambda split: real)
