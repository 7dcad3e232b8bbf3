"""Editing over all stages of a cascade: the coarse image is edited, then the stages after it.

Each stage edits its own target (``Cascade.targets``), given the edited image of the stage before. A
stage without diffusion maps the edited image and adds what it loses of the original's detail,
weighted by ``1 - strength`` (as in the bands of Burt & Adelson 1983, "The Laplacian Pyramid"). With
a mask, the known pixels of each stage's result are those of its target.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor

from cascadezoo.cascade import stage_calls
from cascadezoo.cascade.draws import MixedDraw
from cascadezoo.cascade.sampling import SampleOptions, SamplingRun
from cascadezoo.data.pictures import PictureInput, fitted, read_pictures
from cascadezoo.diffusion.editing import shrink_mask
from cascadezoo.errors import SampleError
from cascadezoo.stages.base import Edit, SampleRequest, Stage
from cascadezoo.stages.request_options import bounded
from cascadezoo.util.rng import ImageDraw

if TYPE_CHECKING:
    from cascadezoo.cascade.cascade import Cascade

__all__ = ["EditRun", "InterpolationRun", "check_edit", "read_mask", "read_originals"]

WHITE = 0.0
"""A mask's grey value, in [-1, 1], from which a pixel is redrawn."""


def check_edit(cascade: Cascade, strength: float, resamplings: int) -> None:
    """Check the arguments of an edit.

    Raises:
        SampleError: the generator cannot edit, or a number is out of range.
    """
    generator = cascade.names[0]
    if not cascade.stage(generator).edits:
        raise SampleError(
            f"{cascade.spec.name} cannot edit images: its generator {generator!r} is not a "
            "diffusion or a flow",
            hint="choose a model whose first stage is a diffusion or a flow",
            code="sample-edit-impossible",
            name=generator,
        )
    if isinstance(strength, bool) or not 0 <= strength <= 1:
        raise SampleError(
            f"strength must be between 0 and 1, not {strength!r}",
            hint="0 returns the image, 1 draws a new one",
            code="sample-strength-invalid",
            value=strength,
        )
    if resamplings < 1:
        raise SampleError(
            f"cannot repeat each step {resamplings} times",
            hint="use 1 or more resamplings",
            code="sample-resamplings-invalid",
            value=resamplings,
        )


def read_originals(
    cascade: Cascade, images: PictureInput | Sequence[PictureInput], n: int | None = None
) -> Tensor:
    """Images to edit, at the size of the cascade; see :func:`~cascadezoo.data.pictures.fitted`.

    Returns:
        float32 [N, C, H, W] in [-1, 1] on the cascade's device.
    """
    shape = cascade.resolved.image
    rows = [fitted(p, shape.size, shape.channels, most=None) for p in read_pictures(images, n=n)]
    return torch.stack(rows).to(cascade.device)


def read_mask(
    cascade: Cascade,
    mask: PictureInput | Sequence[PictureInput],
    images: PictureInput | Sequence[PictureInput],
) -> Tensor:
    """The mask of an inpainting at the size of the cascade.

    A pixel is redrawn if its value is above the middle; a mask is cropped and resized as its image,
    and pixels that are redrawn in part are redrawn.

    Returns:
        bool [N, 1, H, W] on the cascade's device.

    Raises:
        SampleError: a mask and its image have different sizes, or a mask is empty.
    """
    pictures = read_pictures(images)
    masks = read_pictures(mask, n=len(pictures))
    rows = []
    for picture, one in zip(pictures, masks, strict=True):
        if (picture.height, picture.width) != (one.height, one.width):
            raise SampleError(
                f"the mask is {one.width}x{one.height}, but {picture.name} is "
                f"{picture.width}x{picture.height}",
                hint="give a mask of the size of the image: white pixels are redrawn",
                code="sample-mask-size",
                name=picture.name,
            )
        white = one.flat().mean(0, keepdim=True) >= WHITE
        side = min(one.height, one.width)
        top, left = (one.height - side) // 2, (one.width - side) // 2
        square = white[None, :, top : top + side, left : left + side]
        size = cascade.resolved.image.size
        if side < size:
            row = torch.nn.functional.interpolate(square.float(), (size, size)) > 0
        else:
            row = shrink_mask(square, size, size)
        if not bool(row.any()):
            raise SampleError(
                f"the mask of {picture.name} has no white pixel inside the image's centre square, "
                "so nothing would be redrawn",
                hint="paint the pixels to redraw white",
                code="sample-mask-empty",
                name=picture.name,
            )
        rows.append(row)
    return torch.cat(rows).to(cascade.device)


