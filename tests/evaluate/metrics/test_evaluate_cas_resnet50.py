"""CAS with torchvision's ResNet-50 and its recipe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from errors_help import raises
from test_evaluate_classified import CLASSES, CPU, colours, of_labels
from toy_cascades import bicubic, cascade_inputs, noise, same, spec, toy

from cascadezoo.data.base import ImageData
from cascadezoo.errors import InputError
from cascadezoo.evaluate.configs import ResNetScoreConfig
from cascadezoo.evaluate.metrics import cas_resnet50, resnet50
from cascadezoo.evaluate.metrics.cas_resnet50 import measure
from cascadezoo.evaluate.metrics.resnet50 import ResNetRecipe, label_ranks, train_resnet50
from cascadezoo.spec.configs import ConfigError, MeasurementPlan


class Chosen(torch.nn.Module):
    """Rates the classes in a fixed order, whatever the image."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[1:] == (3, 32, 32)
        return self.logits.expand(len(images), -1)


def recipe(**changes):
    return ResNetRecipe(**{"classes": CLASSES, "size": 8, "device": CPU, **changes})


def test_the_recipe_is_that_of_torchvision():
    """90 epochs of 256, rate 0.1 that falls at 30 and 60, 224 of 256 pixels."""
    theirs = recipe(size=256)
    assert (theirs.epochs, resnet50.BATCH, theirs.crop) == (90, 256, 224)
    rates = [theirs.rate(epoch, 256) for epoch in (0, 29, 30, 59, 60, 89)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert theirs.rate(0, 64) == pytest.approx(0.025)
    assert [recipe(size=size).crop for size in (8, 32, 64, 128)] == [32, 32, 56, 112]
    assert recipe(epochs=3).rate(2, 256) == pytest.approx(0.001)


def test_ranks_count_the_classes_above_the_true_one():
    labels = np.array([0, 1, 2, 3], np.int64)
    test = ImageData(np.zeros((4, 1, 8, 8), np.uint8), labels, "test")
    ranks = label_ranks(Chosen(0.5, 3.0, 2.0, -1.0), test, recipe())
    assert ranks.tolist() == [2, 0, 1, 3]
    diverged = label_ranks(Chosen(float("nan"), 3.0, 2.0, -1.0), test, recipe())
    assert diverged[0] == CLASSES
    with raises(InputError, "input-classifier-no-labels", split="test"):
        label_ranks(Chosen(0.0), ImageData(test.images, None, "test"), recipe())


def test_top_1_top_5_and_classes_of_samples_and_real_images(means, monkeypatch, tmp_path):
    """The figures of known ranks; only the training is replaced."""
    data = {"source": "shapes", "config": {"size": 8, "classes": 8}}
    cascade = toy(spec(8, data=data), noise, bicubic, same)
    images = np.zeros((16, 3, 8, 8), np.uint8)
    labels = np.arange(16, dtype=np.int64) % 8
    train, test = (ImageData(images, labels, split) for split in ("train", "test"))
    seen = []

    def trained(images, labels, recipe):
        seen.append((len(images), labels.tolist()))
        return Chosen(*(float(-k) for k in range(8)))

    for module in (cas_resnet50, resnet50):
        monkeypatch.setattr(module, "train_resnet50", trained)
    sample = of_labels(train, classes=8)
    inputs = cascade_inputs(cascade, means, train, n=16, test=test, sample=sample, cache=tmp_path)
    results = measure(ResNetScoreConfig(), inputs)
    assert [row[0] for row in seen] == [16, 16]
    assert seen[1][1] == list(range(8)) * 2
    # Class k has k classes above it.
    for part in ("", "real"):
        prefix = f"{part}-" if part else ""
        assert results[part].value == 1 / 8
        assert results[f"{prefix}top5"].value == 5 / 8
        by_class = [results[f"{prefix}class-{label}"] for label in range(8)]
        assert [one.value for one in by_class] == [1.0] + [0.0] * 7
        assert [one.n_real for one in by_class] == [2] * 8
    assert len(results) == 2 * (1 + 1 + 8)
    assert (results[""].split, results[""].n, results[""].n_real) == ("test", 16, 16)
    assert results[""].settings["epochs"] == 90
    # The accuracy of real images is read from the disk.
    again = measure(ResNetScoreConfig(), inputs)
    assert len(seen) == 3
    assert again == results


@pytest.mark.slow
def test_it_learns_and_depends_only_on_the_seed():
    train, test = colours(120), colours(40, 7, "test")
    images, labels = torch.from_numpy(train.images), torch.from_numpy(train.labels)
    quick = recipe(epochs=1)
    state = torch.get_rng_state()
    one = train_resnet50(images[:8], labels[:8], quick)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    two = train_resnet50(images[:8], labels[:8], quick)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name
    with raises(InputError, "input-classifier-too-few", count=1):
        train_resnet50(images[:1], labels[:1], quick)
    ranks = label_ranks(one, test, quick)
    assert ranks.shape == (40,)
    assert 0 <= int(ranks.min()) <= int(ranks.max()) < CLASSES


@pytest.mark.slow
def test_the_score_of_a_cascade(means, tmp_path):
    data = {"source": "shapes", "config": {"size": 8, "classes": CLASSES}}
    cascade = toy(spec(8, data=data), noise, bicubic, same)
    train, test = colours(12), colours(12, 7, "test")
    inputs = cascade_inputs(
        cascade, means, train, n=12, test=test, sample=of_labels(train), cache=tmp_path
    )
    results = measure(ResNetScoreConfig(epochs=1), inputs)
    assert "top5" not in results  # four classes
    assert len(results) == 2 * (1 + CLASSES)
    assert all(0 <= one.value <= 1 for one in results.values())
    assert results["real"].note == "trained on 12 real images"


def test_refusals_before_the_training(means):
    data = {"source": "shapes", "config": {"size": 8}, "num_classes": 0}
    plain = toy(spec(8, data=data), noise, bicubic, same)
    with raises(InputError, "input-metric-needs-labels", name="cas-resnet50"):
        measure(ResNetScoreConfig(), cascade_inputs(plain, means, colours(20), n=20))
    plan = {"n": 10, "real": 10, "test": 10, "num_classes": 4, "size": 8, "stages": 1}
    plan |= {"num_features": None, "subset_size": 5}
    ResNetScoreConfig().check(MeasurementPlan(**plan))
    for change in ({"n": 1}, {"test": 0}, {"num_classes": None}):
        with pytest.raises(ConfigError):
            ResNetScoreConfig().check(MeasurementPlan(**{**plan, **change}))
