"""LPIPS, PSNR and SSIM of real images that the cascade shrinks and enlarges again.

Each stage after the generator gets its true input. The whole chain of these stages gets the true
output of the generator. The 8-bit results are compared with the real images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from cascadezoo.data.pixels import to_uint8
from cascadezoo.errors import InputError
from cascadezoo.evaluate.configs import MIN_SSIM_SIZE, LpipsMetricConfig
from cascadezoo.evaluate.metrics.base import Measured, MetricCascade
from cascadezoo.evaluate.metrics.lpips_distance import MIN_TOLERANCE, Lpips
from cascadezoo.evaluate.metrics.mean_scores import mean_of
from cascadezoo.evaluate.partial_cascades import RealFeed
from cascadezoo.evaluate.real_features import choose_real
from cascadezoo.evaluate.samples import Samples
from cascadezoo.spec.configs import EmptyConfig, ImageShape

__all__ = ["MAX_PSNR", "measure_lpips", "measure_psnr", "measure_ssim", "psnr", "ssim"]

MAX_PSNR = 58.92
"""Upper bound in dB: the PSNR of images that differ only by the rounding to 8 bits."""

_KEPT_BYTES = 1 << 28

Score = Callable[[Tensor, Tensor], Tensor]


def measure_lpips(config: LpipsMetricConfig, inputs: MetricCascade) -> dict[str, Measured]:
    """LPIPS of the enlarged and the real images (Zhang et al. 2018, arXiv:1801.03924).

    Returns:
        By part: "" is the whole chain after the generator, from real images shrunk to the
        generator's size. A stage's name is that stage alone on its true input. ``bicubic`` is plain
        interpolation.

    Raises:
        InputError: the cascade has no stage after the generator, or the images are too small.
        WeightsUnavailableError: the weights of the backbone are unavailable.
    """
    enlarged = _Enlarged.of(inputs)
    network = Lpips(config, inputs.cascade.device)
    network.require(inputs.real.images.shape[-1])
    return enlarged.measure(
        network, network.takes, min_tolerance=MIN_TOLERANCE, **network.describe()
    )


def measure_psnr(config: EmptyConfig, inputs: MetricCascade) -> dict[str, Measured]:
    """Mean peak signal-to-noise ratio of 8-bit images in dB; the parts are those of LPIPS.

    Raises:
        InputError: the cascade has no stage after the generator.
    """

    def score(images: Tensor, truth: Tensor) -> Tensor:
        return psnr(images.float() / 127.5, truth.float() / 127.5).clamp(max=MAX_PSNR)

    return _Enlarged.of(inputs).measure(
        score, lambda size: True, min_tolerance=0.01, extractor="", unit="dB"
    )


def measure_ssim(config: EmptyConfig, inputs: MetricCascade) -> dict[str, Measured]:
    """Structural similarity (Wang et al. 2004) with a Gaussian window of 1.5 pixels.

    The parts are those of LPIPS.

    Raises:
        InputError: the cascade has no stage after the generator, or images are below 11x11.
    """
    size = inputs.real.images.shape[-1]
    enlarged = _Enlarged.of(inputs)
    if size < MIN_SSIM_SIZE:
        raise InputError(
            f"SSIM needs images of at least 11x11 pixels, not {size}x{size}",
            hint="measure psnr instead",
            code="input-images-too-small",
            size=size,
            name="ssim",
        )
    return enlarged.measure(
        ssim, lambda size: size >= MIN_SSIM_SIZE, min_tolerance=1e-4, extractor=""
    )


def psnr(images: Tensor, truth: Tensor) -> Tensor:
    """Compute the peak signal-to-noise ratio of each image.

    Args:
        images: floating [N, C, H, W] in [-1, 1].
        truth: the true images, in the same shape.

    Returns:
        float32 [N], in dB; infinite for an image that equals its truth.

    Raises:
        InputError: the shapes differ.

    >>> psnr(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.2)).round().tolist()
    [20.0]
    """
    if images.shape != truth.shape:
        raise InputError(
            f"PSNR needs images of equal shape, not {tuple(images.shape)} and {tuple(truth.shape)}",
            hint="resize one of them first",
            code="input-images-unlike",
            shapes=(tuple(images.shape), tuple(truth.shape)),
        )
    error = (images.float() - truth.float()).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(4 / error)


def ssim(images: Tensor, truth: Tensor) -> Tensor:
    """Compute the structural similarity of each image by torchmetrics.

    Args:
        images: uint8 [N, C, H, W], H and W at least 11.
        truth: the true images, in the same shape.

    Returns:
        float32 [N], at most 1.
    """
    # torchmetrics takes seconds to import.
    from torchmetrics.functional.image import structural_similarity_index_measure

    scores: Any = structural_similarity_index_measure(
        images.float() / 255, truth.float() / 255, data_range=1.0, reduction="none"
    )
    each: Tensor = scores.reshape(len(images))
    return each


class _Enlarged:
    """The enlarged images. Metrics of the same evaluation share them, as 8-bit images.

    Args:
        inputs: the input of the metric.
    """

    _known: WeakKeyDictionary[Samples, _Enlarged] = WeakKeyDictionary()

    def __init__(self, inputs: MetricCascade) -> None:
        cascade = inputs.cascade
        count = min(inputs.n, len(inputs.real))
        self.requested, self.count = inputs.n, count
        self.batch_size = inputs.batch_size
        self.feed = RealFeed(
            cascade, inputs.real, choose_real(len(inputs.real), count), inputs.seed
        )
        self.names = cascade.names
        self.shapes = {n: stage.geometry.output for n, stage in cascade.named_stages()}
        self.outputs: dict[str, Samples] = {}
        chains = {name: (name, name) for name in self.names[1:] if not self.shapes[name].latent}
        whole = (self.names[1], self.names[-1])
        for part, (start, stop) in {"": whole, **chains}.items():
            # A lone stage after the generator is the whole chain.
            same = self.outputs.get("") if (start, stop) == whole else None
            self.outputs[part] = same or self._samples(start, stop)

    @classmethod
    def of(cls, inputs: MetricCascade) -> _Enlarged:
        """The images of an earlier metric of the same evaluation, or new ones.

        Raises:
            InputError: the cascade has no stage after the generator.
        """
        if len(inputs.cascade.names) < 2:
            raise InputError(
                "lpips, psnr and ssim measure the stages after the generator, but "
                f"{inputs.cascade.spec.name} has only a generator",
                hint="leave lpips, psnr and ssim out",
                code="input-generator-alone",
                name=inputs.cascade.spec.name,
            )
        known = cls._known.get(inputs.samples)
        if known is None or not known._serves(inputs):
            known = cls._known[inputs.samples] = cls(inputs)
        return known

    def _serves(self, inputs: MetricCascade) -> bool:
        same = self.feed.cascade is inputs.cascade and self.feed.real is inputs.real
        return same and (self.feed.seed, self.requested) == (inputs.seed, inputs.n)

    def measure(
        self, score: Score, takes: Callable[[int], bool], **rest: Any
    ) -> dict[str, Measured]:
        """The mean score of each part.

        Args:
            score: computes the scores [N] of uint8 images and true images.
            takes: whether images of a size can be measured.
            rest: further fields of the results, and ``min_tolerance``.
        """
        fields = {"n": self.count, "n_real": self.count, **rest}
        small = [name for name in self.outputs if name and not takes(self.shapes[name].size)]
        results = {}
        for part in self.outputs:
            if part in small:
                continue
            scores = [score(images, truth) for images, truth in self._pairs(part)]
            note = self._note(small) if not part else None
            results[part] = mean_of(torch.cat(scores), note=note, **fields)
        first, last = self.shapes[self.names[0]], self.shapes[self.names[-1]]
        if first.size < last.size and not first.latent:
            scores = [score(images, truth) for images, truth in self._plain(last)]
            # A stage may be named bicubic, but names have no dots.
            part = "bicubic" if "bicubic" not in self.outputs else "plain.bicubic"
            results[part] = mean_of(
                torch.cat(scores), note="plain interpolation, no stages", **fields
            )
        return results

    def _pairs(self, part: str) -> Iterator[tuple[Tensor, Tensor]]:
        first = 0
        for images in self.outputs[part].batches(self.count):
            truth = self.feed.targets(part or self.names[-1], first, len(images))
            yield images, to_uint8(truth)
            first += len(images)

    def _plain(self, last: ImageShape) -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(0, self.count, self.batch_size):
            count = min(self.batch_size, self.count - first)
            small = self.feed.targets(self.names[0], first, count)
            large = F.interpolate(small, (last.size, last.size), mode="bicubic").clamp(-1, 1)
            yield to_uint8(large), to_uint8(self.feed.images(first, count))

    def _samples(self, start: str, stop: str) -> Samples:
        shape = self.shapes[stop]
        return Samples(
            partial(self.feed.run, start, stop),
            (shape.channels, shape.size, shape.size),
            batch_size=self.batch_size,
            keep=True,
            kept_bytes=_KEPT_BYTES,
        )

    def _note(self, small: list[str]) -> str:
        stages = ", ".join(self.names[1:])
        note = f"real images resized to {self.shapes[self.names[0]]}, then {stages}"
        latent = [name for name in self.names[1:] if self.shapes[name].latent]
        for names, why in ((latent, "make latents"), (small, "make images that are too small")):
            if names:
                note += f"; {', '.join(names)} {why} and cannot be measured alone"
        return note
