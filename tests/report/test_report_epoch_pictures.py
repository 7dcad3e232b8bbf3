"""Pictures of the training: drawn by a build, shown by its report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from errors_help import raises
from PIL import Image
from test_report_by_class import LATENT

from cascadezoo import Cascade
from cascadezoo.data.pixels import to_float
from cascadezoo.data.split import load_split
from cascadezoo.errors import DataError
from cascadezoo.evaluate.real_features import choose_real
from cascadezoo.report.epoch_pictures import EpochPicture, draw_epoch_pictures, read_epoch_pictures
from cascadezoo.report.images import to_pil
from cascadezoo.report.page_pictures import sheet


def blank(topic: str, index: int, phase: str, epoch: int) -> EpochPicture:
    shade = 20 * index + epoch
    return EpochPicture(topic, index, phase, epoch, Image.new("L", (4, 4), shade))  # type: ignore[arg-type]


def test_samples_and_reconstructions() -> None:
    cascade = Cascade.from_spec(LATENT).eval()
    real = load_split(cascade.resolved, "test")
    samples, again = draw_epoch_pictures(
        cascade, real, 10, seed=3, index=1, phase="joint", epoch=20
    )
    assert (samples.file, again.file) == (
        "samples-1-joint-000020.png",
        "reconstructions-1-joint-000020.png",
    )
    classes = cascade.resolved.num_classes or 0
    expected = sheet(to_pil(cascade.sample(10, seed=3)), classes if 4 <= classes <= 12 else 8)
    assert np.array_equal(np.asarray(samples.image), np.asarray(expected))
    originals = to_float(torch.from_numpy(real.images[choose_real(len(real), 8)]))
    with torch.no_grad():
        latents = cascade.targets(originals)[0]
    decoded = cascade.sample_from("decode", latents, seed=3)
    expected = sheet([*to_pil(originals), *to_pil(decoded)], 8)
    assert np.array_equal(np.asarray(again.image), np.asarray(expected))


def test_a_page_shows_a_few_epochs_in_order(tmp_path: Path) -> None:
    assert read_epoch_pictures(tmp_path / "missing") == []
    written = [blank("samples", 0, "base", epoch) for epoch in range(1, 12)]
    written += [blank("samples", 1, "up-joint", epoch) for epoch in (5, 10)]
    written += [blank("reconstructions", 0, "base", 3)]
    for picture in written:
        picture.image.save(tmp_path / picture.file)
    (tmp_path / "notes.png").write_bytes(b"not a picture")
    read = read_epoch_pictures(tmp_path)
    at = [(p.topic, p.index, p.phase, p.epoch) for p in read]
    assert at[0] == ("samples", 0, "base", 1)
    assert at[5] == ("samples", 1, "up-joint", 10)
    assert at[6:] == [("reconstructions", 0, "base", 3)]
    assert at[:6] == sorted(at[:6])
    assert len(set(at)) == 7
    assert [p.image.getpixel((0, 0)) for p in read] == [20 * p.index + p.epoch for p in read]


@pytest.mark.parametrize(
    "content",
    # Pillow would start Ghostscript for the second one.
    [b"not a picture", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"],
)
def test_a_strange_picture_of_a_run_from_elsewhere_is_refused(tmp_path: Path, content) -> None:
    path = tmp_path / "samples-0-base-000001.png"
    path.write_bytes(content)
    with raises(DataError, "data-image-unreadable", path=path):
        read_epoch_pictures(tmp_path)
