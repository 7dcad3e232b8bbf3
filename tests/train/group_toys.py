"""Toy stages with an adversary: an unpaired generator, and a refiner that heeds pairing."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from toys import Counting, ToyRefinerConfig, toy_registry

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.plugins.registry import Origin, StageEntry
from cascadezoo.spec import resolve
from cascadezoo.spec.configs import GeneratorConfig
from cascadezoo.stages.base import GroupOptions, Loss, Stage, StageInputs, StageOutput


class ToyDuelConfig(GeneratorConfig):
    """A generator with a critic, with adjustable settings and faults."""

    paired: ClassVar[bool] = False

    lr_factor: float = 1.0
    betas: list[float] | None = None
    weight_decay: float | None = None
    every: int = 1
    averaged: bool = True
    keep: bool = False
    fault: Literal["", "orphan", "twice", "options", "loss"] = ""


class ToyHeedingConfig(ToyRefinerConfig):
    """Scales pixels, and records which images match their targets."""

    heeds_paired: ClassVar[bool] = True


class ToyDuel(Stage):
    """Paints a shade of grey; the critic scales its input."""

    Config = ToyDuelConfig

    def __init__(self, config: Any, geometry: Any) -> None:
        super().__init__(config, geometry)
        self.painter = torch.nn.Linear(1, 1)
        self.critic = torch.nn.Linear(1, 1)

    def preprocess(self, target: Any, upstream: Any, context: Any) -> StageInputs:
        return StageInputs(target, noise=context.draw.randn(len(target), 1))

    def forward(self, inputs: StageInputs) -> StageOutput:
        shade = self.painter(inputs.noise)
        estimate = shade[:, :, None, None].expand_as(inputs.target)
        if self.critic is None or not torch.is_grad_enabled():
            return StageOutput(estimate)
        verdict = self.critic(shade).mean()
        # A gradient penalty such as R1, which needs a second backward pass.
        real = inputs.target.mean((1, 2, 3))[:, None].detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.critic(real).sum(), real, create_graph=True)
        against = verdict - self.critic(real).mean() + slope.square().mean()
        group = "adversaries" if self.config.fault == "loss" else "adversary"
        return StageOutput(estimate, {"fool": -verdict, "judge": Loss(against, group)})

    def sample(self, upstream: Any, request: Any) -> torch.Tensor:
        shape = self.geometry.output
        shade = self.painter(request.draw.randn(request.count, 1))
        return shade[:, :, None, None].expand(-1, shape.channels, shape.size, shape.size)

    def parameter_groups(self) -> dict[str, list[torch.nn.Parameter]]:
        own, critic = list(self.painter.parameters()), []
        if self.critic is not None:
            critic = list(self.critic.parameters())
        if self.config.fault == "orphan":
            critic = critic[:1]
        if self.config.fault == "twice":
            own = own + critic[:1]
        return {"generator": own, "adversary": critic}

    def group_options(self) -> dict[str, GroupOptions]:
        config = self.config
        options = GroupOptions(
            lr_factor=config.lr_factor,
            betas=None if config.betas is None else tuple(config.betas),
            weight_decay=config.weight_decay,
            every=config.every,
            averaged=config.averaged,
        )
        return {"critics" if config.fault == "options" else "adversary": options}

    def training_only(self) -> tuple[str, ...]:
        return () if self.config.keep else ("critic",)


class ToyHeeding(Counting):
    Config = ToyHeedingConfig

    def __init__(self, config: Any, geometry: Any) -> None:
        super().__init__(config, geometry)
        self.paired: list[torch.Tensor | None] = []

    def preprocess(self, target: Any, upstream: Any, context: Any) -> StageInputs:
        self.paired.append(context.paired)
        return super().preprocess(target, upstream, context)

    def make(self, inputs: StageInputs) -> torch.Tensor:
        return self.scale * inputs.upstream


def duel_spec(
    duel: dict[str, Any], *after: str, phases: list[dict[str, Any]] | None = None, **training: Any
) -> dict[str, Any]:
    """A duel, then toys of the kinds ``after``, named by their kind."""
    stages = [{"name": "duel", "kind": "toy-duel.v1", "config": duel}]
    stages += [{"name": kind, "kind": f"toy-{kind}.v1"} for kind in after]
    return {
        "name": "duel",
        "data": {"source": "shapes", "config": {"size": 8, "count": 64}},
        "stages": stages,
        "training": {"losses": [], "batch_size": 8, "phases": phases, **training},
    }


def resolved(data: dict[str, Any]) -> Any:
    registry = toy_registry()
    for role, name in (("generator", "Duel"), ("refiner", "Heeding")):
        entry = StageEntry(
            name=f"toy-{name.lower()}.v1",
            role=role,
            summary="",
            config=f"group_toys:Toy{name}Config",
            impl=f"group_toys:Toy{name}",
        )
        registry.stages.add(entry, Origin("pluggy", "1.0", "toys"))
    return resolve(data, registry=registry)


def duel(settings: dict[str, Any], phase: dict[str, Any], **training: Any) -> Cascade:
    """A single duel; by default its phase has ten steps."""
    phases = [{"name": "p", "train": ["duel"], "steps": 10, **phase}]
    return Cascade.from_spec(resolved(duel_spec(settings, phases=phases, **training)))
