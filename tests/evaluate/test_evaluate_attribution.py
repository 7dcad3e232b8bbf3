from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from errors_help import raises
from toy_cascades import noise, same, smooth, spec, subject, toy

from cascadezoo import Cascade, load_spec
from cascadezoo.data.base import ImageData
from cascadezoo.data.pixels import to_float
from cascadezoo.data.split import load_split
from cascadezoo.errors import InputError
from cascadezoo.evaluate.advice import advice, largest_losses
from cascadezoo.evaluate.attribution import StageAttribution, attribute_stages
from cascadezoo.evaluate.evaluate_metrics import Subject
from cascadezoo.evaluate.metrics.kid import kernel_inception_distance
from cascadezoo.evaluate.options import EvaluationOptions
from cascadezoo.evaluate.partial_cascades import upto
from cascadezoo.evaluate.real_features import choose_real
from cascadezoo.model_folder.figures import Figure
from cascadezoo.model_folder.layout import read_config
from cascadezoo.spec import resolve

REAL = smooth(400)
IMAGES = to_float(torch.from_numpy(REAL.images))
SMALL = F.interpolate(IMAGES, (8, 8), mode="area")
OPTIONS = {"n": 100, "subsets": 20, "subset_size": 50}


def draws(change=lambda images: images):
    """A generator that draws small real images at random and changes them."""

    def make(_, request):
        rows = (request.draw.rand(request.count) * len(SMALL)).long()
        return change(SMALL[rows]).clamp(-1, 1)

    return make


def enlarges(change=lambda images: images, unknown=lambda images: images):
    """An upsampler that looks up the real image and changes it; ``unknown`` changes others too."""

    def make(upstream, _):
        distances = (upstream[:, None] - SMALL).abs().amax(dim=(2, 3, 4))
        nearest = distances.min(dim=1)
        images = change(IMAGES[nearest.indices])
        is_unknown = (nearest.values > 1e-4)[:, None, None, None]
        return torch.where(is_unknown, unknown(images), images).clamp(-1, 1)

    return make


def darker(images):
    return images - 0.4


def marked(images):
    """A change that is hardly visible."""
    return images + 0.004


def causes(rows):
    """The stages to work on, with the reasons."""
    return [(loss.stage, loss.kind) for loss in largest_losses(rows)]


def attributed(means, *makes, metric="kid", **changes):
    cascade = toy(spec(refine=len(makes) == 3), *makes)
    return attribute_stages(
        subject(cascade, REAL),
        EvaluationOptions(**{**OPTIONS, **changes}),
        extractor=means,
        metric=metric,
    )


def test_a_perfect_cascade_has_no_losses(means):
    rows = attributed(means, draws(), enlarges(), same)
    assert [(row.stage, row.role) for row in rows] == [
        ("coarse", "generator"),
        ("up", "upsampler"),
        ("refine", "refiner"),
    ]
    for row in rows:
        for figure in (row.real, row.generated):
            assert figure is None or abs(figure.value) < 3 * figure.std
    assert rows[0].real is rows[0].mismatch is None
    assert causes(rows) == []


def test_a_poor_generator(means):
    rows = attributed(means, draws(darker), enlarges(unknown=lambda images: images - 0.4))
    assert rows[0].generated.value > 2 * rows[0].generated.std
    assert abs(rows[1].real.value) < 3 * rows[1].real.std
    assert rows[1].mismatch == rows[1].generated.value - rows[1].real.value
    assert rows[0].share == pytest.approx(1, abs=0.35)
    assert causes(rows)[0] == ("coarse", "generator")


def test_a_poor_upsampler(means):
    rows = attributed(means, draws(), enlarges(darker))
    assert rows[1].real.value == pytest.approx(rows[1].generated.value, rel=0.3)
    assert abs(rows[1].mismatch) < 0.3 * rows[1].real.value
    assert rows[1].share > 0.8
    assert causes(rows)[0] == ("up", "stage")


def test_an_upsampler_that_fails_on_generated_input(means):
    rows = attributed(means, draws(marked), enlarges(unknown=darker))
    assert abs(rows[0].generated.value) < 3 * rows[0].generated.std
    assert abs(rows[1].real.value) < 3 * rows[1].real.std
    assert rows[1].mismatch > 5 * rows[1].real.std
    assert causes(rows)[0] == ("up", "input")


