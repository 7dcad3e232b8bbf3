"""``ar-prior.v1``: draws tokens one after another."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cascadezoo import (
    SampleRequest,
    Stage,
    StageGeometry,
    StageInputs,
    StageOutput,
    TrainContext,
)
from cascadezoo.errors import SampleError
from cascadezoo_tokens.config import ArPriorConfig
from cascadezoo_tokens.layers import Cache, TokenTransformer

__all__ = ["ArPrior", "draw_token"]


class ArPrior(Stage):
    """A causal transformer over the tokens of the next stage, in raster order.

    Its estimate is the likeliest token at each position, given the true tokens before it. It has no
    gradient, because tokens are discrete.
    """

    Config = ArPriorConfig
    config: ArPriorConfig
    sampling_options: ClassVar[frozenset[str]] = frozenset({"guidance"})

    def __init__(self, config: ArPriorConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        shape = geometry.output
        if shape.tokens is None:
            raise TypeError("ar-prior.v1 makes only tokens")
        self.vocabulary = shape.tokens
        self.length = shape.channels * shape.size**2
        self.num_labels = geometry.num_classes if config.conditional else None
        self.network = TokenTransformer(
            self.vocabulary,
            self.length,
            (self.num_labels or 0) + 1,
            width=config.width,
            blocks=config.blocks,
            heads=config.heads,
            dropout=config.dropout,
        )

    def preprocess(
        self, target: Tensor, upstream: Tensor | None, context: TrainContext
    ) -> StageInputs:
        """The tokens, and the labels, some of which are replaced by none."""
        none = self._none(len(target), target.device)
        labels = none
        if self.num_labels is not None and context.labels is not None:
            dropped = context.draw.rand(len(target)) < self.config.label_drop
            labels = torch.where(dropped, none, context.labels)
        return StageInputs(target, labels=labels)

    def forward(self, inputs: StageInputs) -> StageOutput:
        """The mean negative log-likelihood of a token in nats, and the share of right guesses.

        Raises:
            TypeError: the inputs do not come from :meth:`preprocess`.
        """
        if inputs.labels is None:
            raise TypeError("ArPrior needs the inputs from its preprocess")
        tokens = inputs.target.flatten(1).round().long()
        logits = self.network(tokens, inputs.labels).float()
        loss = F.cross_entropy(logits.flatten(0, 1), tokens.flatten())
        guesses = logits.detach().argmax(-1)
        return StageOutput(
            guesses.view(inputs.target.shape).float(),
            {"nll": loss},
            {"accuracy": (guesses == tokens).float().mean()},
        )

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """Tokens of the requested labels, or of random labels if the request has none.

        Returns:
            float32 whole numbers, [N, C, out_size, out_size].

        Raises:
            SampleError: the guidance is out of range, or the model was trained without any, or
                without labels.
        """
        if request.guidance is not None and self.num_labels is None:
            raise SampleError(
                f"guidance {request.guidance:g} was requested, but the model has no labels",
                hint="sample without guidance",
                code="sample-guidance-without-labels",
            )
        temperature = float(request.options.get("temperature", self.config.temperature))
        top_k = int(request.options.get("top_k", self.config.top_k))
        scale = self.config.guidance if request.guidance is None else request.guidance
        count, device = request.count, request.draw.device
        labels = self._labels(request)
        guided = scale != 1 and self.num_labels is not None
        if guided and (not math.isfinite(scale) or scale < 0 or self.config.label_drop == 0):
            raise SampleError(
                f"cannot sample with guidance {scale:g}",
                hint="use 0 or more, with a model that was trained with label_drop above 0",
                code="sample-guidance-invalid",
                value=scale,
            )
        if guided:
            labels = torch.cat([labels, self._none(count, device)])
        uniform = request.draw.rand(count, self.length)
        entry, cache = self.network.labels(labels), Cache()
        tokens = []
        for index in range(self.length):
            logits = self.network.advance(entry, index, cache).float()
            if guided:
                given, none = logits.chunk(2)
                logits = none + scale * (given - none)
            tokens.append(draw_token(logits / temperature, uniform[:, index], top_k))
            entry = self.network.tokens(tokens[-1].repeat(2 if guided else 1))
        shape = self.geometry.output
        result = torch.stack(tokens, 1).float()
        return result.view(count, shape.channels, shape.size, shape.size)

    def _labels(self, request: SampleRequest) -> Tensor:
        if self.num_labels is None:
            return self._none(request.count, request.draw.device)
        if request.labels is None:
            return request.draw.randint(0, self.num_labels, request.count)
        return request.labels

    def _none(self, count: int, device: torch.device) -> Tensor:
        """The label for "none", which is the last."""
        return torch.full((count,), self.num_labels or 0, dtype=torch.int64, device=device)


def draw_token(logits: Tensor, uniform: Tensor, top_k: int = 0) -> Tensor:
    """Draw from a categorical distribution by inversion of its distribution function.

    Args:
        logits: [N, vocabulary].
        uniform: [N], in [0, 1).
        top_k: draw only from this number of likeliest tokens; 0 draws from all.

    Returns:
        int64 [N].
    """
    if 0 < top_k < logits.shape[-1]:
        least = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    total = logits.softmax(-1).cumsum(-1)
    numbers = (total <= uniform[:, None] * total[:, -1:]).sum(-1)
    return numbers.clamp_max(logits.shape[-1] - 1)
