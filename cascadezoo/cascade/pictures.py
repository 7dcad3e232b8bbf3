"""Runs upsamplers and refiners on pictures of any size: whole, or in tiles that are blended."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from cascadezoo.cascade import stage_calls
from cascadezoo.cascade.draws import TileDraw
from cascadezoo.cascade.free_memory import free_memory
from cascadezoo.cascade.labels import Labels
from cascadezoo.cascade.sampling import Precision, SamplingRun, autocast
from cascadezoo.cascade.sampling_memory import SHARE, WORK_SPACE, fitting_batch, sampling_bytes
from cascadezoo.cascade.tiles import blend_weights, tile_starts
from cascadezoo.data.pictures import (
    OutputType,
    Picture,
    PictureInput,
    converted,
    read_pictures,
    require_output_type,
    to_pil,
    with_channels,
)
from cascadezoo.errors import ResourceError, SampleError
from cascadezoo.spec import ResolvedStage
from cascadezoo.stages.base import Stage
from cascadezoo.util.rng import ImageDraw

if TYPE_CHECKING:
    from PIL import Image

    from cascadezoo.cascade.cascade import Cascade

__all__ = ["PictureOptions", "picture_stages", "run_on_pictures"]

_LOG = logging.getLogger("cascadezoo")

LARGEST_WHOLE = 1024
"""Largest height and width of an upstream picture that a convolutional stage maps as a whole."""

LARGE_TILE = 512
"""Height and width of the tiles of larger pictures for convolutional stages."""

OVERLAP = 4
"""A tile shares at least one part in this number with its neighbour, in each direction."""

WIDEST_OVERLAP = 64
"""Pixels that tiles share at most, unless the picture's size requires more."""

FLOATS = 4
BYTES_PER_VALUE = FLOATS + FLOATS + 2
"""A finished value: as a float, in a copy during blending or conversion, and as bytes twice."""


class PictureOptions(TypedDict, total=False):
    """The keywords that ``Cascade.upscale`` and ``refine`` share."""

    seed: int | None
    generator: torch.Generator | None
    labels: Labels
    steps: int | Mapping[str, int] | None
    guidance: float | Mapping[str, float] | None
    sampler: str | Mapping[str, str] | None
    options: Mapping[str, Any] | None
    batch_size: int
    precision: Precision | None
    progress: Callable[[int], None] | None


def picture_stages(cascade: Cascade, role: str, stage: str | None) -> list[str]:
    """The stages to run on pictures.

    Args:
        cascade: any cascade.
        role: ``upsampler``: the first upsampler and all later stages; ``refiner``: the first
            refiner and the refiners that follow it directly.
        stage: the stage to begin with instead.

    Raises:
        SampleError: no stage has the role, ``stage`` is not one, or a stage works on latents.
    """
    places = {place.name: place for place in cascade.resolved.stages}
    fitting = [n for n, p in places.items() if p.entry.role == role and not _on_latents(p)]
    if stage is not None and stage not in fitting:
        what = f"is not {_article(role)} of pictures" if stage in places else "is not a stage"
        raise SampleError(
            f"{stage!r} {what} of {cascade.spec.name}",
            hint=f"choose {' or '.join(fitting)}" if fitting else "choose another model",
            code="sample-picture-stage",
            name=stage,
            role=role,
        )
    if not fitting:
        raise SampleError(
            f"{cascade.spec.name} has no {role} of pictures",
            hint=f"choose a model with {_article(role)}: cascadezoo zoo list",
            code="sample-no-picture-stage",
            name=cascade.spec.name,
            role=role,
        )
    names = cascade.names[cascade.names.index(stage or fitting[0]) :]
    if role == "refiner":
        ends = [i for i, name in enumerate(names) if places[name].entry.role != role]
        names = names[: ends[0]] if ends else names
    latent = next((name for name in names if _on_latents(places[name])), None)
    if latent is not None:
        raise SampleError(
            f"stage {latent!r} of {cascade.spec.name} works on latents, not on pictures",
            hint="choose another model",
            code="sample-picture-latent",
            name=latent,
        )
    return names


def _article(role: str) -> str:
    return f"an {role}" if role == "upsampler" else f"a {role}"


def _on_latents(place: ResolvedStage) -> bool:
    return place.output.latent or (place.input is not None and place.input.latent)


