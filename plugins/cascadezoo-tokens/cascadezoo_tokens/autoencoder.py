"""``vq-autoencoder.v1``: images as tokens, with a codebook that moves in ``after_step``."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from cascadezoo import (
    SampleRequest,
    Stage,
    StageGeometry,
    StageInputs,
    StageOutput,
    StepContext,
    TrainContext,
)
from cascadezoo_tokens.config import VqAutoencoderConfig
from cascadezoo_tokens.layers import Decoder, Encoder

__all__ = ["VqAutoencoder"]

SMALL = 1e-5
NOISE = 0.01
"""Distance of a moved code from the code beside it, as a share of the codebook's deviation."""


class VqAutoencoder(Stage):
    """Vector-quantised autoencoder (van den Oord et al. 2017, arXiv:1711.00937).

    The codebook is not trained by a loss: each code is the running mean of the latents that are
    nearest to it (appendix A.1). Its means, counts and codes are persistent buffers, which
    ``after_step`` moves by sums over all processes.

    A trained stage encodes its target. A frozen one decodes the tokens of the stage before it.
    """

    Config = VqAutoencoderConfig
    averaged_buffers = ("codes",)
    config: VqAutoencoderConfig
    codes: Tensor
    usage: Tensor
    sums: Tensor
    started: Tensor

    def __init__(self, config: VqAutoencoderConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        shape = (geometry.output.channels, config.code_size, config.channels)
        self.encoder = Encoder(*shape, config.levels, config.blocks)
        self.decoder = Decoder(*shape, config.levels, config.blocks)
        codes = torch.randn(config.tokens, config.code_size)
        self.register_buffer("codes", codes)
        self.register_buffer("usage", torch.full((config.tokens,), 1.0 / config.tokens))
        self.register_buffer("sums", codes / config.tokens)
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def encode(self, images: Tensor) -> Tensor:
        """The latents of images, float32 [N, code_size, in_size, in_size]."""
        latents: Tensor = self.encoder(images)
        return latents.float()

    def nearest(self, latents: Tensor) -> Tensor:
        """The number of the nearest code of each latent, int64 [N, in_size, in_size]."""
        rows = latents.movedim(1, -1)
        with _exact(latents.device):
            distances = self.codes.square().sum(1) - 2 * rows @ self.codes.T
        return distances.argmin(-1)

    def decode(self, numbers: Tensor) -> Tensor:
        """The image of codes, float32 [N, C, out_size, out_size], not limited to [-1, 1]."""
        return self._image(self.codes[numbers].movedim(-1, 1))

    def upstream_target(self, images: Tensor) -> Tensor:
        """The tokens of images: float32 whole numbers [N, 1, in_size, in_size]."""
        return self.nearest(self.encode(images))[:, None].float()

    def preprocess(
        self, target: Tensor, upstream: Tensor | None, context: TrainContext
    ) -> StageInputs:
        """The image to encode, or for a frozen stage the tokens to decode."""
        return StageInputs(target, None if self.training else upstream)

    def forward(self, inputs: StageInputs) -> StageOutput:
        """The reconstruction, its error, and the distance of the latents from their codes.

        The gradient of the reconstruction reaches the encoder as if the latents were not quantised
        (straight-through estimate).
        """
        if inputs.upstream is not None:
            return StageOutput(self.decode(_numbers(inputs.upstream, len(self.codes))))
        latents = self.encode(inputs.target)
        numbers = self.nearest(latents.detach())
        codes = self.codes[numbers].movedim(-1, 1)
        estimate = self._image(latents + (codes - latents).detach())
        difference = estimate - inputs.target
        error = difference.square() if self.config.reconstruction == "mse" else difference.abs()
        rows = latents.detach().movedim(1, -1).flatten(0, 2)
        used = numbers.flatten()[:, None] == torch.arange(len(self.codes), device=rows.device)
        counts = used.float().sum(0)
        with _exact(rows.device):
            sums = used.float().T @ rows
        share = counts / counts.sum()
        entropy = -(share * share.clamp_min(SMALL).log()).sum()
        return StageOutput(
            estimate,
            {
                self.config.reconstruction: error.mean(),
                "commitment": self.config.commitment * F.mse_loss(latents, codes),
            },
            {"perplexity": entropy.exp()},
            {"counts": counts, "sums": sums, "squares": rows.square().sum(0)},
        )

    def after_step(self, context: StepContext) -> None:
        """Move the codebook: running means of the latents, and a new place for unused codes.

        At the first step the codes are drawn from the normal distribution of the latents.
        """
        counts = context.sum(context.statistics["counts"])
        sums = context.sum(context.statistics["sums"])
        squares = context.sum(context.statistics["squares"])
        size, weight, total = len(self.codes), 1.0 - self.config.decay, counts.sum()
        mean = sums.sum(0) / total
        deviation = (squares / total - mean.square()).clamp_min(0.0).sqrt()
        noise = context.draw.randn(*self.codes.shape)
        drawn = context.draw.rand(size)
        usage = self.usage.lerp(counts / total, weight)
        rows = self.sums.lerp(sums / total, weight)
        codes = rows / usage.clamp_min(SMALL)[:, None]
        unused = usage < self.config.revive / size
        share = usage.cumsum(0)
        beside = torch.searchsorted(share / share[-1], drawn).clamp_max(size - 1)
        moved = codes[beside] + NOISE * deviation * noise
        codes = torch.where(unused[:, None], moved, codes)
        # Without branches on values, which would wait for the device.
        codes = torch.where(self.started, codes, mean + deviation * noise)
        usage = torch.where(unused | ~self.started, torch.full_like(usage, 1.0 / size), usage)
        fresh = (unused | ~self.started)[:, None]
        self.sums.copy_(torch.where(fresh, codes * usage[:, None], rows))
        self.usage.copy_(usage)
        self.codes.copy_(codes)
        self.started.fill_(True)

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """Decode tokens to images [N, C, out_size, out_size] in [-1, 1].

        Raises:
            TypeError: there are no tokens.
        """
        if upstream is None:
            raise TypeError("vq-autoencoder.v1 needs tokens")
        images = self.decode(_numbers(upstream, len(self.codes)))
        return images if self.geometry.output.latent else images.clamp(-1.0, 1.0)

    def _image(self, latents: Tensor) -> Tensor:
        image: Tensor = self.decoder(latents)
        return image.float()


def _exact(device: torch.device) -> AbstractContextManager[object]:
    """Inside, autocast rounds no products. CUDA devices may still use TF32 in bf16 trainings."""
    if device.type == "meta":
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def _numbers(tokens: Tensor, size: int) -> Tensor:
    """Tokens [N, 1, H, W] as int64 [N, H, W]."""
    return tokens[:, 0].round().long().clamp(0, size - 1)
