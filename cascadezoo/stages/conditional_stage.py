"""What stages conditioned on labels have in common, and on more than labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cascadezoo.diffusion.guidance import drop_labels, evaluations, guided, scale_within
from cascadezoo.errors import SampleError
from cascadezoo.stages.base import SampleRequest, Stage, StageInputs, TrainContext
from cascadezoo.stages.request_options import checked_guidance, checked_interval
from cascadezoo.stages.shared_config import ConditionalConfig

__all__ = ["CONDITIONS", "ConditionalStage", "Predictor"]

Predictor = Callable[[Tensor, float, float], Tensor]
"""From images [N, C, H, W], what the network is told of their time and their noise level, which
all of them are at, to the prediction, float32."""

CONDITIONS = ("condition", "level")
"""What besides labels a network may be conditioned on, in the order in which it takes them: an
image [N, C, H, W] and its noise level [N]. Kept under these names in ``StageInputs.extra``."""


class ConditionalStage(Stage):
    """Base of stages whose network takes ``(images, times [N], labels [N] or None, *conditions)``.

    Label ``num_classes`` stands for none. A subclass sets ``network``.
    """

    sampling_options: ClassVar[frozenset[str]] = frozenset(
        {"steps", "guidance", "sampler", "guidance_interval", "negative_label", "stop"}
    )
    config: ConditionalConfig
    network: nn.Module

    @property
    def num_classes(self) -> int | None:
        """How many labels the network knows; None where it knows none."""
        return self.geometry.num_classes if self.config.conditional else None

    # --- what the network is conditioned on

    def training_labels(self, context: TrainContext) -> Tensor | None:
        """The batch's labels [N], some replaced by the null label; None where there are none."""
        if self.num_classes is None or context.labels is None:
            return None
        return drop_labels(context.labels, self.num_classes, self.config.label_drop, context.draw)

    def training_conditions(
        self, upstream: Tensor | None, context: TrainContext
    ) -> dict[str, Tensor]:
        """Those of :data:`CONDITIONS` that the stage has, for a training batch."""
        return {}

    def sampling_conditions(
        self, upstream: Tensor | None, request: SampleRequest
    ) -> tuple[Tensor, ...]:
        """Those of :data:`CONDITIONS` that the stage has, in their order."""
        return ()

    def predict(self, inputs: StageInputs, times: Tensor) -> Tensor:
        """The network's output for a training batch, float32."""
        if inputs.noisy is None:
            raise TypeError(f"{type(self).__name__} takes the inputs that its preprocess makes")
        conditions = [inputs.extra[name] for name in CONDITIONS if name in inputs.extra]
        output: Tensor = self.network(inputs.noisy, times, inputs.labels, *conditions)
        return output.float()

    # --- sampling

    def predictor(self, request: SampleRequest, conditions: Sequence[Tensor] = ()) -> Predictor:
        """The network, told the labels, the guidance and the conditions of a request.

        Raises:
            SampleError: labels or guidance were asked for and the model was trained without.
        """
        labels, null = request.labels, self.num_classes
        if labels is not None and self.geometry.num_classes is None:
            raise SampleError(
                "labels were given, but the model was trained on data without labels",
                hint="sample without labels",
                code="sample-no-labels",
            )
        if labels is None or null is None:
            _refuse(request, "no labels were given" if null else "the model knows no labels")

            def plain(x: Tensor, time: float, level: float) -> Tensor:
                output: Tensor = self.network(x, _times(x, time), None, *conditions)
                return output.float()

            return plain
        scale = self._scale(request.guidance)
        interval = self._interval(request.options)
        against = torch.full_like(labels, self._negative(request.options, null))
        channels = self.geometry.output.channels

        def predict(x: Tensor, time: float, level: float) -> Tensor:
            return guided(
                self.network,
                x,
                _times(x, time),
                labels,
                against,
                scale_within(scale, level, interval),
                *conditions,
                channels=channels,
            )

        return predict

    def forwards(self, levels: Sequence[float], evaluated: int, guidance: float | None) -> int:
        """How many forwards a sampling costs for a labelled image, where there are labels.

        Args:
            levels: the noise level at the start of each step.
            evaluated: how many predictions the sampler asks for.
            guidance: the scale; None is the config's.
        """
        if self.num_classes is None or evaluations(self._scale(guidance)) == 1:
            return evaluated
        low, high = self.config.guidance_interval
        inside = sum(low <= level <= high for level in levels)
        return evaluated + math.ceil(evaluated * inside / len(levels))

    def _scale(self, asked: float | None) -> float:
        return self.config.guidance if asked is None else checked_guidance(asked)

    def _interval(self, options: Mapping[str, Any]) -> tuple[float, float]:
        asked = options.get("guidance_interval")
        return checked_interval(self.config.guidance_interval if asked is None else asked)

    def _negative(self, options: Mapping[str, Any], null: int) -> int:
        asked = options.get("negative_label")
        if asked is None:
            return null
        if isinstance(asked, bool) or not isinstance(asked, int) or not 0 <= asked < null:
            raise SampleError(
                f"negative label {asked!r} is out of range",
                hint=f"labels go from 0 to {null - 1}",
                code="sample-negative-label-out-of-range",
                label=asked,
            )
        return asked


def _refuse(request: SampleRequest, why: str) -> None:
    asked = {
        "a guidance": request.guidance,
        "a guidance interval": request.options.get("guidance_interval"),
        "a negative label": request.options.get("negative_label"),
    }
    for what, value in asked.items():
        if value is not None:
            raise SampleError(
                f"{what} of {value} was asked for, but {why}",
                hint="give labels to be guided to, or sample without guidance",
                code="sample-guidance-without-labels",
            )


def _times(x: Tensor, time: float) -> Tensor:
    return torch.full((x.shape[0],), time, device=x.device)