@torch.no_grad()
def run_on_pictures(
    cascade: Cascade,
    names: Sequence[str],
    images: PictureInput | Sequence[PictureInput],
    output_type: OutputType,
    tile: int | None,
    **request: Unpack[PictureOptions],
) -> list[Any]:
    """Run stages on pictures; see ``Cascade.upscale``."""
    require_output_type(output_type)
    pictures = read_pictures(images)
    run = SamplingRun(
        cascade.spec.name,
        {name: cascade.stage(name) for name in names},
        cascade.resolved.num_classes,
        cascade.device,
        n=len(pictures),
        class_names=cascade.class_names,
        whole=True,
        unlabelled=True,
        first=0,
        watch=None,
        **request,
    )
    runner = _PictureRun(cascade, run, tile)
    for picture in pictures:
        runner.require_memory(picture)
    training = cascade.training
    cascade.eval()
    results = []
    try:
        with autocast(cascade.device, request["precision"], cascade.dtype):
            for number, picture in enumerate(pictures):
                results.append(_output(runner.apply(picture, number), picture, output_type))
                if run.progress is not None:
                    run.progress(number + 1)
    finally:
        cascade.train(training)
    return results


def _output(image: Tensor, original: Picture, output_type: OutputType) -> Any:
    """The result [C, H, W] with the channels, and for PIL the transparency, of the original."""
    image = with_channels(image, original.pixels.shape[0])
    if output_type != "pil":
        return converted(image[None], output_type)[0]
    (picture,) = to_pil(image[None])
    return picture if original.alpha is None else _transparent(picture, original.alpha)


def _transparent(picture: Image.Image, alpha: Tensor) -> Image.Image:
    from PIL import Image

    mask = Image.fromarray(alpha.numpy()).resize(picture.size, Image.Resampling.BICUBIC)
    picture.putalpha(mask)
    return picture


