"""``autoencoder-kl.v1``: a pretrained AutoencoderKL, for generators that learn its latents."""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from cascadezoo import (
    SampleRequest,
    Stage,
    StageGeometry,
    StageInputs,
    StageOutput,
    TrainContext,
)
from cascadezoo.errors import Problem, SpecError
from cascadezoo_diffusers.config_pretrained import ARCHITECTURE, PretrainedAutoencoderKLConfig
from cascadezoo_diffusers.reading import check_same, differences, read_autoencoder
from cascadezoo_diffusers.source import weights_of
from cascadezoo_diffusers.weights import load_weights

__all__ = ["PretrainedAutoencoderKL"]

KIND = "autoencoder-kl.v1"

# Fields of the architecture that only shift and scale latents.
_OF_LATENTS = {"scaling_factor", "shift_factor", "latents_mean", "latents_std"}


class PretrainedAutoencoderKL(Stage):
    """A diffusers AutoencoderKL as a decoder that is never trained.

    The target of the stage before it are its scaled latents: the posterior's mode minus
    ``shift_factor``, times ``scaling_factor``. The layout of images stays contiguous: channels_last
    is slower for diffusers' networks on CPUs.
    """

    Config = PretrainedAutoencoderKLConfig
    config: PretrainedAutoencoderKLConfig
    shift: Tensor
    scale: Tensor

    def __init__(self, config: PretrainedAutoencoderKLConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        levels = len(config.block_out_channels)
        # diffusers has no type annotations.
        self.network: Any = AutoencoderKL(  # type: ignore[no-untyped-call]
            **config.model_dump(include=set(ARCHITECTURE) - _OF_LATENTS),
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            sample_size=geometry.output.size,
        )
        channels = config.latent_channels
        mean = torch.tensor(config.latents_mean or [0.0] * channels, device="cpu")
        std = torch.tensor(config.latents_std or [1.0] * channels, device="cpu")
        shift = (mean + (config.shift_factor or 0.0)).view(1, channels, 1, 1)
        scale = (config.scaling_factor / std).view(1, channels, 1, 1)
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    def load_initial_weights(self) -> None:
        """Load the pretrained weights from the config's source.

        Raises:
            SpecError: there is no source, or its architecture differs from the config.
            ModelReferenceError: the source does not exist.
            ModelError: a file is missing, damaged or of another network.
            WeightsUnavailableError: the source is on the Hub, which cannot be reached.
        """
        place = self.config.place
        if place is None:
            problem = Problem(
                "source",
                "is missing, but the stage is never trained",
                "set it to a folder that diffusers saved, or to org/name on the Hub",
                code="source-missing",
            )
            raise SpecError([problem], source=f"the config of {KIND}")
        path, stated = read_autoencoder(place, self.config.subfolder)
        problems = differences(self.config, stated, "", f"{place}/{path}", ARCHITECTURE)
        check_same(list(problems), KIND)
        load_weights(self.network, weights_of(place, path))

    @torch.no_grad()
    def upstream_target(self, images: Tensor) -> Tensor:
        """The mode of the images' latents, shifted and scaled.

        Args:
            images: [N, C, out_size, out_size] in [-1, 1].

        Returns:
            [N, latent_channels, in_size, in_size], float32.
        """
        posterior = self.network.encode(_padded(images, self.config.factor), return_dict=False)[0]
        latents: Tensor = (posterior.mode().float() - self.shift) * self.scale
        return latents

    def preprocess(
        self, target: Tensor, upstream: Tensor | None, context: TrainContext
    ) -> StageInputs:
        """Pass on target and upstream latents."""
        return StageInputs(target=target, upstream=upstream)

    def forward(self, inputs: StageInputs) -> StageOutput:
        """Decode the upstream latents to images, not limited to [-1, 1]; without losses."""
        return StageOutput(self._decode(inputs.upstream))

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """Decode the upstream latents to images [N, C, out_size, out_size] in [-1, 1]."""
        images = self._decode(upstream)
        return images if self.geometry.output.latent else images.clamp(-1.0, 1.0)

    def _decode(self, upstream: Tensor | None) -> Tensor:
        if upstream is None:
            raise TypeError(f"{KIND} needs upstream latents")
        latents = upstream.float() / self.scale + self.shift
        images = self.network.decode(latents, return_dict=False)[0].float()
        return _cropped(images, self.out_size)


def _padded(images: Tensor, factor: int) -> Tensor:
    """Pad images [N, C, H, W] so that ``factor`` divides their height and width.

    The border is reflected; if the image is too small for that, its edge is repeated.
    """
    height, width = images.shape[-2:]
    rows, columns = -height % factor, -width % factor
    if not rows and not columns:
        return images
    top, left = rows // 2, columns // 2
    fits = rows - top < height and columns - left < width
    pads = (left, columns - left, top, rows - top)
    return F.pad(images, pads, mode="reflect" if fits else "replicate")


def _cropped(images: Tensor, size: int) -> Tensor:
    """Remove the border of :func:`_padded` from [N, C, H, W]; returns [N, C, size, size]."""
    top, left = ((side - size) // 2 for side in images.shape[-2:])
    return images[..., top : top + size, left : left + size]
