"""``autoencoder.v1``: a decoder that is trained together with its encoder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from cascadezoo.errors import TrainingError
from cascadezoo.nn.autoencoder import VariationalAutoencoder
from cascadezoo.stages.autoencoder.config import AutoencoderConfig
from cascadezoo.stages.base import (
    Loss,
    SampleRequest,
    Stage,
    StageGeometry,
    StageInputs,
    StageOutput,
    TrainContext,
)
from cascadezoo.stages.request_options import bounded

__all__ = ["Autoencoder"]

COLLAPSED = 1e-6
"""Latents with a smaller standard deviation carry no information."""


class Autoencoder(Stage):
    """Variational autoencoder whose scaled latents are the target of the stage before it.

    A trained stage encodes its target and ignores the upstream latents. In a joint phase it also
    decodes the upstream latents, and the gradient of that error reaches the stages before it. A
    frozen stage only decodes.

    The scale is 1 / std of the latents over the training set (Rombach et al. 2022, appendix G),
    measured at the end of each phase that trains the stage, and saved with the weights.
    """

    Config = AutoencoderConfig
    config: AutoencoderConfig
    scale: Tensor

    def __init__(self, config: AutoencoderConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        self.network = VariationalAutoencoder(
            geometry.output.channels,
            config.latent_channels,
            channels=config.channels,
            multipliers=config.multipliers,
            blocks=config.blocks,
            attention=config.attention,
            dropout=config.dropout,
            halve_last=config.halve_last,
        )
        self.register_buffer("scale", torch.ones((), device="cpu"))

    def upstream_target(self, images: Tensor) -> Tensor:
        """The mode of the images' latents, scaled.

        Args:
            images: [N, C, out_size, out_size] in [-1, 1].

        Returns:
            [N, latent_channels, in_size, in_size] float32, with a standard deviation of 1 over
            the training set once the scale is measured.
        """
        with self._without_dropout():
            return self.network.encode(images).mean * self.scale

    def preprocess(
        self, target: Tensor, upstream: Tensor | None, context: TrainContext
    ) -> StageInputs:
        """Noise for the posterior and the weight of the divergence, or the upstream latents.

        A trained stage gets ``noise``. ``upstream`` is set if it must be decoded.
        """
        inputs = StageInputs(target=target)
        if self.training:
            shape = self.config.upstream_shape(self.geometry.output)
            count = target.shape[0]
            inputs.noise = context.draw.randn(count, shape.channels, shape.size, shape.size)
            weight = torch.full((), self._kl_weight(context.progress), device=target.device)
            inputs.extra["kl_weight"] = weight
        if upstream is not None and (upstream.requires_grad or not self.training):
            inputs.upstream = upstream
        return inputs

    def forward(self, inputs: StageInputs) -> StageOutput:
        """The reconstruction, its error, and the weighted divergence of the posterior.

        The reconstruction error (``mse`` or ``l1``) is a mean over all pixels. The divergence
        ``kl`` in nats is summed over an image's latents and averaged over the batch. Together they
        are the negative evidence bound of Kingma & Welling 2014 up to a factor: the weight w
        corresponds to a decoder with pixels of variance w * C * H * W / 2 (mse).

        Returns:
            The estimate [N, C, out_size, out_size], not limited to [-1, 1]. It is decoded from the
            upstream latents if they are given, with their error as the loss ``upstream``;
            otherwise from the target's own latents.

        Raises:
            TypeError: the inputs do not come from :meth:`preprocess`.
        """
        losses: dict[str, Tensor | Loss] = {}
        estimate: Tensor | None = None
        if inputs.noise is not None:
            posterior = self.network.encode(inputs.target)
            estimate = self.network.decode(posterior.sample(inputs.noise), self.out_size)
            losses[self.config.reconstruction] = self._error(estimate, inputs.target)
            losses["kl"] = inputs.extra["kl_weight"] * posterior.kl().mean()
        if inputs.upstream is not None:
            estimate = self._decode(inputs.upstream)
            if losses:
                losses["upstream"] = self._error(estimate, inputs.target)
        if estimate is None:
            raise TypeError("autoencoder.v1 needs the inputs from its preprocess")
        return StageOutput(estimate, losses)

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """Decode the upstream latents to images [N, C, out_size, out_size] in [-1, 1]."""
        if upstream is None:
            raise TypeError("autoencoder.v1 needs upstream latents")
        return bounded(self._decode(upstream), self.geometry.output)

    def finish_phase(self, images: Iterable[Tensor]) -> None:
        """Measure the scale, in one pass that keeps no latents.

        Args:
            images: the training set, in batches [N, C, out_size, out_size].

        Raises:
            TrainingError: the latents are constant or not finite, or the training set is empty.
        """
        count, total, squares = 0, 0.0, 0.0
        with torch.no_grad(), self._without_dropout():
            for batch in images:
                # The sums need float64, which some accelerators lack; latents are small.
                latents = self.network.encode(batch).mean.to("cpu").double()
                count += latents.numel()
                total += float(latents.sum())
                squares += float(latents.square().sum())
        if count == 0:
            raise TrainingError(
                "autoencoder.v1: no images to measure the latents on",
                code="training-latents-no-images",
            )
        mean = total / count
        deviation = math.sqrt(max(squares / count - mean * mean, 0.0))
        if not COLLAPSED < deviation < math.inf:
            raise TrainingError(
                f"autoencoder.v1: the latents of the training set have a standard deviation of "
                f"{deviation:g}, so a generator has nothing to learn",
                hint=f"lower kl_weight (it is {self.config.kl_weight:g}) or the learning rate, "
                "or train longer",
                code="training-latents-flat",
                deviation=deviation,
            )
        self.scale.fill_(1.0 / deviation)

    def _decode(self, upstream: Tensor) -> Tensor:
        return self.network.decode(upstream.float() / self.scale, self.out_size)

    def _error(self, estimate: Tensor, target: Tensor) -> Tensor:
        difference = estimate - target.float()
        if self.config.reconstruction == "l1":
            return difference.abs().mean()
        return difference.square().mean()

    def _kl_weight(self, progress: float) -> float:
        warmup = self.config.kl_warmup
        return self.config.kl_weight * (min(progress / warmup, 1.0) if warmup else 1.0)

    @contextmanager
    def _without_dropout(self) -> Iterator[None]:
        """Make targets and measurements deterministic."""
        if not (self.training and self.config.dropout):
            yield
            return
        self.network.eval()
        try:
            yield
        finally:
            self.network.train()