def test_figures_record_their_measurement(means):
    rows = attributed(means, draws(darker), enlarges(darker), same)
    names = [f.name for row in rows for f in (row.real, row.generated) if f]
    assert names == [
        "kid.means.n100.coarse-generated",
        "kid.means.n100.up-real",
        "kid.means.n100.up-generated",
        "kid.means.n100.refine-real",
        "kid.means.n100.refine-generated",
    ]
    result = rows[0].generated.to_dict()
    assert (result["resolution"], rows[1].generated.resolution) == (8, 16)
    assert (result["n"], result["n_real"], result["subsets"], result["subset_size"]) == (
        100,
        100,
        20,
        50,
    )
    assert result["data_digest"] == REAL.digest
    assert sum(row.share for row in rows) == pytest.approx(1)
    data = json.loads(json.dumps([row.to_dict() for row in rows]))
    assert set(data[1]) == {"stage", "role", "real", "generated", "mismatch", "share"}
    assert Figure.from_dict(data[1]["real"]) == rows[1].real


def test_the_figures_agree_with_a_direct_computation(means):
    cascade = toy(spec(), draws(darker), enlarges(darker), same)
    rows = attribute_stages(
        subject(cascade, REAL), EvaluationOptions(seed=3, batch_size=33, **OPTIONS), extractor=means
    )
    order = choose_real(400, 400)
    stages = cascade.sample(100, seed=3, return_stages=True)

    def kid(images, targets):
        return kernel_inception_distance(
            means(images), means(targets), subsets=20, subset_size=50, seed=3
        ).mean

    small, large = SMALL[order[:100]], IMAGES[order[:100]]
    assert rows[0].generated.value == pytest.approx(kid(stages["coarse"], small), abs=1e-7)
    assert rows[1].generated.value == pytest.approx(kid(stages["up"], large), abs=1e-7)
    on_real = darker(IMAGES[order[-100:]]).clamp(-1, 1)
    assert rows[1].real.value == pytest.approx(kid(on_real, large), abs=1e-7)
    assert rows[2].generated.value == pytest.approx(kid(stages["refine"], large), abs=1e-7)


def test_input_images_differ_from_the_compared_images(means):
    cascade = toy(spec(refine=False), noise, enlarges())
    attribute_stages(
        subject(cascade, REAL),
        EvaluationOptions(n=200, subsets=2, subset_size=50, batch_size=200),
        extractor=means,
    )
    generated, real = cascade.stage("up").inputs
    order = choose_real(400, 400)
    torch.testing.assert_close(real[0], SMALL[order[200:]])
    assert real[1].tolist() == REAL.labels[order[200:]].tolist()
    assert generated[1].tolist() == [i % 8 for i in range(200)]


def test_few_real_images(means):
    rows = attributed(means, draws(), enlarges(), n=1000, subset_size=None)
    assert rows[0].generated.name == "kid.means.n200.coarse-generated"
    assert rows[0].generated.subset_size == 100
    assert "400" in rows[1].real.note
    assert "200" in rows[1].real.note
    with raises(InputError, "input-attribution-subset", needed=201) as caught:
        attributed(means, draws(), enlarges(), n=1000, subset_size=201)
    assert "200" in str(caught.value.hint)
    with raises(InputError, "input-attribution-count", total=1):
        attribute_stages(
            subject(toy(spec(refine=False), draws(), enlarges()), smooth(1)),
            EvaluationOptions(),
            extractor=means,
        )


def test_fid_uses_all_other_real_images(means):
    rows = attributed(means, draws(), enlarges(darker), metric="fid")
    assert rows[1].real.name == "fid.means.n100.up-real"
    assert rows[1].real.n_real == 300
    assert rows[1].real.value > 10 * abs(rows[0].generated.value)


@pytest.mark.parametrize("metric", ["psnr", "inception-score", "precision"])
def test_only_distances_on_features_are_accepted(means, metric):
    with raises(InputError, "input-attribution-metric", name=metric):
        attributed(means, draws(), enlarges(), metric=metric)


def test_a_cascade_with_only_a_generator(means):
    data = spec(refine=False)
    del data["stages"][1]
    cascade = toy(data, lambda _, r: 0.8 + 0.1 * r.draw.rand(r.count, 3, 16, 16))
    (row,) = attribute_stages(subject(cascade, REAL), EvaluationOptions(**OPTIONS), extractor=means)
    assert row.real is row.mismatch is None
    assert row.share == 1
    assert causes([row]) == [("coarse", "generator")]


