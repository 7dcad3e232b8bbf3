"""``diffusers-autoencoder-kl.v1``: an AutoencoderKL of diffusers as a decoder."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Self

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from cascadezoo import (
    Loss,
    SampleRequest,
    Stage,
    StageGeometry,
    StageInputs,
    StageOutput,
    TrainContext,
)
from cascadezoo.errors import TrainingError
from cascadezoo_diffusers.arguments import AutoencoderKLArguments
from cascadezoo_diffusers.config_kl import AutoencoderKLConfig
from cascadezoo_diffusers.reading import check_same, differences, read_autoencoder
from cascadezoo_diffusers.source import weights_of
from cascadezoo_diffusers.weights import load_weights

__all__ = ["AutoencoderKLDecoder"]

KIND = "diffusers-autoencoder-kl.v1"

COLLAPSED = 1e-6
"""Latents with a smaller standard deviation carry no information."""


class AutoencoderKLDecoder(Stage):
    """An autoencoder whose scaled latents are the target of the stage before it.

    The latents are the posterior's mode minus their shift, times their scale. A trained stage
    encodes its target; in a joint phase it also decodes the upstream latents. The layout of images
    stays contiguous: channels_last is slower for diffusers' networks on CPUs.
    """

    Config = AutoencoderKLConfig
    config: AutoencoderKLConfig
    shift: Tensor
    factors: Tensor
    scale: Tensor

    def __init__(self, config: AutoencoderKLConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        vae = config.network
        levels = len(vae.block_out_channels)
        names = set(AutoencoderKLArguments.model_fields) - {"scaling_factor", "shift_factor"}
        # diffusers has no type annotations.
        self.network: Any = AutoencoderKL(  # type: ignore[no-untyped-call]
            **vae.model_dump(include=names - {"latents_mean", "latents_std"}),
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            sample_size=geometry.output.size,
        )
        channels = vae.latent_channels
        mean = torch.tensor(vae.latents_mean or [0.0] * channels, device="cpu")
        std = torch.tensor(vae.latents_std or [1.0] * channels, device="cpu")
        shift = (mean + (vae.shift_factor or 0.0)).view(1, channels, 1, 1)
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("factors", 1.0 / std.view(1, channels, 1, 1), persistent=False)
        # A measured scale is saved with the weights; one of the config is not.
        self.measured = vae.scaling_factor is None
        scale = torch.full((), vae.scaling_factor or 1.0, device="cpu")
        self.register_buffer("scale", scale, persistent=self.measured)
        if config.frozen:
            self.requires_grad_(False)
            self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Set training mode; a frozen stage stays in evaluation mode."""
        return super().train(mode and not self.config.frozen)

    def load_initial_weights(self) -> None:
        """Load the weights of the config's source, if any.

        Raises:
            SpecError: the config contradicts the source.
            ModelReferenceError: the source does not exist.
            ModelError: a file is missing, damaged, a pickle, or of another network.
            WeightsUnavailableError: the source is on the Hub, which cannot be reached.
        """
        place = self.config.place
        if place is None:
            return
        path, stated = read_autoencoder(place, self.config.subfolder)
        # A stage that is trained further can measure its latents again.
        free = {"scaling_factor"} if self.measured else set()
        names = [name for name in AutoencoderKLArguments.model_fields if name not in free]
        where = f"{place}/{path}"
        check_same(list(differences(self.config.network, stated, "vae", where, names)), KIND)
        load_weights(self.network, weights_of(place, path))

    def upstream_target(self, images: Tensor) -> Tensor:
        """The mode of the images' latents, shifted and scaled.

        Args:
            images: [N, C, out_size, out_size] in [-1, 1].

        Returns:
            [N, latent_channels, in_size, in_size], float32.
        """
        mean, _ = self._encode(images)
        return (mean - self.shift) * self.factors * self.scale

    def preprocess(
        self, target: Tensor, upstream: Tensor | None, context: TrainContext
    ) -> StageInputs:
        """Noise for the posterior of a trained stage; the upstream latents to decode."""
        inputs = StageInputs(target=target)
        if self.training:
            shape = self.config.upstream_shape(self.geometry.output)
            inputs.noise = context.draw.randn(
                target.shape[0], shape.channels, shape.size, shape.size
            )
        if upstream is not None and (upstream.requires_grad or not self.training):
            inputs.upstream = upstream
        return inputs

    def forward(self, inputs: StageInputs) -> StageOutput:
        """The reconstruction, its error, and the weighted divergence of the posterior.

        The reconstruction error (``mse`` or ``l1``) is a mean over all pixels. The divergence
        ``kl`` in nats is summed over an image's latents and averaged over the batch (Kingma &
        Welling 2014). ``upstream`` is the error of the decoded upstream latents.
        """
        losses: dict[str, Tensor | Loss] = {}
        estimate: Tensor | None = None
        if inputs.noise is not None:
            mean, logvar = self._encode(inputs.target)
            estimate = self._decode(mean + (0.5 * logvar).exp() * inputs.noise)
            losses[self.config.reconstruction] = self._error(estimate, inputs.target)
            nats = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).flatten(1).sum(1)
            losses["kl"] = self.config.kl_weight * nats.mean()
        if inputs.upstream is not None:
            estimate = self._image(inputs.upstream)
            if losses:
                losses["upstream"] = self._error(estimate, inputs.target)
        if estimate is None:
            raise TypeError(f"{KIND} needs the inputs from its preprocess")
        return StageOutput(estimate, losses)

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """Decode the upstream latents to images [N, C, out_size, out_size] in [-1, 1]."""
        if upstream is None:
            raise TypeError(f"{KIND} needs upstream latents")
        images = self._image(upstream)
        return images if self.geometry.output.latent else images.clamp(-1.0, 1.0)

    def finish_phase(self, images: Iterable[Tensor]) -> None:
        """Measure the scale, 1 / std of the latents, if the config does not set it.

        Args:
            images: the training set, in batches [N, C, out_size, out_size].

        Raises:
            TrainingError: the latents are constant or not finite, or the training set is empty.
        """
        if not self.measured:
            return
        count, total, squares = 0, 0.0, 0.0
        with torch.no_grad():
            for batch in images:
                mean, _ = self._encode(batch)
                # The sums need float64, which some accelerators lack; latents are small.
                latents = ((mean - self.shift) * self.factors).to("cpu").double()
                count += latents.numel()
                total += float(latents.sum())
                squares += float(latents.square().sum())
        if count == 0:
            raise TrainingError(
                f"{KIND}: no images to measure the latents on", code="training-latents-no-images"
            )
        average = total / count
        deviation = math.sqrt(max(squares / count - average * average, 0.0))
        if not COLLAPSED < deviation < math.inf:
            raise TrainingError(
                f"{KIND}: the latents of the training set have a standard deviation of "
                f"{deviation:g}, so a generator has nothing to learn",
                hint=f"lower kl_weight (it is {self.config.kl_weight:g}) or the learning rate, "
                "or train longer",
                code="training-latents-flat",
                deviation=deviation,
            )
        self.scale.fill_(1.0 / deviation)

    def _encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and log variance of the posterior, float32."""
        posterior = self.network.encode(images, return_dict=False)[0]
        return posterior.mean.float(), posterior.logvar.float()

    def _decode(self, latents: Tensor) -> Tensor:
        output: Tensor = self.network.decode(latents, return_dict=False)[0]
        return output.float()

    def _image(self, upstream: Tensor) -> Tensor:
        return self._decode(upstream.float() / (self.factors * self.scale) + self.shift)

    def _error(self, estimate: Tensor, target: Tensor) -> Tensor:
        difference = estimate - target.float()
        if self.config.reconstruction == "l1":
            return difference.abs().mean()
        return difference.square().mean()
