"""Real images made small and large again by the cascade: LPIPS, PSNR and SSIM against the truth.

Each stage after the generator is given its true upstream image, and all of them together the
generator's. What they make is compared with the real image as bytes.
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
from cascadezoo.evaluate.configs import LpipsMetricConfig
from cascadezoo.evaluate.metrics.base import Measured, MetricCascade
from cascadezoo.evaluate.metrics.lpips_distance import LEAST_LPIPS, Lpips
from cascadezoo.evaluate.metrics.mean_scores import mean_of
from cascadezoo.evaluate.metrics.psnr import psnr
from cascadezoo.evaluate.partial_cascades import RealFeed
from cascadezoo.evaluate.real_features import choose_real
from cascadezoo.evaluate.samples import Samples
from cascadezoo.spec.configs import EmptyConfig, ImageShape

__all__ = ["MOST_PSNR", "measure_lpips", "measure_psnr", "measure_ssim", "ssim"]

MOST_PSNR = 58.92
"""dB; that of images which differ by the rounding to bytes alone. Better ones count as this."""

_KEPT_BYTES = 1 << 28
_LEAST_SSIM = 11

Score = Callable[[Tensor, Tensor], Tensor]


def measure_lpips(config: LpipsMetricConfig, given: MetricCascade) -> dict[str, Measured]:
    """LPIPS of the enlarged images to the real ones (Zhang et al. 2018, arXiv:1801.03924).

    Returns:
        By part: "" is the whole chain after the generator, from the real image made as small as
        the generator's; a stage's name is that stage alone, given its true upstream image;
        ``bicubic`` is plain interpolation.

    Raises:
        InputError: there is no stage after the generator, or the images are too small.
        WeightsUnavailableError: the backbone's weights are not to be had.
    """
    enlarged = _Enlarged.of(given)
    network = Lpips(config, given.cascade.device)
    network.require(given.real.images.shape[-1])
    return enlarged.measure(network, network.takes, least=LEAST_LPIPS, **network.described())


def measure_psnr(config: EmptyConfig, given: MetricCascade) -> dict[str, Measured]:
    """Peak signal-to-noise ratio in dB, of bytes, averaged over images; parts as of LPIPS.

    Raises:
        InputError: there is no stage after the generator.
    """

    def score(images: Tensor, truth: Tensor) -> Tensor:
        return psnr(images.float() / 127.5, truth.float() / 127.5).clamp(max=MOST_PSNR)

    return _Enlarged.of(given).measure(
        score, lambda size: True, least=0.01, extractor="", unit="dB"
    )


def measure_ssim(config: EmptyConfig, given: MetricCascade) -> dict[str, Measured]:
    """Structural similarity (Wang et al. 2004) with a Gaussian of 1.5 pixels; parts as of LPIPS.

    Raises:
        InputError: there is no stage after the generator, or the images are below 11x11.
    """
    size = given.real.images.shape[-1]
    enlarged = _Enlarged.of(given)
    if size < _LEAST_SSIM:
        raise InputError(
            f"SSIM looks at windows of 11x11 pixels, and the images are {size}x{size}",
            hint="measure psnr instead",
            code="input-images-too-small",
            size=size,
            name="ssim",
        )
    return enlarged.measure(ssim, lambda size: size >= _LEAST_SSIM, least=1e-4, extractor="")


def ssim(images: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of each image, by torchmetrics.

    Args:
        images: uint8 [N, C, H, W], H and W at least 11.
        truth: the images that they should be, of the same shape.

    Returns:
        float32 [N], at most 1.
    """
    # torchmetrics takes seconds to import.
    from torchmetrics.functional.image import structural_similarity_index_measure

    found: Any = structural_similarity_index_measure(
        images.float() / 255, truth.float() / 255, data_range=1.0, reduction="none"
    )
    each: Tensor = found.reshape(len(images))
    return each


class _Enlarged:
    """The enlarged images; kept as bytes while the cascade's samples are, for the next metric.

    Args:
        given: what the metric was given.
    """

    _known: WeakKeyDictionary[Samples, _Enlarged] = WeakKeyDictionary()

    def __init__(self, given: MetricCascade) -> None:
        cascade = given.cascade
        count = min(given.n, len(given.real))
        self.asked, self.count = given.n, count
        self.batch_size = given.batch_size
        self.feed = RealFeed(cascade, given.real, choose_real(len(given.real), count), given.seed)
        self.names = cascade.names
        self.shapes = {n: stage.geometry.output for n, stage in cascade.named_stages()}
        self.made: dict[str, Samples] = {}
        chains = {name: (name, name) for name in self.names[1:] if not self.shapes[name].latent}
        whole = (self.names[1], self.names[-1])
        for part, (start, stop) in {"": whole, **chains}.items():
            # A lone stage after the generator is the whole chain.
            same = self.made.get("") if (start, stop) == whole else None
            self.made[part] = same or self._samples(start, stop)

    @classmethod
    def of(cls, given: MetricCascade) -> _Enlarged:
        """Those of an earlier metric of the same evaluation, or new ones.

        Raises:
            InputError: there is no stage after the generator.
        """
        if len(given.cascade.names) < 2:
            raise InputError(
                "stages after the generator are measured on real images, and "
                f"{given.cascade.spec.name} has a generator alone",
                hint="leave lpips, psnr and ssim out",
                code="input-generator-alone",
                name=given.cascade.spec.name,
            )
        known = cls._known.get(given.samples)
        if known is None or not known._serves(given):
            known = cls._known[given.samples] = cls(given)
        return known

    def _serves(self, given: MetricCascade) -> bool:
        same = self.feed.cascade is given.cascade and self.feed.real is given.real
        return same and (self.feed.seed, self.asked) == (given.seed, given.n)

    def measure(
        self, score: Score, takes: Callable[[int], bool], **rest: Any
    ) -> dict[str, Measured]:
        """The mean score of each part.

        Args:
            score: of uint8 images and the true ones, [N].
            takes: whether images of a size can be measured.
            rest: further fields of the figures, and their least tolerance.
        """
        n = {"n": self.count, "n_real": self.count, **rest}
        small = [name for name in self.made if name and not takes(self.shapes[name].size)]
        found = {}
        for part in self.made:
            if part in small:
                continue
            scores = [score(images, truth) for images, truth in self._pairs(part)]
            note = self._note(small) if not part else None
            found[part] = mean_of(torch.cat(scores), note=note, **n)
        first, last = self.shapes[self.names[0]], self.shapes[self.names[-1]]
        if first.size < last.size and not first.latent:
            scores = [score(images, truth) for images, truth in self._plain(last)]
            # A stage may be called bicubic; none has a dot in its name.
            part = "bicubic" if "bicubic" not in self.made else "plain.bicubic"
            found[part] = mean_of(torch.cat(scores), note="plain interpolation, no stages", **n)
        return found

    def _pairs(self, part: str) -> Iterator[tuple[Tensor, Tensor]]:
        first = 0
        for images in self.made[part].batches(self.count):
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
        note = f"real images made {self.shapes[self.names[0]]}, then {stages}"
        latent = [name for name in self.names[1:] if self.shapes[name].latent]
        for names, why in ((latent, "make latents"), (small, "make images that are too small")):
            if names:
                note += f"; {', '.join(names)} {why} and cannot be measured alone"
        return note