class EditRun(SamplingRun):
    """One editing call.

    Args:
        targets: the target of each stage for the original images, by stage, [n, C, H, W].
        strength: above 0, at most 1.
        mask: bool [n, 1, H, W] at the size of the cascade; None redraws all.
        resamplings: how often each step is repeated with a mask.
        arguments: see :class:`SamplingRun`.
    """

    def __init__(
        self,
        targets: Mapping[str, Tensor],
        strength: float,
        mask: Tensor | None,
        resamplings: int,
        *arguments: Any,
        n: int,
        class_names: Sequence[str] | None = None,
        **request: Unpack[SampleOptions],
    ) -> None:
        super().__init__(
            *arguments, n=n, class_names=class_names, whole=True, unlabelled=True, **request
        )
        self.targets = targets
        self.strength = strength
        self.mask = mask
        self.resamplings = resamplings

    def _batch(
        self, start: int, stop: int, upstream: Tensor | None, keep: bool
    ) -> dict[str, Tensor]:
        requests = self._requests(start, stop)
        outputs: dict[str, Tensor] = {}
        image: Tensor | None = None
        original: Tensor | None = None
        last = list(self.stages)[-1]
        for name, stage in self.stages.items():
            target = self.targets[name][start:stop]
            mask = None
            if self.mask is not None:
                mask = shrink_mask(self.mask[start:stop], *target.shape[-2:])
            result = self._edited(stage, requests[name], image, original, target, mask)
            image = result if mask is None else torch.where(mask, result, target)
            original = target
            if keep or name == last:
                outputs[name] = image
        return outputs

    def _edited(
        self,
        stage: Stage,
        request: SampleRequest,
        upstream: Tensor | None,
        original: Tensor | None,
        target: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        if stage.edits:
            edit = Edit(target, self.strength, mask, self.resamplings)
            return self._sampled(stage, upstream, dataclasses.replace(request, edit=edit))
        state = [generator.get_state() for generator in request.draw.generators]
        image = self._sampled(stage, upstream, request)
        if self.strength == 1 or original is None:
            return image
        for generator, before in zip(request.draw.generators, state, strict=True):
            generator.set_state(before)
        lost = target - self._sampled(stage, original, request)
        return bounded(image + (1 - self.strength) * lost, stage.geometry.output)

    def _sampled(self, stage: Stage, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        return stage_calls.sample(
            stage, upstream, request, passes=self._of_caller, checks=self._finite
        )


class InterpolationRun(SamplingRun):
    """One interpolation call.

    Args:
        seeds: the two seeds.
        labels_to: the label at the end; None keeps the label.
        mix: the share of the end for each image, [n].
        arguments: see :class:`SamplingRun`.
    """

    def __init__(
        self,
        seeds: tuple[int, int],
        labels_to: int | str | None,
        mix: Tensor,
        *arguments: Any,
        n: int,
        class_names: Sequence[str] | None = None,
        **request: Unpack[SampleOptions],
    ) -> None:
        super().__init__(*arguments, n=n, class_names=class_names, **request)
        self.seeds = seeds
        self.mix = mix.to(self.device)
        rows: Any = None if labels_to is None else [labels_to] * n
        self.labels_to = None if rows is None else self._checked_labels(rows)

    def _requests(self, start: int, stop: int) -> dict[str, SampleRequest]:
        requests = super()._requests(start, stop)
        mix = self.mix[start:stop]
        for name, request in requests.items():
            draw: ImageDraw = MixedDraw(self.seeds, name, self.first, mix, self.device)
            changed = dataclasses.replace(request, draw=draw)
            if self.labels_to is not None and self.labels is not None:
                to, at = self.labels_to[start:stop], self.labels[start:stop]
                if self.stages[name].mixes_labels:
                    changed = dataclasses.replace(changed, labels_to=to, mix=mix)
                else:  # a stage that needs one label gets the nearer
                    changed.labels = torch.where(mix < 0.5, at, to)
            requests[name] = changed
        return requests
