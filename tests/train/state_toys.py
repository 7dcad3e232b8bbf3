"""Refiners with state beside their trained parameters: codebooks, teachers, statistics."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from toys import toy_registry

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.plugins.registry import Origin, StageEntry
from cascadezoo.spec import resolve
from cascadezoo.spec.configs import RefinerConfig
from cascadezoo.stages.base import Stage, StageInputs, StageOutput, StepContext


class ToyStateConfig(RefinerConfig):
    """A refiner with a codebook of mean colours."""

    fault: Literal["", "unsaved", "replaced", "whole", "statistic", "draw"] = ""


class ToyCodes(Stage):
    """Moves its codebook, teacher and counter in ``after_step``."""

    Config = ToyStateConfig
    averaged_buffers = ("level",)

    def __init__(self, config: Any, geometry: Any) -> None:
        super().__init__(config, geometry)
        channels = geometry.output.channels
        self.scale = nn.Parameter(torch.full((2,), 0.5))
        self.teacher = nn.Parameter(torch.zeros(2), requires_grad=False)
        codes = torch.linspace(-0.1, 0.1, 4)[:, None].repeat(1, channels)
        self.register_buffer("codes", codes)
        self.register_buffer("counts", torch.full((4,), 0.01))
        self.register_buffer("sums", 0.01 * codes)
        self.register_buffer("level", torch.zeros(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seen", torch.zeros((), device="cpu"), persistent=False)
        self.calls: list[StepContext] = []

    def preprocess(self, target: Tensor, upstream: Tensor | None, context: Any) -> StageInputs:
        return StageInputs(target, upstream)

    def assigned(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """How often each code is the nearest of an image's mean, and the sums of these means."""
        vectors = target.mean((2, 3))
        nearest = torch.cdist(vectors, self.codes).argmin(1)
        used = nn.functional.one_hot(nearest, len(self.codes)).float()
        return used.sum(0), used.T @ vectors

    def forward(self, inputs: StageInputs) -> StageOutput:
        estimate = self.scale.mean() * inputs.upstream
        loss = (estimate - inputs.target).square().mean()
        counts, sums = self.assigned(inputs.target)
        statistics: dict[str, Any] = {"counts": counts, "sums": sums}
        if self.config.fault == "statistic":
            statistics["number"] = 3
        return StageOutput(estimate, {"mse": loss}, statistics=statistics)

    def after_step(self, context: StepContext) -> None:
        assert not torch.is_grad_enabled()
        self.calls.append(context)
        counts = context.sum(context.statistics["counts"])
        sums = context.sum(context.statistics["sums"])
        total = counts.sum()
        self.counts.lerp_(counts / total, 0.1)
        self.sums.lerp_(sums / total, 0.1)
        self.codes.copy_(self.sums / self.counts.clamp_min(1e-4)[:, None])
        self.codes.add_(1e-3 * context.draw.randn(*self.codes.shape))
        self.level.copy_(context.mean(self.sums.mean()))
        self.steps += 1
        self.teacher.mul_(0.9).add_(self.scale, alpha=0.1)
        if self.config.fault == "unsaved":
            self.seen += 1
        if self.config.fault == "replaced":
            self.level = self.level + 1
        if self.config.fault == "whole":
            context.mean(self.steps)

    def sample(self, upstream: Tensor | None, request: Any) -> Tensor:
        return self.scale.mean() * upstream


class ToyForwardCodes(ToyCodes):
    """Moves its buffers in ``forward``, by the means of this process's images."""

    averaged_buffers = ()

    def forward(self, inputs: StageInputs) -> StageOutput:
        output = super().forward(inputs)
        if self.training:
            with torch.no_grad():
                counts, sums = (
                    output.statistics[k] / len(inputs.target) for k in ("counts", "sums")
                )
                self.counts.lerp_(counts, 0.1)
                self.sums.lerp_(sums, 0.1)
                self.level.copy_(inputs.target.mean())
                self.steps += 1
        return output

    def after_step(self, context: StepContext) -> None:
        self.codes.copy_(self.sums / self.counts.clamp_min(1e-4)[:, None])


class ToyMean(ToyForwardCodes):
    sync_buffers: ClassVar = "mean"


class ToyBroadcast(ToyForwardCodes):
    sync_buffers: ClassVar = "broadcast"


class ToyTeacher(ToyCodes):
    """A teacher that sees only this process's images."""

    def after_step(self, context: StepContext) -> None:
        self.teacher.add_(context.statistics["sums"].mean())


class ToyNorm(ToyCodes):
    """Batch normalisation, undeclared."""

    averaged_buffers = ()

    def __init__(self, config: Any, geometry: Any) -> None:
        super().__init__(config, geometry)
        self.norm = nn.BatchNorm2d(geometry.output.channels)

    def forward(self, inputs: StageInputs) -> StageOutput:
        estimate = self.scale.mean() * self.norm(inputs.upstream)
        return StageOutput(estimate, {"mse": (estimate - inputs.target).square().mean()})

    def after_step(self, context: StepContext) -> None:
        self.steps += 1


class ToyAveragedNorm(ToyNorm):
    """Batch normalisation whose statistics are averaged with the weights."""

    averaged_buffers = ("norm.running_mean", "norm.running_var")


class ToyMisdeclared(ToyCodes):
    sync_buffers: ClassVar = "sum"  # type: ignore[assignment]


class ToyMisnamed(ToyCodes):
    averaged_buffers = ("steps",)


KINDS = {
    "codes": ToyCodes,
    "forward": ToyForwardCodes,
    "mean": ToyMean,
    "broadcast": ToyBroadcast,
    "teacher": ToyTeacher,
    "norm": ToyNorm,
    "averaged-norm": ToyAveragedNorm,
    "misdeclared": ToyMisdeclared,
    "misnamed": ToyMisnamed,
}


def state_spec(
    *kinds: str, steps: int = 6, train: list[str] | None = None, fault: str = "", **training: Any
) -> dict[str, Any]:
    """A toy generator, then refiners with state, named by their kind; all train in one phase."""
    stages: list[dict[str, Any]] = [{"name": "coarse", "kind": "toy-generator.v1"}]
    for kind in kinds:
        stages.append({"name": kind, "kind": f"toy-{kind}.v1", "config": {"fault": fault}})
    phases = [{"name": "p", "train": train or list(kinds), "steps": steps}]
    base = {"losses": [], "batch_size": 8, "phases": phases, "optimizer": {"lr": 0.01}}
    return {
        "name": "state",
        "data": {"source": "shapes", "config": {"size": 8, "count": 64}},
        "stages": stages,
        "training": {**base, **training},
    }


def resolved(data: dict[str, Any]) -> Any:
    registry = toy_registry()
    for kind, impl in KINDS.items():
        entry = StageEntry(
            name=f"toy-{kind}.v1",
            role="refiner",
            summary="",
            config="state_toys:ToyStateConfig",
            impl=f"state_toys:{impl.__name__}",
        )
        registry.stages.add(entry, Origin("pluggy", "1.0", "toys"))
    return resolve(data, registry=registry)


def cascade(*kinds: str, **settings: Any) -> Cascade:
    return Cascade.from_spec(resolved(state_spec(*kinds, **settings)))
