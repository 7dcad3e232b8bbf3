"""Base of upsamplers conditioned on the enlarged upstream image."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor

from cascadezoo.diffusion.augmentation import blur_augmentation, gaussian_augmentation
from cascadezoo.diffusion.schedules import signal_of
from cascadezoo.errors import SampleError
from cascadezoo.nn.upsample import enlarge
from cascadezoo.stages.base import SampleRequest, TrainContext, enlarged_size
from cascadezoo.stages.conditional_stage import ConditionalStage
from cascadezoo.stages.request_options import share
from cascadezoo.stages.shared_config import SuperResolutionConfig

__all__ = ["SuperResolution"]


class SuperResolution(ConditionalStage):
    """Conditioning on the upstream image, with the augmentations of CDM (Ho et al. 2021).

    In the bases of a subclass, list it before the class that trains and samples.
    """

    sampling_options: ClassVar[frozenset[str]] = frozenset({"s", "truncated"})
    config: SuperResolutionConfig

    @property
    def levels(self) -> int:
        """Number of noise levels of conditions that the network receives."""
        return int(self.config.augmentation == "gaussian")

    def training_conditions(
        self, upstream: Tensor | None, context: TrainContext
    ) -> dict[str, Tensor]:
        """The augmented and enlarged upstream image, and its noise level (CDM, section 4)."""
        image, draw, config = _required(self, upstream), context.draw, self.config
        if config.augmentation == "gaussian":
            level = config.s_min + draw.rand(len(image)) * (config.s_max - config.s_min)
            image = gaussian_augmentation(image, draw.randn(*image.shape), level)
            return {"condition": self.enlarged(image), "level": level}
        if config.augmentation == "blur":
            low, high = config.blur_sigma
            image = blur_augmentation(
                image,
                draw.rand(len(image), 2),
                probability=config.blur_probability,
                sigmas=(low, high),
            )
        return {"condition": self.enlarged(image)}

    def sampling_conditions(
        self, upstream: Tensor | None, request: SampleRequest
    ) -> tuple[Tensor, ...]:
        """The enlarged upstream image, noised to level ``s`` unless sampling is truncated.

        Raises:
            SampleError: the model does not support ``s`` or ``truncated``.
        """
        image = _required(self, upstream).float()
        s, truncated = self._s(request), self._truncated(request)
        if not self.levels:
            return (self.enlarged(image),)
        level = torch.full((len(image),), s, device=image.device)
        if s > 0 and not truncated:
            noise = request.draw.randn(*image.shape)
            image = gaussian_augmentation(image, noise, level)
        return self.enlarged(image), level

    def upstream_request(self, request: SampleRequest) -> SampleRequest:
        """In truncated sampling, let the previous stage stop at ``s``."""
        s = self._s(request)
        if not self._truncated(request) or s == 0:
            return request
        options = {**request.options, "stop": signal_of(s)}
        return dataclasses.replace(request, options=options)

    def enlarged(self, image: Tensor) -> Tensor:
        """The upstream image at the size of the stage's image."""
        return enlarge(image, enlarged_size(self, image), self.config.interpolation)

    def _s(self, request: SampleRequest) -> float:
        s = share(request.options, "s", "0 adds no noise to the upstream image")
        if s is None:
            return self.config.s
        if not self.levels:
            raise SampleError(
                f"s was given, but the model was trained with {self.config.augmentation!r} as its "
                "conditioning augmentation",
                hint="omit s; only the gaussian augmentation has noise levels",
                code="sample-s-without-augmentation",
            )
        if not self.config.s_min <= s <= self.config.s_max:
            raise SampleError(
                f"s is {s:g}, outside the trained range",
                hint=f"use {self.config.s_min:g} to {self.config.s_max:g}",
                code="sample-s-out-of-range",
                value=s,
            )
        return s

    def _truncated(self, request: SampleRequest) -> bool:
        truncated: Any = request.options.get("truncated")
        if truncated is None:
            return self.config.truncated
        if not isinstance(truncated, bool):
            raise SampleError(
                f"truncated must be true or false, not {truncated!r}",
                code="sample-truncated-form",
                value=truncated,
            )
        if truncated and not self.levels:
            raise SampleError(
                "truncated sampling was requested, but the model was trained without the gaussian "
                "conditioning augmentation",
                hint="omit truncated",
                code="sample-truncated-untrained",
            )
        return truncated


def _required(stage: ConditionalStage, upstream: Tensor | None) -> Tensor:
    if upstream is None:
        raise TypeError(f"{type(stage).__name__} needs an upstream image")
    return upstream
