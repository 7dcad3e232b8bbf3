"""One training step: a pass over the stages, from the generator on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.cascade.stage_calls import guard, upstream_target
from cascadezoo.errors import PluginError
from cascadezoo.spec import PhaseSpec
from cascadezoo.spec.configs import DecoderConfig
from cascadezoo.spec.phases import taking_part
from cascadezoo.stages.base import GROUP, Loss, StageOutput, TrainContext
from cascadezoo.train.extra_losses import ExtraLoss
from cascadezoo.train.output_checks import OutputChecks
from cascadezoo.train.teacher_forcing import Choice, choose, mix, probability
from cascadezoo.util.rng import Draw

__all__ = ["PhaseWalk"]

FIGURES = ""
"""The group of figures, which no optimizer has."""


class PhaseWalk:
    """Computes the losses of a phase's training steps.

    Args:
        cascade: the cascade on its device; stages that the phase does not train are frozen.
        phase: the phase.
        total: number of steps of the phase.
        losses: extra losses on the stages' estimates.
        seed: the training's seed.
        autocast: makes the autocast context of forward passes.
        rank: index of this process.
        world: number of processes that share the batch.
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
        # A stage without parameters has losses only if they train an earlier stage.
        learns = [part and not empty for part, empty in zip(self.parts, bare, strict=True)]
        self.trained = [
            part and (learns[i] or (phase.joint and any(learns[:i])))
            for i, part in enumerate(self.parts)
        ]
        self.last = max(i for i, trained in enumerate(self.trained) if trained)
        self.losses = {
            name: [loss for loss in losses if loss.stage == name] for name in cascade.names
        }
        self.checks = OutputChecks(cascade, phase.name)
        self.statistics: dict[str, dict[str, Tensor]] = {}
        """What the trained stages returned for their ``after_step``, summed over a step's parts."""
        self.groups = [frozenset(stage.parameter_groups()) for stage in self.stages]
        # A decoder learns from the image that it encodes itself, unless gradients go upstream.
        self.alone = [
            trained and not phase.joint and isinstance(stage.config, DecoderConfig)
            for trained, stage in zip(self.trained, self.stages, strict=True)
        ]
        # A single decoder or generator has no upstream to choose.
        self.forced = any(self.parts[1:])

    def losses_of(
        self,
        images: Tensor,
        labels: Tensor | None,
        step: int,
        noise: Tensor | None = None,
        *,
        part: int = 0,
        parts: int = 1,
    ) -> dict[str, dict[str, Tensor]]:
        """The weighted losses of a batch by parameter group, then by ``stage.loss``.

        Figures of the stages are in the group ``""``.

        Args:
            images: [N, C, H, W] in [-1, 1].
            labels: int64 [N], or None.
            step: the step within the phase, from 0.
            noise: the noise of the generator's own pairs; ``images`` are then its targets, and
                the phase trains only the generator.
            part: which part of this process's batch the images are.
            parts: number of equal parts of the batch. Random numbers are drawn for the whole batch
                and sliced, so the parts together get the numbers of the whole.
        """
        share = (self.rank * parts + part, self.world * parts)
        if part == 0:
            self.statistics = {}
        names = self.cascade.names
        choices = self._choices(len(images), step, images.device, share)
        needed = self._needed(choices)
        targets = self._targets(images, needed, choices) if noise is None else {0: images}
        results: dict[str, dict[str, Tensor]] = {}
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
                known = _mixed_pairing(choices[index], known)
            context = TrainContext(
                draw=Draw(
                    self.seed,
                    self.phase.name,
                    step,
                    name,
                    device=images.device,
                    rank=share[0],
                    world=share[1],
                ),
                labels=labels,
                progress=step / self.total,
                step=step,
                phase=self.phase.name,
                noise=noise,
                paired=known,
            )
            trained = self.trained[index]
            # In a joint phase, gradients must pass through a frozen stage to earlier trained ones.
            through = trained or (self.phase.joint and any(self.trained[:index]))
            with nullcontext() if through else torch.no_grad(), self.autocast():
                self.checks.begin(name, stage)
                with guard(stage, "preprocess"):
                    inputs = stage.preprocess(targets[index], upstream, context)
                with guard(stage, "forward"):
                    returned = stage(inputs)
                output: StageOutput = self.checks.output(name, stage, returned, targets[index])
                estimate = output.estimate
                if self.checks.first(name):
                    if self.phase.joint and through and index < self.last:
                        self.checks.passes_gradients(
                            stage, estimate, upstream, "the joint phase needs"
                        )
                    elif trained and self.losses[name]:
                        need = f"the loss {self.losses[name][0].name!r} needs"
                        self.checks.passes_gradients(stage, estimate, upstream, need)
                paired = known
                if not stage.config.paired:
                    paired = torch.zeros(len(images), dtype=torch.bool, device=images.device)
                # Without parameters and on true images only, a loss trains nothing.
                if trained and (estimate.requires_grad or not stage.config.parameterless):
                    for key, loss in output.losses.items():
                        group, value = (
                            (loss.group, loss.value) if isinstance(loss, Loss) else (GROUP, loss)
                        )
                        if group not in self.groups[index]:
                            raise PluginError(
                                f"stage {name!r} ({type(stage).__name__}): the loss {key!r} names "
                                f"the group {group!r}, which parameter_groups() does not return",
                                code="plugin-loss-group",
                                name=name,
                                loss=key,
                                group=group,
                            )
                        self.checks.loss(name, stage, key, group, value)
                        results.setdefault(group, {})[f"{name}.{key}"] = value
                    for extra in self.losses[name]:
                        value = extra(estimate, targets[index])
                        results.setdefault(GROUP, {})[f"{name}.{extra.name}"] = value
                for key, value in output.figures.items() if trained else ():
                    results.setdefault(FIGURES, {})[f"{name}.{key}"] = value.detach().float()
                if trained and output.statistics:
                    self._add_statistics(name, output.statistics)
            if index == self.last:
                break
        return results

    @property
    def learning(self) -> list[str]:
        """The names of the stages that the phase trains."""
        return [
            name
            for name, trained in zip(self.cascade.names, self.trained, strict=True)
            if trained and not self.cascade.stage(name).config.frozen
        ]

    def _add_statistics(self, name: str, statistics: Mapping[str, Tensor]) -> None:
        sums = self.statistics.setdefault(name, {})
        for key, value in statistics.items():
            sums[key] = sums[key] + value.detach() if key in sums else value.detach()

    def forcing(self, step: int) -> float | None:
        """The probability of true upstream images at a step; None if no stage has an upstream."""
        if not self.forced:
            return None
        return probability(self.phase.teacher_forcing, step, self.total)

    def _choices(
        self, n: int, step: int, device: torch.device, share: tuple[int, int]
    ) -> list[Choice]:
        spec = self.phase.teacher_forcing
        p = probability(spec, step, self.total)
        rows = []
        for index, name in enumerate(self.cascade.names):
            if not self.parts[index]:
                # The input of a frozen stage determines the inputs of later trained ones.
                rows.append(Choice(all_truth=False, all_estimate=True))
                continue
            key = (self.seed, self.phase.name, step, name, "forcing")
            draw = Draw(*key, device=device, rank=share[0], world=share[1])
            rows.append(choose(spec, p, key, draw, n))
        return rows

    @torch.no_grad()
    def _targets(
        self, images: Tensor, needed: list[bool], choices: list[Choice]
    ) -> dict[int, Tensor]:
        """The targets that a step needs, by the stage's index."""
        required = {index for index, runs in enumerate(needed) if runs}
        required |= {
            index - 1
            for index in required
            if index > 0 and not self.alone[index] and not choices[index].all_estimate
        }
        targets = {len(self.stages) - 1: images}
        # Encoders run here; autocast halves their cost.
        with self.autocast():
            for index in range(len(self.stages) - 1, min(required), -1):
                targets[index - 1] = upstream_target(self.stages[index], targets[index])
        return targets

    def _needed(self, choices: list[Choice]) -> list[bool]:
        """Which stages must run: the trained ones, and those whose estimate another stage uses."""
        needed = [False] * len(choices)
        for index in range(self.last, -1, -1):
            feeds = index < self.last and needed[index + 1] and not choices[index + 1].all_truth
            feeds = feeds and not self.alone[index + 1]
            needed[index] = self.trained[index] or feeds
        return needed


def _mixed_pairing(choice: Choice, paired: Tensor | None) -> Tensor | None:
    """Which upstream images match their targets after a choice between truth and estimate."""
    if paired is None or choice.all_truth:
        return None
    return paired if choice.mask is None else choice.mask | paired
