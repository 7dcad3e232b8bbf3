"""The arguments of diffusers' models and schedulers, under its names. Free of torch."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from cascadezoo import Model

__all__ = ["AutoencoderKLArguments", "SchedulerArguments", "UNet2DArguments"]

Channels = Annotated[int, Field(ge=1, le=65536)]
Widths = Annotated[list[Channels], Field(min_length=1, max_length=8)]
Layers = Annotated[int, Field(ge=1, le=64)]
Groups = Annotated[int, Field(ge=1, le=65536)]
Down = Literal["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"]
Up = Literal["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"]
Beta = Annotated[float, Field(gt=0.0, lt=1.0)]
Statistics = Annotated[
    list[Annotated[float, Field(ge=-1e6, le=1e6)]], Field(min_length=1, max_length=65536)
]

DEFAULT_WIDTHS = [64, 128, 128]


class UNet2DArguments(Model):
    """The arguments of a `UNet2DModel`, with the names of diffusers."""

    sample_size: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Height and width of the training images; without effect, as the network accepts any size."""

    in_channels: Channels | None = None
    """Channels of the input; None uses those of the place in the cascade."""

    out_channels: Channels | None = None
    """Channels of the output; None uses those of the place in the cascade."""

    center_input_sample: bool = False
    """Scale inputs from [0, 1] to [-1, 1]."""

    time_embedding_type: Literal["positional"] = "positional"
    """How the timestep is embedded."""

    time_embedding_dim: Channels | None = None
    """Width of the embedding; None uses four times the first of `block_out_channels`."""

    freq_shift: Annotated[int, Field(ge=0, le=1)] = 0
    """Shift of the embedding's frequencies."""

    flip_sin_to_cos: bool = True
    """Whether cosines come before sines in the embedding."""

    block_out_channels: Widths = DEFAULT_WIDTHS
    """Width of each level; each but the last halves the resolution."""

    down_block_types: Annotated[list[Down], Field(min_length=1, max_length=8)] | None = None
    """The block of each level on the way down; None has attention only in the lowest level."""

    mid_block_type: Literal["UNetMidBlock2D"] | None = "UNetMidBlock2D"
    """The block at the lowest resolution; None omits it."""

    up_block_types: Annotated[list[Up], Field(min_length=1, max_length=8)] | None = None
    """The block of each level on the way up, the lowest first; None mirrors the way down."""

    layers_per_block: Layers = 2
    """Residual blocks of each level on the way down; one more on the way up."""

    mid_block_scale_factor: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0
    """Divisor of the outputs of the residual blocks at the lowest resolution."""

    downsample_padding: Annotated[int, Field(ge=0, le=1)] = 1
    """Padding of the downsampling convolutions; 0 pads two sides only."""

    downsample_type: Literal["conv", "resnet"] = "conv"
    """The downsampling layer after a level with attention."""

    upsample_type: Literal["conv", "resnet"] = "conv"
    """The upsampling layer after a level with attention."""

    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Dropout in every residual block."""

    act_fn: Literal["silu", "swish", "mish", "gelu", "relu"] = "silu"
    """The activation in residual blocks."""

    attention_head_dim: Channels | None = 8
    """Channels of an attention head; None uses a single head."""

    norm_num_groups: Groups = 32
    """Groups of every normalisation; must divide each width."""

    attn_norm_num_groups: Groups | None = None
    """Groups of the normalisation of the attention at the lowest resolution; None uses
    `norm_num_groups`."""

    norm_eps: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-5
    """The number added to the variance in every normalisation."""

    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    """Whether the timestep is added inside a residual block, or scales and shifts its norm."""

    add_attention: bool = True
    """Self-attention at the lowest resolution."""

    class_embed_type: None = None
    """How labels are embedded; only a table is supported."""

    num_class_embeds: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Rows of the label table. None: no table for weights of a source; otherwise one row for each
    label of the data and one for no label."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        levels = len(self.block_out_channels)
        for name in ("down_block_types", "up_block_types"):
            blocks = getattr(self, name)
            if blocks is not None and len(blocks) != levels:
                raise ValueError(
                    f"{name} has {len(blocks)} blocks for the {levels} levels of block_out_channels"
                )
        for width in self.block_out_channels:
            if width % self.norm_num_groups:
                raise ValueError(
                    f"norm_num_groups is {self.norm_num_groups}, which does not divide the width "
                    f"{width} of block_out_channels"
                )
        lowest = self.block_out_channels[-1]
        if self.attn_norm_num_groups is not None and lowest % self.attn_norm_num_groups:
            raise ValueError(
                f"attn_norm_num_groups is {self.attn_norm_num_groups}, which does not divide "
                f"{lowest}, the last of block_out_channels"
            )
        if self.block_out_channels[0] < 4:
            raise ValueError("the first of block_out_channels must be 4 or more, for the timestep")
        self._check_heads()
        return self

    def _check_heads(self) -> None:
        head = self.attention_head_dim
        if head is None:
            return
        down, up = self.blocks()
        levels = zip(self.block_out_channels, down, reversed(up), strict=True)
        widths = [w for w, d, u in levels if "Attn" in d or "Attn" in u]
        if self.mid_block_type is not None and self.add_attention:
            widths.append(self.block_out_channels[-1])
        if widths and head > min(widths):
            raise ValueError(
                f"attention_head_dim is {head}, more than the {min(widths)} channels of a level "
                "with attention"
            )

    @property
    def factor(self) -> int:
        """The size of an image must be a multiple of this."""
        return int(2 ** (len(self.block_out_channels) - 1))

    def blocks(self) -> tuple[list[str], list[str]]:
        """The blocks on the way down, and those on the way up from the lowest level."""
        plain = len(self.block_out_channels) - 1
        down: list[Any] = self.down_block_types or [*["DownBlock2D"] * plain, "AttnDownBlock2D"]
        mirrored = [name.replace("Downsample", "Upsample").replace("Down", "Up") for name in down]
        return list(down), list(self.up_block_types or reversed(mirrored))


class SchedulerArguments(Model):
    """The arguments of diffusers' schedulers, with the names of diffusers.

    Each sampler uses those that its scheduler supports.
    """

    num_train_timesteps: Annotated[int, Field(ge=2, le=10_000)] = 1000
    """T, the number of timesteps of the forward process."""

    beta_start: Beta = 1e-4
    """The first beta."""

    beta_end: Beta = 0.02
    """The last beta. 0.02 is meant for 1000 timesteps."""

    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    """The betas: linear (Ho et al. 2020), squared linear (Rombach et al. 2022), or from a squared
    cosine (Nichol & Dhariwal 2021), which ignores the end points."""

    trained_betas: Annotated[list[Beta], Field(min_length=2, max_length=10_000)] | None = None
    """The individual betas; replaces the schedule."""

    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    """What the network predicts: the noise, the velocity (Salimans & Ho 2022), or the image."""

    rescale_betas_zero_snr: bool = False
    """Rescale the betas so that the last timestep is pure noise (Lin et al. 2024)."""

    clip_sample: bool = True
    """Limit each estimate of the clean image in ddpm, ddim and heun; never for latents."""

    clip_sample_range: Annotated[float, Field(gt=0.0, le=1e6)] = 1.0
    """The limit of `clip_sample`."""

    thresholding: bool = False
    """Dynamic thresholding of each estimate (Saharia et al. 2022); never for latents."""

    dynamic_thresholding_ratio: Annotated[float, Field(gt=0.0, le=1.0)] = 0.995
    """`thresholding`: the quantile that defines the threshold."""

    sample_max_value: Annotated[float, Field(ge=1.0, le=1e6)] = 1.0
    """`thresholding`: the largest threshold."""

    timestep_spacing: Literal["leading", "trailing", "linspace"] = "trailing"
    """Which timesteps sampling visits: including the last (trailing), the first (leading), or both
    (linspace)."""

    steps_offset: Annotated[int, Field(ge=0, le=1000)] = 0
    """Offset of each timestep of the leading spacing."""

    set_alpha_to_one: bool | None = None
    """Whether the last step of ddim and pndm ends without noise; None uses the sampler's
    default."""

    variance_type: Literal["fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"] = (
        "fixed_small"
    )
    """Variance of ddpm's steps: the posterior's or beta."""

    use_karras_sigmas: bool = False
    """Use the noise levels of Karras et al. 2022, in samplers that support them."""

    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    """The final noise level of the solvers."""

    skip_prk_steps: bool = False
    """Start pndm without Runge-Kutta steps, which need several evaluations each."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        betas = self.trained_betas
        if betas is not None and len(betas) != self.num_train_timesteps:
            raise ValueError(
                f"trained_betas has {len(betas)} numbers for {self.num_train_timesteps} "
                "num_train_timesteps"
            )
        straight = betas is None and self.beta_schedule != "squaredcos_cap_v2"
        if straight and self.beta_start >= self.beta_end:
            raise ValueError(
                f"beta_end is {self.beta_end:g}, not above beta_start ({self.beta_start:g})"
            )
        if self.rescale_betas_zero_snr and self.prediction_type == "epsilon":
            raise ValueError(
                "prediction_type is epsilon, which has no information about the image at the last "
                "timestep under rescale_betas_zero_snr; use v_prediction or sample"
            )
        if self.signal() < 1e-20 and not self.rescale_betas_zero_snr:
            raise ValueError(
                "the betas remove the image long before the last of "
                f"{self.num_train_timesteps} timesteps; lower beta_end, or use fewer timesteps"
            )
        return self

    def signal(self) -> float:
        """The variance of the signal at the last timestep."""
        if self.rescale_betas_zero_snr:
            return 0.0
        steps = self.num_train_timesteps
        if self.trained_betas is not None:
            betas = self.trained_betas
        elif self.beta_schedule == "squaredcos_cap_v2":
            share = [math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(steps)]
            after = [*share[1:], 0.0]
            betas = [min(1 - b / a, 0.999) for a, b in zip(share, after, strict=True)]
        else:
            power = 2 if self.beta_schedule == "scaled_linear" else 1
            low, high = self.beta_start ** (1 / power), self.beta_end ** (1 / power)
            betas = [(low + (high - low) * i / (steps - 1)) ** power for i in range(steps)]
        return math.prod(1 - beta for beta in betas)


