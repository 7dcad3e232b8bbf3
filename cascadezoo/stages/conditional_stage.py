"""Base of stages conditioned on labels, images and noise levels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cascadezoo.diffusion.guidance import (
    both_halves,
    drop_labels,
    evaluations,
    guided,
    scale_within,
)
from cascadezoo.errors import SampleError
from cascadezoo.stages.base import SampleRequest, Stage, StageInputs, TrainContext
from cascadezoo.stages.request_options import checked_guidance, checked_interval
from cascadezoo.stages.shared_config import ConditionalConfig

__all__ = ["CONDITIONS", "ConditionalStage", "Predictor"]

Predictor = Callable[[Tensor, float, float], Tensor]
"""Maps images [N, C, H, W], the time input of the network and the noise level to the prediction,
float32. All images have the same time and level."""

CONDITIONS = ("condition", "level")
"""Further conditions of a network, in the order of its arguments: an image [N, C, H, W] and its
noise level [N]. ``StageInputs.extra`` stores them under these names."""


class ConditionalStage(Stage):
    """Base of stages whose network takes ``(images, times [N], labels [N] or None, *conditions)``.

    The label ``num_classes`` means no label. A subclass sets ``network``.
    """

    sampling_options: ClassVar[frozenset[str]] = frozenset(
        {"steps", "guidance", "sampler", "guidance_interval", "negative_label", "stop"}
    )
    mixes_labels = True
    config: ConditionalConfig
    network: nn.Module

    @property
    def num_classes(self) -> int | None:
        """Number of labels of the network; None for a network without labels."""
        return self.geometry.num_classes if self.config.conditional else None

    # --- conditions

    def training_labels(self, context: TrainContext) -> Tensor | None:
        """The batch's labels [N], some replaced by the null label; None without labels."""
        if self.num_classes is None or context.labels is None:
            return None
        return drop_labels(context.labels, self.num_classes, self.config.label_drop, context.draw)

    def training_conditions(
        self, upstream: Tensor | None, context: TrainContext
    ) -> dict[str, Tensor]:
        """The stage's :data:`CONDITIONS` for a training batch."""
        return {}

    def sampling_conditions(
        self, upstream: Tensor | None, request: SampleRequest
    ) -> tuple[Tensor, ...]:
        """The stage's :data:`CONDITIONS` for sampling, in their order."""
        return ()

    def predict(self, inputs: StageInputs, times: Tensor) -> Tensor:
        """The network's output for a training batch, float32."""
        if inputs.noisy is None:
            raise TypeError(f"{type(self).__name__} needs the inputs from its preprocess")
        conditions = [inputs.extra[name] for name in CONDITIONS if name in inputs.extra]
        output: Tensor = self.network(inputs.noisy, times, inputs.labels, *conditions)
        return output.float()

    # --- sampling

    def predictor(self, request: SampleRequest, conditions: Sequence[Tensor] = ()) -> Predictor:
        """The network with the labels, the guidance and the conditions of a request.

        With second labels, the predictions for both are mixed (Liu et al. 2022, "Compositional
        Visual Generation with Composable Diffusion Models", section 4: scores of concepts add up).

        Raises:
            SampleError: the request has labels or guidance that the model does not support.
        """
        if request.labels_to is not None and request.mix is not None:
            return self._mixed(request, request.labels_to, request.mix, conditions)
        labels, null = request.labels, self.num_classes
        if labels is not None and self.geometry.num_classes is None:
            raise SampleError(
                "labels were given, but the model was trained on data without labels",
                hint="sample without labels",
                code="sample-no-labels",
            )
        if labels is None or null is None:
            _reject_guidance(request, "no labels were given" if null else "the model has no labels")

            def plain(x: Tensor, time: float, level: float) -> Tensor:
                output: Tensor = self.network(x, _times(x, time), None, *conditions)
                return output.float()

            return plain
        scale = self._scale(request.guidance)
        interval = self._interval(request.options)
        negative = torch.full_like(labels, self._negative(request.options, null))
        channels = self.geometry.output.channels

        both: list[Tensor] = []

        def predict(x: Tensor, time: float, level: float) -> Tensor:
            now = scale_within(scale, level, interval)
            if not both and evaluations(now) == 2:
                both.extend(both_halves(labels, negative, *conditions))
            return guided(
                self.network,
                x,
                _times(x, time),
                labels,
                negative,
                now,
                *conditions,
                channels=channels,
                both=both,
            )

        return predict

    def _mixed(
        self, request: SampleRequest, labels_to: Tensor, mix: Tensor, conditions: Sequence[Tensor]
    ) -> Predictor:
        plain = dataclasses.replace(request, labels_to=None, mix=None)
        first = self.predictor(plain, conditions)
        second = self.predictor(dataclasses.replace(plain, labels=labels_to), conditions)
        share = mix.view(-1, 1, 1, 1)

        def predict(x: Tensor, time: float, level: float) -> Tensor:
            return torch.lerp(first(x, time, level), second(x, time, level), share)

        return predict

    def forwards(self, levels: Sequence[float], evaluated: int, guidance: float | None) -> int:
        """Number of forward passes to sample an image, with a label if the stage has labels.

        Args:
            levels: the noise level at the start of each step.
            evaluated: number of predictions of the sampler.
            guidance: the scale; None uses the config's.
        """
        if self.num_classes is None or evaluations(self._scale(guidance)) == 1:
            return evaluated
        low, high = self.config.guidance_interval
        inside = sum(low <= level <= high for level in levels)
        return evaluated + math.ceil(evaluated * inside / len(levels))

    def _scale(self, requested: float | None) -> float:
        return self.config.guidance if requested is None else checked_guidance(requested)

    def _interval(self, options: Mapping[str, Any]) -> tuple[float, float]:
        requested = options.get("guidance_interval")
        return checked_interval(self.config.guidance_interval if requested is None else requested)

    def _negative(self, options: Mapping[str, Any], null: int) -> int:
        label = options.get("negative_label")
        if label is None:
            return null
        if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < null:
            raise SampleError(
                f"negative label {label!r} is out of range",
                hint=f"labels go from 0 to {null - 1}",
                code="sample-negative-label-out-of-range",
                label=label,
            )
        return label


def _reject_guidance(request: SampleRequest, reason: str) -> None:
    requested = {
        "guidance": request.guidance,
        "guidance_interval": request.options.get("guidance_interval"),
        "negative_label": request.options.get("negative_label"),
    }
    for name, value in requested.items():
        if value is not None:
            raise SampleError(
                f"{name} {value} was requested, but {reason}",
                hint="give labels, or sample without guidance",
                code="sample-guidance-without-labels",
            )


def _times(x: Tensor, time: float) -> Tensor:
    return torch.full((x.shape[0],), time, device=x.device)
