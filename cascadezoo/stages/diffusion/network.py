"""The shallow wide network of the cascade study."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cascadezoo.nn.embeddings import ConditionEmbedding
from cascadezoo.nn.resnet import Norm, zero

__all__ = ["ShallowWide"]


class _Layer(nn.Module):
    """Norm, SiLU, 3x3 convolution to the inner width; norm, time, SiLU, 1x1 convolution back."""

    def __init__(self, channels: int, latent: int, time: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = Norm(channels)
        self.conv1 = nn.Conv2d(channels, latent, 3, padding=1)
        self.time = nn.Linear(time, 2 * latent)
        self.norm2 = Norm(latent)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(latent, channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.norm2.activated(self.conv1(self.norm1.activated(x)), self.time(time))
        out: Tensor = self.conv2(self.dropout(h))
        return out


class _Group(nn.Module):
    """Layers that one skip connection spans. The last starts at zero."""

    def __init__(self, layers: list[_Layer]) -> None:
        super().__init__()
        zero(layers[-1].conv2)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = x
        for layer in self.layers:
            h = layer(h, time)
        return x + h


class ShallowWide(nn.Module):
    """A few wide convolutional layers at the image's own resolution, in channels_last.

    The study only gives widths, the number of layers and "skip every 2 layers". This is one
    interpretation: each layer has a 3x3 convolution from ``channels`` to ``latent`` and a 1x1
    convolution back, and the input of a group of ``skip_every`` layers is added to its output, as
    in a residual network (He et al. 2016). The last layer of a group starts at zero, so a new group
    is the identity.

    Args:
        image: channels of the image.
        channels: width between the layers.
        latent: width inside a layer.
        layers: number of layers.
        skip_every: number of layers that a skip connection spans; the last group may have fewer.
        embedding: width of the sinusoidal timestep embedding.
        embedding_hidden: width of the perceptron that it passes through.
        dropout: in every layer.
        num_classes: number of labels; the label ``num_classes`` means no label. None for a
            network without labels.
    """

    def __init__(
        self,
        image: int,
        *,
        channels: int = 128,
        latent: int = 256,
        layers: int = 6,
        skip_every: int = 2,
        embedding: int = 32,
        embedding_hidden: int = 128,
        dropout: float = 0.0,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.embedding = ConditionEmbedding(embedding, embedding_hidden, num_classes)
        self.stem = nn.Conv2d(image, channels, 3, padding=1)
        spans = [min(skip_every, layers - first) for first in range(0, layers, skip_every)]
        self.groups = nn.ModuleList(
            _Group([_Layer(channels, latent, embedding_hidden, dropout) for _ in range(span)])
            for span in spans
        )
        self.norm = Norm(channels)
        self.head = zero(nn.Conv2d(channels, image, 3, padding=1))

    def forward(self, x: Tensor, times: Tensor, labels: Tensor | None = None) -> Tensor:
        """The prediction, [N, C, H, W].

        Args:
            x: noised images, [N, C, H, W].
            times: timesteps [N].
            labels: int64 [N]; None for images without labels.
        """
        embedding = self.embedding(times, labels)
        # The stem may return the other layout: a single channel is in both.
        h = self.stem(x.contiguous(memory_format=torch.channels_last))
        h = h.contiguous(memory_format=torch.channels_last)
        for group in self.groups:
            h = group(h, embedding)
        out: Tensor = self.head(self.norm.activated(h))
        return out
