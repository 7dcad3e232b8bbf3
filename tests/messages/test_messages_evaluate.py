"""The wording of errors and texts of evaluation and sampling."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

from cascadezoo import Cascade
from cascadezoo.cascade.sampling import autocast
from cascadezoo.errors import CascadezooError
from cascadezoo.evaluate.advice import advice
from cascadezoo.evaluate.attribution import StageAttribution
from cascadezoo.evaluate.card_check import compare
from cascadezoo.evaluate.features.moments import Moments
from cascadezoo.evaluate.metrics.fid import require_covariance
from cascadezoo.evaluate.metrics.inception_score import inception_score
from cascadezoo.evaluate.metrics.kid import kernel_inception_distance
from cascadezoo.evaluate.metrics.precision_recall import coverage
from cascadezoo.evaluate.metrics.reconstruction import psnr
from cascadezoo.evaluate.real_features import choose_real
from cascadezoo.evaluate.samples import Samples
from cascadezoo.model_folder.figures import Figure


@cache
def cascade() -> Cascade:
    return Cascade.from_spec("diffusion-pixelshuffle-vit-tiny", device="meta")


def first_batch(count: int, shape: tuple[int, int, int], n: int = 4) -> Any:
    samples = Samples(lambda first, number: torch.zeros(count, *shape), (3, 8, 8))
    return next(samples.batches(n))


def kid(n: int, **options: Any) -> object:
    return kernel_inception_distance(torch.zeros(n, 4), torch.zeros(60, 4), **options)


MESSAGES: dict[str, tuple[Callable[[], object], str]] = {
    "too few images for a subset": (
        lambda: kid(10, subset_size=50),
        "KID with subsets of 50 needs at least 50 generated images, not 10\n"
        "Hint: use at least 50 generated images, or set subset_size to at most 10 (half of that "
        "for a meaningful spread)",
    ),
    "no subsets": (
        lambda: kid(60, subsets=0, subset_size=5),
        "KID is not defined for 0 subsets of 5\nHint: use at least 1 subset of at least 2 images",
    ),
    "features of different lengths": (
        lambda: coverage(torch.zeros(5, 8), torch.zeros(5, 4)),
        "cannot compare features of shapes (5, 8) and (5, 4); both must be [N, D] with the same D\n"
        "Hint: use the same extractor for both",
    ),
    "too few images for a covariance": (
        lambda: require_covariance(64, 300, 64),
        "FID on 64 features needs at least 65 generated images, not 64\n"
        "Hint: use at least 65 generated images (10,000 or more for published figures), or measure "
        '"kid", which is unbiased for any number',
    ),
    "no covariance": (
        lambda: Moments(4).statistics(),
        "the covariance needs at least 2 images, not 0\nHint: use at least 2 images",
    ),
    "too few images for the splits": (
        lambda: inception_score(torch.zeros(19, 3)),
        "an Inception Score over 10 splits needs at least 20 images, not 19\n"
        "Hint: use more images; papers use 50,000",
    ),
    "too few neighbours": (
        lambda: coverage(torch.zeros(5, 4), torch.zeros(3, 4)),
        "precision and recall with 3 neighbours need at least 4 images of each kind, not 5 and 3\n"
        "Hint: use more images; the paper uses 50,000",
    ),
    "images of different shapes": (
        lambda: psnr(torch.zeros(2, 1, 4, 4), torch.zeros(1, 1, 4, 4)),
        "PSNR needs images of equal shape, not (2, 1, 4, 4) and (1, 1, 4, 4)\n"
        "Hint: resize one of them first",
    ),
    "too few real images": (
        lambda: choose_real(30, 31),
        "cannot choose 31 real images: the dataset has 30\n"
        "Hint: set n_real to a number from 1 to 30, or leave it out",
    ),
    "nothing to sample": (
        lambda: first_batch(4, (3, 8, 8), n=0),
        "cannot sample 0 images in batches of 64\nHint: both numbers must be at least 1",
    ),
    "a sampler with too few images": (
        lambda: first_batch(2, (3, 8, 8)),
        "the sampler returned 2 images, not 4\n"
        "Hint: sample_fn(first, count) must return [count, C, H, W]",
    ),
    "samples of a different size": (
        lambda: first_batch(4, (3, 16, 16)),
        "generated images are 3x16x16, but real images are 3x8x8 (channels, height, width)\n"
        "Hint: use real images with the cascade's size and channels",
    ),
    "an unknown precision": (
        lambda: autocast(torch.device("cpu"), "fp8"),  # type: ignore[arg-type]
        "unknown precision 'fp8'\nHint: choose fp32, bf16 or fp16",
    ),
    "fp16 on a CPU": (
        lambda: autocast(torch.device("cpu"), "fp16"),
        "fp16 is not supported on CPUs\nHint: choose bf16 or fp32",
    ),
    "an option that a stage does not support": (
        lambda: cascade().sample(2, steps={"up": 3}),
        "cannot set steps for stage 'up'\nHint: stages that support it: coarse",
    ),
    "an option that is an argument": (
        lambda: cascade().sample(2, options={"steps": 3}),
        "steps is an argument of its own, not one of the further options\n"
        "Hint: pass it as steps=...",
    ),
    "a stop": (
        lambda: cascade().sample(2, options={"stop": 0.5}),
        "the stop of a stage cannot be set directly: the next stage sets it\n"
        "Hint: set s and truncated=True of the next stage",
    ),
    "too few labels": (
        lambda: cascade().sample(2, labels=[0]),
        "1 labels do not match 2 images\nHint: give one label for all images or one per image",
    ),
    "an unknown label": (
        lambda: cascade().sample(2, labels=8),
        "label 8 is out of range\n"
        "Hint: the classes are 0 'circle', 1 'square', 2 'triangle', 3 'star', 4 'ring', 5 'cross', "
        "6 'heart', 7 'crescent'",
    ),
    "the generator as the first stage": (
        lambda: cascade().sample_from("coarse", torch.zeros(2, 3, 8, 8)),
        "'coarse' is the generator of diffusion-pixelshuffle-vit-tiny\n"
        "Hint: choose one of up, refine",
    ),
    "input of a different size": (
        lambda: cascade().sample_from("up", torch.zeros(2, 3, 40, 40)),
        "picture 0 is 40x40, but the stage takes 8x8: each side may have 4 to 16 pixels\n"
        "Hint: resize it first; cascade.upscale takes pictures of any size",
    ),
    "input that is no picture": (
        lambda: cascade().sample_from("up", torch.zeros(2, 5, 8, 8)),
        "stage 'up' needs floating [n, 3, 8, 8], not [2, 5, 8, 8]\n"
        "Hint: cascade.targets(images) makes them from real images",
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_messages(case: str) -> None:
    act, text = MESSAGES[case]
    with pytest.raises(CascadezooError) as caught:
        act()
    assert str(caught.value) == text


def figure(value: float, part: str = "", **changes: Any) -> Figure:
    name = f"kid.small.n100{part and '.'}{part}"
    fields: dict[str, Any] = {"std": 0.001, "extractor": "small", "precision": None, **changes}
    return Figure(name=name, metric="kid", value=value, n=100, **fields)


def row(
    stage: str, generated: float, real: float | None = None, role: str = "upsampler"
) -> StageAttribution:
    return StageAttribution(
        stage=stage,
        role="generator" if real is None else role,
        real=None if real is None else figure(real, f"{stage}-real"),
        generated=figure(generated, f"{stage}-generated"),
        mismatch=None if real is None else generated - real,
    )


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([], "Nothing was measured."),
        (
            [row("coarse", 0.0005)],
            "No stage stands out: every distance is within its spread. Use more samples.",
        ),
        (
            [row("coarse", 0.05), row("up", 0.06, 0.004)],
            "Work on the generator coarse: its images are far from real images "
            "(50 / 1000 of kid.small.n100).",
        ),
        (
            [row("coarse", 0.05), row("up", 0.1, 0.0495)],
            "Work on the generator coarse: its images are far from real images "
            "(50 / 1000 of kid.small.n100). Equally large within the spread: work on up itself: "
            "even on real input it is far from its targets (49.5 / 1000).",
        ),
        (
            [row("coarse", 0.0005), row("up", 0.3, 0.001)],
            "Work on the training of up: generated input harms it more than the error of that "
            "input; lower its teacher forcing, train it jointly, or augment its input "
            "(298 / 1000 of kid.small.n100).",
        ),
        (
            [row("decode", 0.3, 0.001, role="decoder")],
            "Work on the stage that makes the latents of decode: real ones decode better "
            "(299 / 1000 of kid.small.n100).",
        ),
    ],
)
def test_advice(rows: list[StageAttribution], text: str) -> None:
    assert advice(rows) == text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"value": 0.3}, "differs by 0.2, more than the tolerance of 0.001"),
        ({"tolerance": 1.0}, "the card's tolerance is 1, the recomputed one is 0.001"),
        (
            {"std": 1.0, "tolerance": 0.001},
            "the card's spread is 1, the recomputed one is 0.001",
        ),
        (
            {"resolution": 32, "extractor_version": "v0"},
            "not compared: the extractor's version is v1 here and v0 on the card; "
            "the resolution is 16 here and 32 on the card",
        ),
    ],
)
def test_reasons_of_a_check(changes: dict[str, Any], reason: str) -> None:
    recorded = {"resolution": 16, "extractor_version": "v1"}
    stated = figure(**{"value": 0.1, **recorded, **changes})
    assert compare(stated, figure(0.1, **recorded)).reason == reason
