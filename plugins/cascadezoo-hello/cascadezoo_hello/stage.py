"""The stage. cascadezoo imports this file when it builds a cascade."""

import torch

from cascadezoo import Stage, StageInputs, StageOutput, UpsamplerConfig


class LinearUpsampler(Stage):
    """Bicubic interpolation, corrected by a learned 5x5 filter that starts at zero."""

    Config = UpsamplerConfig

    def __init__(self, config, geometry):
        super().__init__(config, geometry)
        colours = geometry.output.channels
        self.filter = torch.nn.Parameter(torch.zeros(colours * config.factor**2, colours, 5, 5))

    def preprocess(self, target, upstream, context):
        """The inputs of forward: here the unchanged images."""
        return StageInputs(target, upstream)

    def forward(self, inputs):
        """The estimate, which flows to the next stage, and the losses to minimise."""
        estimate = self._enlarge(inputs.upstream)
        return StageOutput(estimate, {"mse": (estimate - inputs.target).square().mean()})

    def sample(self, upstream, request):
        """The sampled image. Pixels are limited to [-1, 1]; latents are not."""
        image = self._enlarge(upstream)
        return image if self.geometry.output.latent else image.clamp(-1, 1)

    def _enlarge(self, image):
        fine = torch.pixel_shuffle(torch.conv2d(image, self.filter, padding=2), self.config.factor)
        return torch.nn.functional.interpolate(image, self.out_size, mode="bicubic") + fine.float()
