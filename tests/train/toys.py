"""Small linear stages for tests of the training step, which count their calls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.plugins.manager import PluginHost
from cascadezoo.plugins.registry import Origin, Registry, StageEntry
from cascadezoo.spec import resolve
from cascadezoo.spec.configs import (
    ConfigError,
    DecoderConfig,
    GeneratorConfig,
    ImageShape,
    RefinerConfig,
    StageConfig,
    UpsamplerConfig,
)
from cascadezoo.stages.base import Loss, Stage, StageInputs, StageOutput


class ToyGeneratorConfig(GeneratorConfig):
    """A generator of constant images."""


class ToyUpsamplerConfig(UpsamplerConfig):
    """Repeats pixels and scales them."""


class ToyRefinerConfig(RefinerConfig):
    """Scales pixels; with an adversary that learns the opposite."""

    adversary: bool = False


class ToyReflowConfig(GeneratorConfig):
    """Makes scaled noise plus the label; supports reflow."""

    reflows: ClassVar[bool] = True

    steps: Annotated[int, Field(ge=1, le=100)] = 2
    sampler: Literal["one", "two"] = "one"


class ToyDecoderConfig(DecoderConfig):
    """Latents are averaged and scaled pixels."""

    pixels: bool = False

    def upstream_shape(self, output: ImageShape) -> ImageShape:
        return ImageShape(output.channels, output.size // 2, latent=not self.pixels)


class ToyFrozenConfig(ToyDecoderConfig):
    """A frozen decoder that accepts only small generators."""

    frozen: ClassVar[bool] = True
    most: int = 64

    def check_upstream(self, upstream: StageConfig) -> None:
        if isinstance(upstream, GeneratorConfig) and (upstream.size or 0) > self.most:
            raise ConfigError(
                "most", f"is {self.most}, but the generator's size is {upstream.size}"
            )


class Counting(Stage):
    """Counts its forward passes, and records its upstream images."""

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


class ToyReflow(Counting):
    """Records the targets, noise and labels of its training."""

    Config = ToyReflowConfig

    def __init__(self, config: Any, geometry: Any) -> None:
        super().__init__(config, geometry)
        self.batches: list[tuple[Tensor, Tensor | None, Tensor | None]] = []
        self.requests: list[Any] = []

    def preprocess(self, target: Tensor, upstream: Tensor | None, context: Any) -> StageInputs:
        noise = context.draw.randn(*target.shape) if context.noise is None else context.noise
        self.batches.append((target, context.noise, context.labels))
        return StageInputs(target, noise=noise, labels=context.labels)

    def make(self, inputs: StageInputs) -> Tensor:
        shift = 0.0 if inputs.labels is None else inputs.labels.float()[:, None, None, None]
        return self.scale * inputs.noise + 0.1 * shift

    def make_pairs(self, noise: Tensor, request: Any) -> Tensor:
        assert not torch.is_grad_enabled()
        assert not self.training
        self.requests.append(request)
        return self.make(StageInputs(noise, noise=noise, labels=request.labels))

    def sample(self, upstream: Tensor | None, request: Any) -> Tensor:
        shape = self.geometry.output
        noise = request.draw.randn(request.count, shape.channels, shape.size, shape.size)
        return self.make(StageInputs(noise, noise=noise, labels=request.labels))


class ToyDecoder(Counting):
    """Measures the scale of its latents at the end of a phase, and records the batches."""

    Config = ToyDecoderConfig
    latent_scale: Tensor

    def __init__(self, config: Any, geometry: Any) -> None:
        super().__init__(config, geometry)
        self.register_buffer("latent_scale", torch.ones(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.finished: list[list[Tensor]] = []

    def encode(self, images: Tensor) -> Tensor:
        return self.scale * torch.nn.functional.avg_pool2d(images, 2)

    def upstream_target(self, images: Tensor) -> Tensor:
        return self.latent_scale * self.encode(images)

    def make(self, inputs: StageInputs) -> Tensor:
        latents = self.encode(inputs.target) if self.training else inputs.upstream
        return (latents / self.latent_scale).repeat_interleave(2, 2).repeat_interleave(2, 3)

    def finish_phase(self, images: Iterable[Tensor]) -> None:
        assert not torch.is_grad_enabled()
        assert not self.training
        rows = []
        for batch in images:
            rows.append(batch)
            self.seen += len(batch)  # before the end, so that a test sees whether it is undone
        self.finished.append(rows)
        self.latent_scale.copy_(1 / self.encode(torch.cat(rows)).std())


class ToyFrozen(ToyDecoder):
    Config = ToyFrozenConfig


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

    points = [
        p for p in entry_points(group="cascadezoo") if p.value == "cascadezoo.plugins.builtin"
    ]
    registry = PluginHost(points).registry
    origin = Origin("pluggy", "1.0", "toys")
    for role, kind, name in (
        ("generator", "generator", "Generator"),
        ("generator", "reflow", "Reflow"),
        ("upsampler", "upsampler", "Upsampler"),
        ("refiner", "refiner", "Refiner"),
        ("decoder", "decoder", "Decoder"),
        ("decoder", "frozen", "Frozen"),
    ):
        registry.stages.add(
            StageEntry(
                name=f"toy-{kind}.v1",
                role=role,
                summary="",
                config=f"toys:Toy{name}Config",
                impl=f"toys:Toy{name}",
            ),
            origin,
        )
    return registry


def toy_spec(kinds: dict[str, str], phases: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """A spec of toy stages, ``{name: kind}`` without ``toy-`` and version; 8x8 images."""
    return {
        "name": "toy",
        "data": {"source": "shapes", "config": {"size": 8, "count": 64}},
        "stages": [{"name": name, "kind": f"toy-{kind}.v1"} for name, kind in kinds.items()],
        "training": {"losses": [], "batch_size": 8, "phases": phases},
    }


def toys(data: dict[str, Any]) -> Cascade:
    return Cascade.from_spec(resolve(data, registry=toy_registry()))


def toy_cascade(phase: dict[str, Any], **refiner: Any) -> Cascade:
    kinds = {"coarse": "generator", "up": "upsampler", "refine": "refiner"}
    data = toy_spec(kinds, [{"name": "p", "steps": 10, **phase}])
    data["stages"][2]["config"] = refiner
    return toys(data)