class _PictureRun:
    """One call: a chain of stages, applied to one picture after another."""

    def __init__(self, cascade: Cascade, run: SamplingRun, tile: int | None) -> None:
        self.cascade = cascade
        self.run = run
        self.places = {p.name: p for p in cascade.resolved.stages}
        for name, stage in run.stages.items() if tile is not None else ():
            size, largest = stage.in_size or 1, LARGEST_WHOLE if stage.any_size else stage.in_size
            if tile is not None and not size <= tile <= (largest or 1):
                raise SampleError(
                    f"stage {name!r} takes tiles of {size} to {largest} pixels, not {tile}",
                    hint="leave tile out (--tile)",
                    code="sample-tile-size",
                    name=name,
                    tile=tile,
                )
        self.tile = tile

    def require_memory(self, picture: Picture) -> None:
        """Check that picture and results fit into memory.

        Raises:
            ResourceError: they do not.
        """
        height, width = picture.height, picture.width
        channels = max(picture.pixels.shape[0], 3)
        needed = 0
        for stage in self.run.stages.values():
            factor = _factor(stage)
            before, (height, width) = height * width, (height * factor, width * factor)
            needed = max(needed, channels * (before * FLOATS + height * width * BYTES_PER_VALUE))
        available = free_memory(torch.device("cpu"))
        if available is not None and needed > SHARE * available:
            raise ResourceError(
                f"{picture.name} is {picture.width}x{picture.height}, its result {width}x{height}: "
                f"this needs about {needed / 2**30:,.1f} GiB of memory; "
                f"{available / 2**30:,.1f} GiB are available",
                hint="crop it, or make it smaller",
                code="resources-picture",
                name=picture.name,
                needed=needed,
                available=available,
            )

    def apply(self, picture: Picture, number: int) -> Tensor:
        """The result for a picture, float32 [C, H, W] on the CPU."""
        image = picture.pixels
        for name, stage in self.run.stages.items():
            shape = stage.geometry.input
            channels = image.shape[0] if shape is None else shape.channels
            if channels == 1 and image.shape[0] == 3:
                # A stage of grey images enlarges each colour channel by itself.
                parts = [self._stage(name, stage, part[None], number) for part in image]
                image = torch.cat(parts)
            else:
                image = self._stage(name, stage, with_channels(image, channels), number)
        return image

    def _stage(self, name: str, stage: Stage, image: Tensor, number: int) -> Tensor:
        """A stage's result for one image [C, H, W]."""
        height, width = image.shape[-2:]
        rows, columns = self._tile(name, stage, height, width)
        padded = _padded(image, rows, columns)
        overlap = self._overlap(min(rows, columns))
        tops = tile_starts(padded.shape[-2], rows, overlap)
        lefts = tile_starts(padded.shape[-1], columns, overlap)
        places = [(top, left) for top in tops for left in lefts]
        factor = _factor(stage)
        channels = stage.geometry.output.channels
        size = (padded.shape[-2] * factor, padded.shape[-1] * factor)
        down, across = blend_weights(tops, rows, factor), blend_weights(lefts, columns, factor)
        canvas = torch.zeros(channels, *size)
        batch = self._batch(name, stage, rows, columns)
        exact = (height, width) == (stage.in_size, stage.in_size)
        for start in range(0, len(places), batch):
            part = places[start : start + batch]
            tiles = torch.stack([padded[:, y : y + rows, x : x + columns] for y, x in part])
            draw: ImageDraw = TileDraw(
                self.run.seed, name, number, part, (rows, columns), self.cascade.device
            )
            if exact:  # as in Cascade.sample_from
                draw = ImageDraw(self.run.seed, name, number, 1, self.cascade.device)
            labels = self.run.labels
            if labels is not None:
                labels = labels[number].expand(len(part)).contiguous()
            request = self.run.request(name, len(part), draw, labels)
            enlarged = (rows * factor, columns * factor)
            tiles = tiles.to(self.cascade.device)
            results = stage_calls.sample(stage, tiles, request, size=enlarged).to("cpu")
            if len(places) == 1:
                return results[0][:, : height * factor, : width * factor]
            for (y, x), result in zip(part, results, strict=True):
                weight = down[tops.index(y)][:, None] * across[lefts.index(x)]
                top, left = y * factor, x * factor
                canvas[:, top : top + rows * factor, left : left + columns * factor] += (
                    result * weight
                )
        return canvas[:, : height * factor, : width * factor]

    def _tile(self, name: str, stage: Stage, height: int, width: int) -> tuple[int, int]:
        """Height and width of the tiles of an upstream picture."""
        least = stage.in_size or 1
        if not stage.any_size:
            return least, least
        small = self.tile is None and max(height, width) <= LARGEST_WHOLE
        if small and self._fits(name, stage, height, width):
            return height, width
        side = self.tile or LARGE_TILE
        while side > least and not self._fits(name, stage, side, side):
            side = max(side // 2, least)
        if side < (self.tile or LARGE_TILE):
            _LOG.warning("%s: tiles of %d pixels, because larger ones do not fit", name, side)
        return min(side, height), min(side, width)

    def _fits(self, name: str, stage: Stage, height: int, width: int) -> bool:
        available = free_memory(self.cascade.device)
        if available is None:
            return True
        return self._bytes(name, stage, height, width) * WORK_SPACE <= SHARE * available

    def _bytes(self, name: str, stage: Stage, height: int, width: int) -> int:
        """The memory for one tile: that of an image of the trained size, by the area."""
        trained = sampling_bytes(self.places[name], stage, self.cascade.resolved.num_classes)
        return math.ceil(trained * height * width / (stage.in_size or 1) ** 2)

    def _batch(self, name: str, stage: Stage, rows: int, columns: int) -> int:
        """Number of tiles at once.

        Raises:
            ResourceError: not even one tile of the trained size fits.
        """
        area = (stage.in_size or 1) ** 2
        wanted = max(1, self.run.batch_size * area // (rows * columns))
        return fitting_batch(
            self.cascade.spec.name,
            {name: (self.places[name], stage)},
            self.cascade.resolved.num_classes,
            self.cascade.device,
            n=wanted,
            batch_size=wanted,
            keep=False,
        )

    @staticmethod
    def _overlap(tile: int) -> int:
        return min(max(tile // OVERLAP, 1), WIDEST_OVERLAP) if tile > 1 else 0


def _factor(stage: Stage) -> int:
    return stage.out_size // (stage.in_size or stage.out_size)


def _padded(image: Tensor, rows: int, columns: int) -> Tensor:
    """An image [C, H, W], padded at the lower and right side to the size of a tile at least."""
    height, width = image.shape[-2:]
    down, right = max(rows - height, 0), max(columns - width, 0)
    if not down and not right:
        return image
    fits = down < height and right < width
    mode = "reflect" if fits else "replicate"
    return F.pad(image[None], (0, right, 0, down), mode=mode)[0]
