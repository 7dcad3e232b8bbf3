"""Base of both stages: a discriminator, its parameter group and its losses."""

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
    """Base of stages with their own discriminator.

    Args:
        config: of the stage.
        geometry: the place of the stage.
        labels: number of labels of the discriminator; None without labels.
        spread: whether the discriminator sees the variation within sets of images.
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
        """The extra input of steps with a penalty: the real images, as ``penalised``.

        Karras et al. (2020), appendix B: a penalty once in k steps, with a weight of k.
        """
        settings = self.config.discriminator
        due = settings.r1 > 0 and context.step % settings.r1_every == 0
        return {"penalised": target} if due else {}

    def judge(
        self, generated: Tensor, real: Tensor, labels: Tensor | None, *, penalise: bool
    ) -> dict[str, Tensor | Loss]:
        """The adversarial losses; empty if the discriminator is not trained.

        The discriminator evaluates the generated images once for both losses. A loss only updates
        its own group: the generator's loss passes through the discriminator, and the
        discriminator's loss does not reach the generator.

        Args:
            generated: the stage's images [N, C, H, W], with their graph.
            real: real images of the same shape.
            labels: int64 [N] of both, or None.
            penalise: compute R1 in this step.
        """
        discriminator = self.discriminator
        if discriminator is None or not discriminator.verdict.weight.requires_grad:
            return {}
        settings = self.config.discriminator
        generated_logits = discriminator(generated, labels)
        # The FLOP counter of ``plan`` does not support gradients inside a forward pass.
        penalise = penalise and torch.is_grad_enabled() and not real.is_meta
        if penalise:
            # Squares of gradients exceed half precision.
            with torch.autocast(real.device.type, enabled=False):
                real = real.detach().float().requires_grad_()
                real_logits = discriminator(real, labels)
                penalty = gradient_penalty(real_logits, real)
        else:
            real_logits = discriminator(real, labels)
            # Zero, but with a gradient: a loss without one is taken for a fault.
            penalty = 0.0 * real_logits.float().mean()
        scale = 0.5 * settings.r1 * settings.r1_every
        return {
            "adversarial": generator_loss(generated_logits),
            "discriminator": Loss(discriminator_loss(real_logits, generated_logits), DISCRIMINATOR),
            "r1": Loss(scale * penalty, DISCRIMINATOR),
        }

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The discriminator, and all other parameters."""
        own = [] if self.discriminator is None else list(self.discriminator.parameters())
        ids = {id(parameter) for parameter in own}
        rest = [p for p in self.parameters() if id(p) not in ids]
        return {GENERATOR: rest, DISCRIMINATOR: own}

    def group_options(self) -> Mapping[str, GroupOptions]:
        """Low momentum for both groups; the discriminator is not averaged."""
        settings = self.config.discriminator
        betas = (self.config.betas[0], self.config.betas[1])
        return {
            GENERATOR: GroupOptions(betas=betas, every=self.config.every),
            DISCRIMINATOR: GroupOptions(
                lr_factor=settings.lr_factor,
                betas=betas,
                # With weight decay, a discriminator forgets earlier differences.
                weight_decay=0.0,
                every=settings.every,
                averaged=False,
            ),
        }

    def training_only(self) -> tuple[str, ...]:
        """The discriminator, unless the config keeps it."""
        return () if self.config.discriminator.keep else ("discriminator",)
