"""The network of the small feature extractor, with or without batch normalisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ["NUM_FEATURES", "SIZE", "WIDTHS", "SmallNet"]

SIZE = 32
"""Height and width of the input in pixels."""

WIDTHS = (24, 48, 96, 160)
"""Channels of the stem and of the levels at 16, 8 and 4 pixels."""

NUM_FEATURES = WIDTHS[2] + WIDTHS[3]

_SPREAD = 0.5


class _Unit(nn.Module):
    """3x3 convolution, batch normalisation (in training only) and ReLU."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=not norm)
        self.norm: nn.Module = nn.BatchNorm2d(outputs) if norm else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(images)))

    def fold(self) -> None:
        """Merge the normalisation into the convolution. Only in evaluation mode."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()


class _Level(nn.Module):
    """Halve the image, then apply one residual block."""

    def __init__(self, inputs: int, outputs: int, *, norm: bool) -> None:
        super().__init__()
        self.down = _Unit(inputs, outputs, stride=2, norm=norm)
        self.first = _Unit(outputs, outputs, stride=1, norm=norm)
        self.second = _Unit(outputs, outputs, stride=1, norm=norm)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the level's output and the part that the residual block added."""
        images = self.down(images)
        added = self.second(self.first(images))
        return images + added, added


class SmallNet(nn.Module):
    """A residual network of ten convolutions for 32x32 RGB images, 0.86 million parameters.

    Args:
        classes: number of classes.
        norm: whether to use batch normalisation: True for training, False after :meth:`fold`.
    """

    scales: Tensor

    def __init__(self, classes: int = 10, *, norm: bool = False) -> None:
        super().__init__()
        stem, *levels = WIDTHS
        self.stem = _Unit(3, stem, stride=1, norm=norm)
        inputs = (stem, *levels[:-1])
        self.levels = nn.ModuleList(
            _Level(i, o, norm=norm) for i, o in zip(inputs, levels, strict=True)
        )
        self.head = nn.Linear(levels[-1], classes)
        self.register_buffer("scales", torch.ones(2))

    def features(self, images: Tensor) -> Tensor:
        """Spatial means of the residual of the level at 8 pixels and of the last level's output.

        The last level represents the content of an image and loses most of its texture, noise and
        sharpness. The residual keeps those. :meth:`calibrate` gives both equal weight.

        Args:
            images: float [N, 3, 32, 32] in [-1, 1].

        Returns:
            [N, NUM_FEATURES].
        """
        texture, content = self._means(images)
        return torch.cat([texture * self.scales[0], content * self.scales[1]], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, classes] of images [N, 3, 32, 32] in [-1, 1]."""
        logits: Tensor = self.head(self._means(images)[1])
        return logits

    def classify(self, features: Tensor) -> Tensor:
        """Logits [N, classes] of :meth:`features` [N, NUM_FEATURES]."""
        logits: Tensor = self.head(features[:, -self.head.in_features :] / self.scales[1])
        return logits

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Scale both halves of the features to a root mean square of 0.5 on these images.

        Args:
            images: float [N, 3, 32, 32] in [-1, 1].
        """
        for index, part in enumerate(self._means(images)):
            self.scales[index] = _SPREAD / part.square().mean().sqrt()

    def _means(self, images: Tensor) -> tuple[Tensor, Tensor]:
        images = self.stem(images)
        parts = []
        for level in self.levels:
            images, added = level(images)
            parts.append(added)
        return parts[1].mean(dim=(2, 3)), images.mean(dim=(2, 3))

    def fold(self) -> SmallNet:
        """Merge every normalisation into its convolution, in place. Training is then over."""
        self.eval()
        for module in self.modules():
            if isinstance(module, _Unit):
                module.fold()
        return self
