"""``autoencoder-kl.v1``: a pretrained autoencoder, for generators that learn its latents."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from cascadezoo.errors import Problem, SpecError
from cascadezoo.nn.autoencoder_kl import AutoencoderKLNetwork
from cascadezoo.stages.autoencoder_kl.config import AutoencoderKLConfig
from cascadezoo.stages.autoencoder_kl.files import (
    CONFIG_FILE,
    KIND,
    WEIGHTS_FILE,
    fetch,
    read_architecture,
)
from cascadezoo.stages.autoencoder_kl.weights import check_architecture, load_weights
from cascadezoo.stages.base import (
    SampleRequest,
    Stage,
    StageGeometry,
    StageInputs,
    StageOutput,
    TrainContext,
)
from cascadezoo.stages.request_options import bounded

__all__ = ["AutoencoderKL"]


class AutoencoderKL(Stage):
    """A diffusers AutoencoderKL as a decoder that is never trained.

    Its scaled latents are what the stage before it learns to make: the posterior's mode, less
    ``shift_factor``, times ``scaling_factor``.
    """

    Config = AutoencoderKLConfig
    config: AutoencoderKLConfig
    shift: Tensor
    scale: Tensor

    def __init__(self, config: AutoencoderKLConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        self.network = AutoencoderKLNetwork(
            config.in_channels,
            config.latent_channels,
            widths=config.block_out_channels,
            layers=config.layers_per_block,
            groups=config.norm_num_groups,
            quant_conv=config.use_quant_conv,
            post_quant_conv=config.use_post_quant_conv,
            attention=config.mid_block_add_attention,
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
        """Stay as in sampling, whatever is asked."""
        return super().train(False)

    def load_initial_weights(self) -> None:
        """Load the pretrained weights from the config's source.

        Raises:
            SpecError: there is no source, or its architecture is another than the config's.
            ModelReferenceError: the source is not there.
            ModelError: a file is missing, damaged or of another network.
            WeightsUnavailableError: the source is on the Hub, which cannot be reached.
        """
        place = self.config.place
        if place is None:
            problem = Problem(
                "source",
                "is not given, and the stage is never trained",
                "set it to a folder that diffusers saved, or to org/name on the Hub",
                code="source-missing",
            )
            raise SpecError([problem], source=f"the config of {KIND}")
        described = fetch(place, CONFIG_FILE)
        check_architecture(self.config, read_architecture(described), f"{place}/{CONFIG_FILE}")
        load_weights(self.network, fetch(place, WEIGHTS_FILE))

    @torch.no_grad()
    def upstream_target(self, images: Tensor) -> Tensor:
        """The mode of the images' latents, shifted and scaled.

        Args:
            images: [N, C, out_size, out_size] in [-1, 1].

        Returns:
            [N, latent_channels, in_size, in_size], float32.
        """
        return (self.network.encode(images).mean - self.shift) * self.scale

    def preprocess(
        self, target: Tensor, upstream: Tensor | None, context: TrainContext
    ) -> StageInputs:
        """Target and upstream latents as they are."""
        return StageInputs(target=target, upstream=upstream)

    def forward(self, inputs: StageInputs) -> StageOutput:
        """The images of the upstream latents, not limited to [-1, 1]; there is no loss."""
        return StageOutput(self._decode(inputs.upstream))

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """The images of the upstream latents, [N, C, out_size, out_size], in [-1, 1]."""
        return bounded(self._decode(upstream), self.geometry.output)

    def _decode(self, upstream: Tensor | None) -> Tensor:
        if upstream is None:
            raise TypeError(f"{KIND} needs upstream latents")
        return self.network.decode(upstream.float() / self.scale + self.shift, self.out_size)
