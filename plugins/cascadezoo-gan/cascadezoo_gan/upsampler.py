"""``srgan.v1``: an upsampler with an adversarial loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from cascadezoo import SampleRequest, StageGeometry, StageInputs, StageOutput, TrainContext
from cascadezoo_gan.adversarial import AdversarialStage
from cascadezoo_gan.config import SrGanConfig
from cascadezoo_gan.layers import Enlarger

__all__ = ["SrGanUpsampler"]


class SrGanUpsampler(AdversarialStage):
    """A residual network under a pixel and an adversarial loss (SRGAN, Ledig et al. 2017).

    The perceptual loss of the paper is not included; ``training.losses`` can add it (``lpips``).
    """

    Config = SrGanConfig
    config: SrGanConfig

    def __init__(self, config: SrGanConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry, None, spread=False)
        channels = geometry.output.channels
        self.enlarger = Enlarger(channels, config.channels, config.blocks, config.factor)

    def preprocess(
        self, target: Tensor, upstream: Tensor | None, context: TrainContext
    ) -> StageInputs:
        """Pass on the target and the upstream image."""
        extra = self.penalised(target, context)
        if context.paired is not None:
            extra["paired"] = context.paired
        return StageInputs(target, upstream, extra=extra)

    def forward(self, inputs: StageInputs) -> StageOutput:
        """The enlarged image, its reconstruction loss and its adversarial losses."""
        estimate = self.enlarge(inputs.upstream)
        errors = self._errors(estimate, inputs.target)
        paired = inputs.extra.get("paired")
        if paired is not None and inputs.upstream is not None:
            # Compare an image that does not belong to the target with its upstream image.
            upstream = inputs.upstream.detach().float()
            small = F.avg_pool2d(estimate, self.config.factor)
            errors = errors.where(paired, self._errors(small, upstream))
        penalise = "penalised" in inputs.extra
        losses = self.judge(estimate, inputs.target, None, penalise=penalise)
        adversarial = losses.get("adversarial")
        if isinstance(adversarial, Tensor):
            losses["adversarial"] = self.config.adversarial * adversarial
        return StageOutput(estimate, {self.config.pixel: errors.mean(), **losses})

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """The enlarged images, in [-1, 1] unless they are latents."""
        images = self.enlarge(upstream)
        return images if self.geometry.output.latent else images.clamp(-1.0, 1.0)

    def enlarge(self, upstream: Tensor | None) -> Tensor:
        """Map [N, C, H, W] to [N, C, factor H, factor W], not limited to [-1, 1]."""
        if upstream is None:
            raise TypeError("SrGanUpsampler needs an upstream image")
        size = (self.out_size, self.out_size)
        base = F.interpolate(upstream.float(), size=size, mode="bilinear", align_corners=False)
        residual: Tensor = self.enlarger(upstream)
        return base + residual

    def _errors(self, images: Tensor, target: Tensor) -> Tensor:
        """The mean error of each image, [N]."""
        difference = (images - target).flatten(1)
        return (
            difference.abs().mean(1) if self.config.pixel == "l1" else difference.square().mean(1)
        )
