"""What generators conditioned on labels have in common."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cascadezoo.diffusion.guidance import drop_labels, evaluations, guided
from cascadezoo.errors import SampleError
from cascadezoo.stages.base import SampleRequest, Stage, TrainContext
from cascadezoo.stages.config import ConditionalGeneratorConfig
from cascadezoo.stages.sampling import checked_guidance

__all__ = ["ConditionalGenerator", "Predictor"]

Predictor = Callable[[Tensor, float], Tensor]
"""From images [N, C, H, W] and the time that all of them are at to the prediction, float32."""


class ConditionalGenerator(Stage):
    """Base of generators whose network takes ``(images, times [N], labels [N] or None)``.

    Label ``num_classes`` stands for none. A subclass sets ``network``.
    """

    config: ConditionalGeneratorConfig
    network: nn.Module

    @property
    def num_classes(self) -> int | None:
        """How many labels the network knows; None where it knows none."""
        return self.geometry.num_classes if self.config.conditional else None

    def training_labels(self, context: TrainContext) -> Tensor | None:
        """The batch's labels [N], some replaced by the null label; None where there are none."""
        if self.num_classes is None or context.labels is None:
            return None
        return drop_labels(context.labels, self.num_classes, self.config.label_drop, context.draw)

    def predictor(self, request: SampleRequest) -> Predictor:
        """The network, told the labels and the guidance of a request.

        Raises:
            SampleError: labels or guidance were asked for and the model was trained without.
        """
        labels, null = request.labels, self.num_classes
        if labels is not None and self.geometry.num_classes is None:
            raise SampleError(
                "labels were given, but the model was trained on data without labels",
                hint="sample without labels",
            )
        if labels is None or null is None:
            if request.guidance is not None:
                why = "no labels were given" if null else "the model knows no labels"
                raise SampleError(
                    f"a guidance of {request.guidance:g} was asked for, but {why}",
                    hint="give labels to be guided to" if null else "sample without guidance",
                )
            return lambda x, time: self.network(x, _times(x, time), None).float()
        scale = self._scale(request.guidance)
        return lambda x, time: guided(self.network, x, _times(x, time), labels, null, scale)

    def evaluations_per_prediction(self, guidance: float | None) -> int:
        """How many forwards a prediction for a labelled image costs."""
        return 1 if self.num_classes is None else evaluations(self._scale(guidance))

    def _scale(self, asked: float | None) -> float:
        return self.config.guidance if asked is None else checked_guidance(asked)


def _times(x: Tensor, time: float) -> Tensor:
    return torch.full((x.shape[0],), time, device=x.device)