class AutoencoderKLArguments(Model):
    """The arguments of an `AutoencoderKL`, with the names of diffusers."""

    in_channels: Channels | None = None
    """Channels of the encoded image; None uses those of the data."""

    out_channels: Channels | None = None
    """Channels of the decoded image; None uses those of the data."""

    block_out_channels: Widths = [32, 64, 128]
    """Width of each level; each but the last halves the resolution."""

    layers_per_block: Layers = 1
    """Residual blocks of each level of the encoder; the decoder has one more."""

    latent_channels: Channels = 4
    """Channels of the latents."""

    norm_num_groups: Groups = 32
    """Groups of every normalisation; must divide each width."""

    act_fn: Literal["silu"] = "silu"
    """The activation in residual blocks."""

    scaling_factor: Annotated[float, Field(gt=0.0, le=1e6)] | None = None
    """Factor of the latents, so that their standard deviation is about 1. None measures it at the
    end of each phase that trains the stage."""

    shift_factor: Annotated[float, Field(ge=-1e6, le=1e6)] | None = None
    """Shift that is subtracted from the latents before scaling."""

    latents_mean: Statistics | None = None
    """Mean of each latent channel, subtracted before scaling."""

    latents_std: Statistics | None = None
    """Standard deviation of each latent channel, the divisor of the channel."""

    use_quant_conv: bool = True
    """Whether a 1x1 convolution follows the encoder."""

    use_post_quant_conv: bool = True
    """Whether a 1x1 convolution precedes the decoder."""

    mid_block_add_attention: bool = True
    """Self-attention at the lowest resolution."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for width in self.block_out_channels:
            if width % self.norm_num_groups:
                raise ValueError(
                    f"norm_num_groups is {self.norm_num_groups}, which does not divide the width "
                    f"{width} of block_out_channels"
                )
        if (self.latents_mean is None) != (self.latents_std is None):
            raise ValueError("give both or neither of latents_mean and latents_std")
        for name in ("latents_mean", "latents_std"):
            rows = getattr(self, name)
            if rows is not None and len(rows) != self.latent_channels:
                raise ValueError(
                    f"{name} has {len(rows)} numbers for {self.latent_channels} latent_channels"
                )
        if self.latents_std is not None and min(self.latents_std) <= 0:
            raise ValueError("latents_std must be above 0")
        return self

    @property
    def factor(self) -> int:
        """The factor between the size of the image and of the latents."""
        return int(2 ** (len(self.block_out_channels) - 1))
