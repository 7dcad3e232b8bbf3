"""Small stages for tests of the training step: linear, countable, transparent."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cascadezoo.cascade import Cascade
from cascadezoo.configs import GeneratorConfig, RefinerConfig, UpsamplerConfig
from cascadezoo.plugins import PluginHost
from cascadezoo.registry import Origin, Registry, StageEntry
from cascadezoo.spec import resolve
from cascadezoo.stages.base import Loss, Stage, StageInputs, StageOutput


class ToyGeneratorConfig(GeneratorConfig):
    """A generator that is a constant image."""


class ToyUpsamplerConfig(UpsamplerConfig):
    """Repeats pixels and scales them."""


class ToyRefinerConfig(RefinerConfig):
    """Scales pixels; with an adversary that learns the opposite."""

    adversary: bool = False


class Counting(Stage):
    """Counts its forward passes, and remembers what it was fed."""

    def __init__(self, config: Any, geometry: Any) -> None:
        super().__init__(config, geometry)
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.forwards = 0
        self.with_graph = 0
        self.fed: list[Tensor | None] = []

    def preprocess(self, target: Tensor, upstream: Tensor | None, context: Any) -> StageInputs:
        return StageInputs(target, upstream, noise=context.draw.randn(len(target), 1, 1, 1))

    def make(self, inputs: StageInputs) -> Tensor:
        raise NotImplementedError

    def forward(self, inputs: StageInputs) -> StageOutput:
        self.forwards += 1
        self.fed.append(inputs.upstream)
        estimate = self.make(inputs)
        self.with_graph += estimate.requires_grad
        return StageOutput(estimate, {"mse": (estimate - inputs.target).square().mean()})

    def sample(self, upstream: Tensor | None, request: Any) -> Tensor:
        noise = request.draw.randn(request.count, 1, 1, 1)
        shape = self.geometry.output
        target = torch.zeros(request.count, shape.channels, shape.size, shape.size)
        return self.make(StageInputs(target, upstream, noise=noise))


class ToyGenerator(Counting):
    Config = ToyGeneratorConfig

    def make(self, inputs: StageInputs) -> Tensor:
        return self.scale * inputs.noise.expand_as(inputs.target)


class ToyUpsampler(Counting):
    Config = ToyUpsamplerConfig

    def make(self, inputs: StageInputs) -> Tensor:
        factor = self.config.factor
        return self.scale * inputs.upstream.repeat_interleave(factor, 2).repeat_interleave(
            factor, 3
        )


class ToyRefiner(Counting):
    Config = ToyRefinerConfig

    def __init__(self, config: Any, geometry: Any) -> None:
        super().__init__(config, geometry)
        if config.adversary:
            self.critic = nn.Parameter(torch.tensor(1.0))

    def make(self, inputs: StageInputs) -> Tensor:
        return self.scale * inputs.upstream

    def forward(self, inputs: StageInputs) -> StageOutput:
        output = super().forward(inputs)
        if self.config.adversary:
            verdict = (self.critic * output.estimate).mean()
            output.losses["adversary"] = Loss(verdict, "adversary")
            output.losses["fool"] = -verdict
        return output

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        groups = {"generator": [self.scale]}
        return {**groups, "adversary": [self.critic]} if self.config.adversary else groups


def toy_registry() -> Registry:
    from importlib.metadata import entry_points

    points = [p for p in entry_points(group="cascadezoo") if p.value == "cascadezoo.builtin"]
    registry = PluginHost(points).registry
    origin = Origin("pluggy", "1.0", "toys")
    for role, name in (
        ("generator", "Generator"),
        ("upsampler", "Upsampler"),
        ("refiner", "Refiner"),
    ):
        registry.stages.add(
            StageEntry(
                name=f"toy-{role}.v1",
                role=role,
                summary="",
                config=f"toys:Toy{name}Config",
                impl=f"toys:Toy{name}",
            ),
            origin,
        )
    return registry


def toy_cascade(phase: dict[str, Any], **refiner: Any) -> Cascade:
    data = {
        "name": "toy",
        "data": {"source": "shapes", "config": {"size": 8, "count": 64}},
        "stages": [
            {"name": "coarse", "kind": "toy-generator.v1"},
            {"name": "up", "kind": "toy-upsampler.v1"},
            {"name": "refine", "kind": "toy-refiner.v1", "config": refiner},
        ],
        "training": {
            "losses": [],
            "batch_size": 8,
            "phases": [{"name": "p", "steps": 10, **phase}],
        },
    }
    return Cascade.from_spec(resolve(data, registry=toy_registry()))
