"""Image-to-image, inpainting and interpolation with a trained cascade of three stages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from errors_help import raises
from PIL import Image
from torch import Tensor

from cascadezoo import Cascade
from cascadezoo.errors import DataError, SampleError
from cascadezoo.stages.base import SampleRequest, Stage
from cascadezoo.stages.identity.stage import Identity

LABELS = [0, 1, 2, 3]
FAST: dict[str, Any] = {"steps": 6}


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    return Cascade.from_pretrained("shapes-tiny")


@pytest.fixture(scope="module")
def originals(cascade: Cascade) -> Tensor:
    images: Tensor = cascade.sample(4, seed=1, labels=LABELS)
    return images


@pytest.fixture
def right() -> Image.Image:
    """A mask of the right half, with a border that no coarse pixel matches."""
    mask = Image.new("L", (32, 32), "black")
    mask.paste("white", (17, 0, 32, 32))
    return mask


def test_strength_zero_returns_the_image(cascade: Cascade, originals: Tensor) -> None:
    assert torch.equal(cascade.edit(originals, strength=0, output_type="pt"), originals)
    near = cascade.edit(originals, strength=0.02, labels=LABELS, output_type="pt")
    assert (near - originals).abs().mean() < 0.05  # and there is no jump next to 0


def test_strength_one_is_sampling(cascade: Cascade, originals: Tensor) -> None:
    edited = cascade.edit(originals, strength=1, seed=8, labels=LABELS, output_type="pt", **FAST)
    assert torch.equal(edited, cascade.sample(4, seed=8, labels=LABELS, **FAST))
    # Without a label, too: the image has no influence.
    white = torch.ones_like(originals)
    first, second = (
        cascade.edit(images, strength=1, seed=8, output_type="pt", **FAST)
        for images in (originals, white)
    )
    assert torch.equal(first, second)


def test_more_strength_changes_more(cascade: Cascade, originals: Tensor) -> None:
    distances = [
        float(
            (
                cascade.edit(originals, strength=s, labels=[3, 2, 1, 0], seed=2, output_type="pt")
                - originals
            )
            .abs()
            .mean()
        )
        for s in (0.1, 0.5, 1.0)
    ]
    assert distances == sorted(distances)
    assert distances[0] < 0.5 * distances[2]


def test_pixels_outside_of_the_mask_are_equal(
    cascade: Cascade, originals: Tensor, right: Image.Image
) -> None:
    for options in ({}, {"strength": 0.6}, {"batch_size": 3}):
        new = cascade.inpaint(
            originals,
            right,
            labels=LABELS,
            seed=3,
            resamplings=2,
            output_type="pt",
            **FAST,
            **options,
        )
        assert torch.equal(new[..., :17], originals[..., :17])
        assert (new[..., 17:] - originals[..., 17:]).abs().max() > 0.1
    pictures = cascade.inpaint(originals, right, labels=LABELS, resamplings=1, **FAST)
    before = ((originals + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    for picture, image in zip(pictures, before, strict=True):
        assert (np.asarray(picture)[:, :17] == image[:, :17]).all()


@pytest.mark.slow
def test_inpainted_images_are_like_samples(cascade: Cascade, right: Image.Image) -> None:
    from cascadezoo.data.pixels import to_uint8
    from cascadezoo.evaluate.features.small import load
    from cascadezoo.evaluate.metrics.kid import kernel_inception_distance
    from cascadezoo.spec.configs import EmptyConfig

    n = 64
    extractor = load(EmptyConfig(), torch.device("cpu"))

    def features(images: Tensor) -> Tensor:
        return extractor.features(to_uint8(images))

    samples, others = (cascade.sample(n, seed=seed, steps=10) for seed in (1, 2))
    labels = [i % 8 for i in range(n)]
    new = cascade.inpaint(
        samples, right, labels=labels, seed=3, steps=10, resamplings=3, output_type="pt"
    )
    halves = torch.cat([samples[..., :17], others.roll(3, 0)[..., 17:]], dim=-1)
    real = features(others)
    kid = {
        name: kernel_inception_distance(features(images), real, subsets=20, subset_size=32).mean
        for name, images in {"samples": samples, "new": new, "halves": halves}.items()
    }
    # Halves of different images are what an inpainting without regard to the rest gives.
    assert kid["new"] - kid["samples"] < 0.3 * (kid["halves"] - kid["samples"]), kid


def test_a_picture_of_another_size_is_cropped_and_resized(cascade: Cascade) -> None:
    photo = Image.new("RGBA", (100, 64), (255, 0, 0, 0))  # clear: it becomes white
    (same,) = cascade.edit(photo, strength=0)
    assert same.size == (32, 32)
    assert np.asarray(same).min() == 255
    mask = Image.new("L", (100, 64), "black")
    mask.paste("white", (50, 0, 60, 64))
    (new,) = cascade.inpaint(photo, mask, resamplings=1, **FAST)
    # Columns 18 to 81 are kept; 50 to 60 of them are 16 to 21 of the result.
    unchanged = np.delete(np.asarray(new), range(16, 21), axis=1)
    assert (unchanged == 255).all()
    with raises(DataError, "data-picture-size", size=32):
        cascade.edit(Image.new("RGB", (15, 40)))


def test_variants_of_one_image(cascade: Cascade, originals: Tensor) -> None:
    rows = cascade.edit(originals[:1], n=3, strength=0.8, output_type="np", **FAST)
    assert rows.shape == (3, 32, 32, 3)
    assert (rows[0] != rows[1]).any()


def test_interpolation_ends_at_the_samples_of_both_seeds(cascade: Cascade) -> None:
    frames = cascade.interpolate((3, 9), labels=(2, 5), n=5, output_type="pt", **FAST)
    first = cascade.sample(1, seed=3, labels=2, **FAST)[0]
    last = cascade.sample(1, seed=9, labels=5, **FAST)[0]
    assert (frames[0] - first).abs().max() < 1e-4
    assert (frames[-1] - last).abs().max() < 1e-4
    steps = (frames[1:] - frames[:-1]).abs().mean((1, 2, 3))
    assert float(steps.max()) < float((first - last).abs().mean())  # no jump between frames


def test_interpolation_between_labels_keeps_the_noise(cascade: Cascade) -> None:
    frames = cascade.interpolate(4, labels=(0, 1), n=3, output_type="pt", **FAST)
    for frame, label in ((0, 0), (-1, 1)):
        sample = cascade.sample(1, seed=4, labels=label, **FAST)[0]
        assert (frames[frame] - sample).abs().max() < 1e-4
    assert (frames[1] - frames[0]).abs().max() > 0.01
    assert len(cascade.interpolate((0, 1), n=2, **FAST)) == 2


def test_invalid_arguments(cascade: Cascade, originals: Tensor, right: Image.Image) -> None:
    for strength in (-0.1, 1.1, float("nan")):
        with raises(SampleError, "sample-strength-invalid"):
            cascade.edit(originals, strength=strength)
    with raises(SampleError, "sample-resamplings-invalid"):
        cascade.inpaint(originals, right, resamplings=0)
    with raises(SampleError, "sample-mask-empty"):
        cascade.inpaint(originals, Image.new("L", (32, 32)))
    with raises(SampleError, "sample-mask-size"):
        cascade.inpaint(originals, Image.new("L", (16, 16), "white"))
    for arguments in ({"seeds": (1, 2, 3)}, {"labels": (1,)}, {"n": 1}, {"seed": 3}):
        with raises(SampleError, "sample-interpolation-ends"):
            cascade.interpolate(**arguments)  # type: ignore[arg-type]
    with raises(SampleError, "sample-label-out-of-range"):
        cascade.interpolate(0, labels=(0, 99))
    with raises(SampleError, "sample-guidance-without-labels"):
        cascade.edit(originals, guidance=3.0)


def test_a_generator_that_cannot_edit() -> None:
    cascade = Cascade.from_spec("shapes-demo")
    cascade.stages[0].edits = False  # type: ignore[assignment]
    with raises(SampleError, "sample-edit-impossible"):
        cascade.edit(torch.zeros(1, 3, 32, 32))


def test_truncation_is_left_out(cascade: Cascade) -> None:
    seen: list[SampleRequest] = []

    class Recorder(Identity):
        sampling_options = frozenset({"truncated"})

        def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
            seen.append(request)
            return super().sample(upstream, request)

    whole = Cascade.from_pretrained("shapes-tiny")
    stage: Stage = Recorder(Identity.Config(), whole.stage("refine").geometry)
    whole.stages[2] = stage
    whole.edit(torch.zeros(1, 3, 32, 32), strength=0.5, **FAST)
    assert seen
    assert all(request.options == {"truncated": False} for request in seen)
