"""One training step: a walk over the stages, from the generator on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.errors import PluginError
from cascadezoo.spec import PhaseSpec
from cascadezoo.spec.configs import DecoderConfig
from cascadezoo.spec.phases import taking_part
from cascadezoo.stages.base import GROUP, Loss, StageOutput, TrainContext
from cascadezoo.train.teacher_forcing import Choice, choose, mix, probability
from cascadezoo.util.rng import Draw

__all__ = ["ExtraLoss", "PhaseWalk"]


@dataclass(frozen=True, slots=True)
class ExtraLoss:
    """A loss from ``training.losses`` of the spec."""

    stage: str
    name: str
    weight: float
    module: nn.Module


class PhaseWalk:
    """Computes the losses of a phase's training steps.

    Args:
        cascade: the cascade on its device; stages that the phase does not train are frozen.
        phase: the phase.
        total: how many steps it has.
        losses: extra losses on the stages' estimates.
        seed: of the training.
        autocast: makes the context that forward passes run in.
        rank: this process's number.
        world: how many processes share the batch.
    """

    def __init__(
        self,
        cascade: Cascade,
        phase: PhaseSpec,
        total: int,
        *,
        losses: list[ExtraLoss],
        seed: int,
        autocast: Callable[[], AbstractContextManager[None]],
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.cascade = cascade
        self.phase = phase
        self.total = total
        self.seed = seed
        self.autocast = autocast
        self.rank = rank
        self.world = world
        self.stages = [cascade.stage(name) for name in cascade.names]
        named = [name in phase.train for name in cascade.names]
        bare = [stage.config.parameterless for stage in self.stages]
        self.parts = taking_part(named, bare, joint=phase.joint)
        # What has no parameters has losses where they train a stage before it.
        learns = [part and not empty for part, empty in zip(self.parts, bare, strict=True)]
        self.trained = [
            part and (learns[i] or (phase.joint and any(learns[:i])))
            for i, part in enumerate(self.parts)
        ]
        self.last = max(i for i, trained in enumerate(self.trained) if trained)
        self.losses = {
            name: [loss for loss in losses if loss.stage == name] for name in cascade.names
        }
        self.groups = [frozenset(stage.parameter_groups()) for stage in self.stages]
        # A decoder learns from the image that it encodes itself, unless gradients go upstream.
        self.alone = [
            trained and not phase.joint and isinstance(stage.config, DecoderConfig)
            for trained, stage in zip(self.trained, self.stages, strict=True)
        ]
        # A lone decoder or generator has nothing to choose between.
        self.forced = any(self.parts[1:])

    def losses_of(
        self, images: Tensor, labels: Tensor | None, step: int, noise: Tensor | None = None
    ) -> dict[str, dict[str, Tensor]]:
        """The weighted losses of a batch: by parameter group, then by ``stage.loss``.

        Args:
            images: [N, C, H, W] in [-1, 1].
            labels: int64 [N], or None.
            step: the step within the phase, from 0.
            noise: of pairs that the generator made: ``images`` are then its own targets, and it
                is the only stage that the phase trains.
        """
        names = self.cascade.names
        choices = self._choices(len(images), step, images.device)
        needed = self._needed(choices)
        targets = self._targets(images, needed, choices) if noise is None else {0: images}
        found: dict[str, dict[str, Tensor]] = {}
        estimate: Tensor | None = None
        paired: Tensor | None = None
        for index, (name, stage) in enumerate(zip(names, self.stages, strict=True)):
            if not needed[index]:
                estimate = paired = None
                continue
            upstream = None
            known = paired if index > 0 and not self.alone[index] else None
            if index > 0 and not self.alone[index]:
                upstream = mix(choices[index], targets.get(index - 1), estimate)
                if not self.phase.joint:
                    upstream = upstream.detach()
                known = _fed(choices[index], known)
            context = TrainContext(
                draw=Draw(
                    self.seed,
                    self.phase.name,
                    step,
                    name,
                    device=images.device,
                    rank=self.rank,
                    world=self.world,
                ),
                labels=labels,
                progress=step / self.total,
                step=step,
                phase=self.phase.name,
                noise=noise,
                paired=known,
            )
            trained = self.trained[index]
            # A frozen stage between trained ones must let gradients of a joint phase through.
            through = trained or (self.phase.joint and any(self.trained[:index]))
            with nullcontext() if through else torch.no_grad(), self.autocast():
                inputs = stage.preprocess(targets[index], upstream, context)
                output: StageOutput = stage(inputs)
                estimate = output.estimate
                paired = known
                if not stage.config.paired:
                    paired = torch.zeros(len(images), dtype=torch.bool, device=images.device)
                # Without parameters and on true images alone, a loss would train nobody.
                if trained and (estimate.requires_grad or not stage.config.parameterless):
                    for key, loss in output.losses.items():
                        group, value = (
                            (loss.group, loss.value) if isinstance(loss, Loss) else (GROUP, loss)
                        )
                        if group not in self.groups[index]:
                            raise PluginError(
                                f"stage {name!r} ({type(stage).__name__}): the loss {key!r} is of "
                                f"the group {group!r}, which its parameter_groups() does not give",
                                code="plugin-loss-group",
                                name=name,
                                loss=key,
                                group=group,
                            )
                        found.setdefault(group, {})[f"{name}.{key}"] = value
                    for extra in self.losses[name]:
                        value = extra.weight * extra.module(estimate, targets[index])
                        found.setdefault(GROUP, {})[f"{name}.{extra.name}"] = value
            if index == self.last:
                break
        return found

    def forcing(self, step: int) -> float | None:
        """The probability of the truth at a step; None where no stage has an upstream."""
        if not self.forced:
            return None
        return probability(self.phase.teacher_forcing, step, self.total)

    def _choices(self, n: int, step: int, device: torch.device) -> list[Choice]:
        spec = self.phase.teacher_forcing
        p = probability(spec, step, self.total)
        rows = []
        for index, name in enumerate(self.cascade.names):
            if not self.parts[index]:
                # What a frozen stage is fed decides what the trained ones after it learn from.
                rows.append(Choice(all_truth=False, all_estimate=True))
                continue
            key = (self.seed, self.phase.name, step, name, "forcing")
            draw = Draw(*key, device=device, rank=self.rank, world=self.world)
            rows.append(choose(spec, p, key, draw, n))
        return rows

    @torch.no_grad()
    def _targets(
        self, images: Tensor, needed: list[bool], choices: list[Choice]
    ) -> dict[int, Tensor]:
        """The targets that a step needs, by the stage's index."""
        wanted = {index for index, runs in enumerate(needed) if runs}
        wanted |= {
            index - 1
            for index in wanted
            if index > 0 and not self.alone[index] and not choices[index].all_estimate
        }
        targets = {len(self.stages) - 1: images}
        # Encoders run here; with autocast they cost half.
        with self.autocast():
            for index in range(len(self.stages) - 1, min(wanted), -1):
                targets[index - 1] = self.stages[index].upstream_target(targets[index])
        return targets

    def _needed(self, choices: list[Choice]) -> list[bool]:
        """Which stages must run: the trained ones, and those whose estimate somebody takes."""
        needed = [False] * len(choices)
        for index in range(self.last, -1, -1):
            feeds = index < self.last and needed[index + 1] and not choices[index + 1].all_truth
            feeds = feeds and not self.alone[index + 1]
            needed[index] = self.trained[index] or feeds
        return needed


def _fed(choice: Choice, paired: Tensor | None) -> Tensor | None:
    """Which upstream images are of their targets, after a choice between truth and estimate."""
    if paired is None or choice.all_truth:
        return None
    return paired if choice.mask is None else choice.mask | paired
