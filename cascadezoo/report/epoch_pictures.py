"""Pictures that a build draws during its training: samples and reconstructions over the epochs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.base import ImageData
from cascadezoo.data.picture_files import bombs_are_errors, opened_picture
from cascadezoo.data.pixels import to_float
from cascadezoo.evaluate.real_features import choose_real
from cascadezoo.report.images import to_pil
from cascadezoo.report.page_pictures import sheet

__all__ = ["EpochPicture", "draw_epoch_pictures", "read_epoch_pictures"]

Topic = Literal["samples", "reconstructions"]

SHOWN = 6
"""Largest number of epochs on a page."""
COLUMNS = 8
_FILE = re.compile(
    r"(?P<topic>samples|reconstructions)-(?P<index>\d+)-(?P<phase>.+)-(?P<epoch>\d+)"
)


@dataclass(frozen=True, slots=True)
class EpochPicture:
    """A picture of one epoch.

    Args:
        topic: ``samples``; ``reconstructions`` has real images above their reconstructions.
        index: the number of the phase.
        phase: its name.
        epoch: the epoch in the phase, from 1.
        image: the picture.
    """

    topic: Topic
    index: int
    phase: str
    epoch: int
    image: Image.Image

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.topic}-{self.index}-{self.phase}-{self.epoch:06d}.png"


def draw_epoch_pictures(
    cascade: Cascade, real: ImageData, count: int, *, seed: int, index: int, phase: str, epoch: int
) -> list[EpochPicture]:
    """Draw samples, and reconstructions if the cascade has a decoder.

    Args:
        cascade: the cascade, whose stages are set to evaluation mode.
        real: real images to reconstruct, in the size of the cascade's images.
        count: number of samples; at most :data:`COLUMNS` images are reconstructed.
        seed: seed of the samples, the same in all epochs.
        index: the number of the phase.
        phase: its name.
        epoch: the epoch in the phase, from 1.
    """

    def picture(topic: Topic, image: Image.Image) -> EpochPicture:
        return EpochPicture(topic, index, phase, epoch, image)

    classes = cascade.resolved.num_classes or 0
    columns = classes if 4 <= classes <= 12 else COLUMNS
    images = cascade.sample(count, seed=seed, batch_size=min(count, 64))
    pictures = [picture("samples", sheet(to_pil(images), columns))]
    stages = cascade.resolved.stages
    decoders = [k for k in range(1, len(stages)) if stages[k - 1].output.latent]
    if decoders:
        place = decoders[-1]
        rows = choose_real(len(real), min(count, COLUMNS, len(real)))
        originals = to_float(torch.from_numpy(real.images[rows]))
        with torch.no_grad():
            latents = cascade.targets(originals.to(cascade.device))[place - 1]
        again = cascade.sample_from(stages[place].name, latents, seed=seed)
        both = [*to_pil(originals), *to_pil(again)]
        pictures.append(picture("reconstructions", sheet(both, len(rows))))
    return pictures


def read_epoch_pictures(folder: Path) -> list[EpochPicture]:
    """Read the pictures of a run, in the order of the training.

    Args:
        folder: the folder of the pictures. Other files in it are left out, and so is the folder if
            it does not exist.

    Returns:
        At most :data:`SHOWN` epochs of each topic, evenly spaced, including the first and last.

    Raises:
        DataError: a picture is damaged, too large, or of another format than those of datasets.
    """
    topics: tuple[Topic, Topic] = ("samples", "reconstructions")
    found: dict[str, list[tuple[int, int, str, Path]]] = {topic: [] for topic in topics}
    for path in folder.glob("*.png"):
        if match := _FILE.fullmatch(path.stem):
            row = (int(match["index"]), int(match["epoch"]), match["phase"], path)
            found[match["topic"]].append(row)
    pictures = []
    for topic in topics:
        rows = found[topic]
        rows.sort()
        last, count = len(rows) - 1, min(SHOWN, len(rows))
        chosen = {round(k * last / max(1, count - 1)) for k in range(count)}
        for index, epoch, phase, path in (rows[k] for k in sorted(chosen)):
            # A run may come from anyone.
            with bombs_are_errors(), opened_picture(path) as image:
                image.load()
                pictures.append(EpochPicture(topic, index, phase, epoch, image))
    return pictures
