"""What both stages share: a discriminator, its parameter group and its losses."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cascadezoo import GroupOptions, ImageShape, Loss, Stage, StageGeometry, TrainContext
from cascadezoo_gan.config import GanConfig, SrGanConfig
from cascadezoo_gan.layers import Discriminator
from cascadezoo_gan.losses import discriminator_loss, generator_loss, gradient_penalty

__all__ = ["AdversarialStage"]

GENERATOR, DISCRIMINATOR = "generator", "discriminator"


class AdversarialStage(Stage):
    """Base of stages that learn against a discriminator of their own.

    Args:
        config: of the stage.
        geometry: where it stands.
        labels: how many labels the discriminator knows; None for none.
        spread: whether it sees how much images differ from each other.
    """

    config: GanConfig | SrGanConfig
    discriminator: Discriminator | None

    def __init__(
        self,
        config: GanConfig | SrGanConfig,
        geometry: StageGeometry,
        labels: int | None,
        *,
        spread: bool,
    ) -> None:
        super().__init__(config, geometry)
        shape: ImageShape = geometry.output
        width = config.discriminator.channels
        self.discriminator = Discriminator(shape.channels, shape.size, width, labels, spread=spread)

    def penalised(self, target: Tensor, context: TrainContext) -> dict[str, Tensor]:
        """The real images to penalise, by the name that :meth:`judge` looks for; lazily.

        Karras et al. (2020), appendix B: a penalty in one of k steps, k times as heavy.
        """
        settings = self.config.discriminator
        due = settings.r1 > 0 and context.step % settings.r1_every == 0
        return {"penalised": target} if due else {}

    def judge(
        self, made: Tensor, real: Tensor, labels: Tensor | None, *, penalise: bool
    ) -> dict[str, Tensor | Loss]:
        """The adversarial losses; none where the discriminator does not learn.

        The made images are judged once for both sides: a loss reaches its own group alone, so the
        generator's goes through the discriminator and the discriminator's not into the generator.

        Args:
            made: the stage's images [N, C, H, W], with their graph.
            real: as many real ones.
            labels: int64 [N] of both, or None.
            penalise: compute R1 in this step.
        """
        judge = self.discriminator
        if judge is None or not judge.verdict.weight.requires_grad:
            return {}
        settings = self.config.discriminator
        verdict = judge(made, labels)
        # A plan's counter of FLOPs cannot look into a gradient that is taken within a forward pass.
        penalise = penalise and torch.is_grad_enabled() and not real.is_meta
        if penalise:
            # Squares of gradients are beyond half precision.
            with torch.autocast(real.device.type, enabled=False):
                real = real.detach().float().requires_grad_()
                truth = judge(real, labels)
                penalty = gradient_penalty(truth, real)
        else:
            truth = judge(real, labels)
            penalty = truth.new_zeros(())
        scale = 0.5 * settings.r1 * settings.r1_every
        return {
            "adversarial": generator_loss(verdict),
            "discriminator": Loss(discriminator_loss(truth, verdict), DISCRIMINATOR),
            "r1": Loss(scale * penalty, DISCRIMINATOR),
        }

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The discriminator apart from all else."""
        judge = [] if self.discriminator is None else list(self.discriminator.parameters())
        apart = {id(parameter) for parameter in judge}
        rest = [p for p in self.parameters() if id(p) not in apart]
        return {GENERATOR: rest, DISCRIMINATOR: judge}

    def group_options(self) -> Mapping[str, GroupOptions]:
        """Little momentum for both; no average of a discriminator, which nobody samples from."""
        settings = self.config.discriminator
        betas = (self.config.betas[0], self.config.betas[1])
        return {
            GENERATOR: GroupOptions(betas=betas, every=self.config.every),
            DISCRIMINATOR: GroupOptions(
                lr_factor=settings.lr_factor,
                betas=betas,
                # A critic whose weights decay forgets what it has told apart.
                weight_decay=0.0,
                every=settings.every,
                averaged=False,
            ),
        }

    def training_only(self) -> tuple[str, ...]:
        """The discriminator, unless the config keeps it."""
        return () if self.config.discriminator.keep else ("discriminator",)