def test_latents_are_not_measured(means):
    data = spec()
    data["stages"] = [
        {**data["stages"][0], "name": "draw"},
        {
            "name": "decode",
            "kind": "autoencoder.v1",
            "config": {"channels": 8, "multipliers": [1, 1]},
        },
    ]
    cascade = Cascade.from_spec(load_spec(data)).eval()
    (row,) = attribute_stages(subject(cascade, REAL), EvaluationOptions(**OPTIONS), extractor=means)
    assert (row.stage, row.role) == ("decode", "decoder")
    assert row.mismatch == row.generated.value - row.real.value
    poor = StageAttribution(
        stage="decode",
        role="decoder",
        real=figure(0.001, "decode-real"),
        generated=figure(0.3, "decode-generated"),
        mismatch=0.299,
    )
    assert causes([poor]) == [("decode", "latents")]


def test_a_stage_that_stops_early_is_measured_at_its_end(means):
    unet = {"channels": 8, "multipliers": [1], "timesteps": 8, "schedule": "cosine"}
    data = spec()
    data["stages"] = [
        {"name": "coarse", "kind": "unet-diffusion.v1", "config": {**unet, "steps": 4}},
        {
            "name": "sr",
            "kind": "diffusion-sr.v1",
            "config": {**unet, "steps": 2, "augmentation": "gaussian", "truncated": True, "s": 0.5},
        },
    ]
    cascade = Cascade.from_spec(load_spec(data)).eval()
    rows = attribute_stages(
        subject(cascade, REAL), EvaluationOptions(n=60, subsets=4), extractor=means
    )
    whole = upto(cascade, "coarse").sample(60)
    stopped = cascade.sample(60, return_stages=True)["coarse"]
    assert not torch.allclose(whole, stopped, atol=0.05)
    targets = SMALL[choose_real(400, 60)]
    expected = kernel_inception_distance(means(whole), means(targets), subsets=4, subset_size=30)
    assert rows[0].generated.value == pytest.approx(expected.mean, abs=1e-6)


def figure(value, part, std=0.001, metric="kid"):
    return Figure(
        name=f"{metric}.small.n100.{part}", metric=metric, value=value, std=std, n=100,
        extractor="small",
    )  # fmt: skip


def row(stage, generated, real=None, role="upsampler"):
    return StageAttribution(
        stage=stage,
        role=role if real is not None else "generator",
        real=None if real is None else figure(real, f"{stage}-real"),
        generated=figure(generated, f"{stage}-generated"),
        mismatch=None if real is None else generated - real,
    )


def test_advice_does_not_blame_a_stage_for_its_input():
    rows = [row("coarse", 0.05), row("up", 0.06, 0.004)]
    assert causes(rows) == [("coarse", "generator")]
    assert "50 / 1000" in advice(rows)
    assert "kid.small.n100" in advice(rows)


def test_advice_names_an_equally_large_cause():
    rows = [row("coarse", 0.05), row("up", 0.1, 0.0495)]
    assert causes(rows) == [("coarse", "generator"), ("up", "stage")]
    assert "coarse" in advice(rows)
    assert "up" in advice(rows)


def test_no_losses_without_rows_or_within_the_spread():
    assert causes([]) == []
    assert causes([row("coarse", 0.0005), row("up", 0.0004, 0.0)]) == []


@pytest.mark.slow
def test_the_bundled_model():
    from cascadezoo.evaluate.features.base import load_extractor

    folder = Path(__file__).parents[2] / "cascadezoo" / "zoo" / "models" / "shapes-tiny"
    cascade = Cascade.from_pretrained(folder)
    resolved = resolve(read_config(folder).spec)
    real = load_split(resolved, "train")
    rows = attribute_stages(
        Subject(cascade=cascade, real=real, split=lambda _: real),
        EvaluationOptions(n=200, batch_size=100),
        extractor=load_extractor("small"),
    )
    assert [row.stage for row in rows] == ["coarse", "up", "refine"]
    # The generator is good; the upsampler blurs any input, real or generated.
    assert rows[1].real.value > 2 * abs(rows[0].generated.value)
    assert causes(rows)[0] == ("up", "stage")


def test_real_images_without_labels(means):
    plain = ImageData(REAL.images, None, "train")
    data = spec(refine=False)
    data["data"] = {**data["data"], "num_classes": 0}
    cascade = toy(data, draws(), enlarges())
    attribute_stages(subject(cascade, plain), EvaluationOptions(**OPTIONS), extractor=means)
    assert all(labels is None for _, labels in cascade.stage("up").inputs)
    assert np.array_equal(plain.images, REAL.images)
