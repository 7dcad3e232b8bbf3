from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from errors_help import raises
from toy_cascades import bicubic, cascade_inputs, noise, same, spec, toy

from cascadezoo.data.base import ImageData
from cascadezoo.data.pixels import to_float
from cascadezoo.errors import InputError
from cascadezoo.evaluate.configs import ClassifierMetricConfig
from cascadezoo.evaluate.evaluate_metrics import Subject, evaluate_metrics
from cascadezoo.evaluate.metrics import classifier
from cascadezoo.evaluate.metrics import classifier_scores as classified
from cascadezoo.evaluate.metrics.classifier import TrainingRecipe, predict, real_classifier, shrink
from cascadezoo.evaluate.metrics.classifier_scores import measure_agreement, measure_cas
from cascadezoo.evaluate.options import EvaluationOptions

CPU = torch.device("cpu")
CLASSES = 4


def colours(count, seed=0, split="train", size=8):
    """Noisy images; the class determines the brightness of red and blue."""
    labels = np.random.default_rng(seed).permutation(np.arange(count) % CLASSES)
    images = np.random.default_rng(seed + 1).integers(0, 40, (count, 3, size, size))
    images[:, 0] += (labels % 2 * 150)[:, None, None]
    images[:, 2] += (labels // 2 * 150)[:, None, None]
    return ImageData(images.astype(np.uint8), labels.astype(np.int64), split)


TRAIN, TEST = colours(200), colours(100, 7, "test")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(classifier, "MIN_STEPS", 30)
    monkeypatch.setattr(classifier, "BATCH", 20)


@pytest.fixture(scope="module")
def cascade():
    data = {"source": "shapes", "config": {"size": 8, "classes": CLASSES}}
    return toy(spec(8, data=data), noise, bicubic, same)


def of_labels(data, *, turn=0, classes=CLASSES):
    """A sampler of real images with the requested labels, shifted by ``turn``."""
    places = [np.flatnonzero(data.labels == label) for label in range(classes)]
    images = to_float(torch.from_numpy(data.images))

    def sample(first, count):
        rows = range(first, first + count)
        labels = [(i + turn) % classes for i in rows]
        return images[
            [places[k][i // classes % len(places[k])] for k, i in zip(labels, rows, strict=True)]
        ]

    return sample


def config(**changes):
    return ClassifierMetricConfig(epochs=1, **changes)


def test_cas_of_real_images_as_samples(cascade, means):
    one = cascade_inputs(cascade, means, TRAIN, n=100, test=TEST, sample=of_labels(TRAIN))
    results = measure_cas(config(), one)
    assert results["real"].value > 0.95
    assert results[""].value > 0.95
    assert results[""].split == "test"
    assert results[""].tolerance > classified.TRAINING_SPREAD
    assert results[""].settings["epochs"] == 1


def test_cas_of_samples_with_wrong_labels(cascade, means):
    one = cascade_inputs(cascade, means, TRAIN, n=100, test=TEST, sample=of_labels(TRAIN, turn=1))
    results = measure_cas(config(), one)
    assert results["real"].value > 0.95
    assert results[""].value < 0.05


def test_label_agreement_of_real_images_is_the_accuracy(cascade, means):
    right = cascade_inputs(cascade, means, TRAIN, n=100, test=TEST, sample=of_labels(TEST))
    results = measure_agreement(config(), right)
    assert results["real"].value > 0.95
    assert results[""].value == pytest.approx(results["real"].value, abs=0.05)
    assert results[""].settings["real_images"] == 200
    wrong = cascade_inputs(cascade, means, TRAIN, n=100, test=TEST, sample=of_labels(TEST, turn=3))
    assert measure_agreement(config(), wrong)[""].value < 0.05


def test_names_of_the_figures(cascade, means):
    few = colours(40)
    subject = Subject(
        cascade=cascade,
        real=few,
        split=lambda split: {"train": few, "test": TEST}[split],
        sample=of_labels(few),
    )
    figures = evaluate_metrics(
        ["cas", "label-agreement"], subject, EvaluationOptions(n=40), extractor=means
    )
    names = [f.name for f in figures if f.metric != "images-per-second"]
    assert names == [
        "cas.n40.test",
        "cas.n40.real.test",
        "label-agreement.n40",
        "label-agreement.n40.real.test",
    ]


def test_a_cascade_without_labels(means):
    data = {"source": "shapes", "config": {"size": 8}, "num_classes": 0}
    plain = toy(spec(8, data=data), noise, bicubic, same)
    for measure, name in ((measure_cas, "cas"), (measure_agreement, "label-agreement")):
        with raises(InputError, "input-metric-needs-labels", name=name):
            measure(config(), cascade_inputs(plain, means, TRAIN, n=20, test=TEST))


def test_training_depends_only_on_the_seed(monkeypatch):
    monkeypatch.setattr(classifier, "MIN_STEPS", 5)
    recipe = TrainingRecipe(classes=CLASSES, epochs=1, seed=3, device=CPU)
    images, labels = shrink(torch.from_numpy(TRAIN.images)), torch.from_numpy(TRAIN.labels)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one = classifier.train_classifier(images[:60], labels[:60], recipe)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    two = classifier.train_classifier(images[:60], labels[:60], recipe)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name
    with raises(InputError, "input-classifier-too-few", count=1):
        classifier.train_classifier(images[:1], labels[:1], recipe)


def test_real_classifiers_are_trained_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(classifier, "MIN_STEPS", 5)
    recipe = TrainingRecipe(classes=CLASSES, epochs=1, device=CPU)
    trained = []

    def counting(*parts):
        trained.append(parts)
        return train(*parts)

    train = classifier.train_classifier
    monkeypatch.setattr(classifier, "train_classifier", counting)
    images = torch.from_numpy(TEST.images)
    first = predict(real_classifier(TRAIN, 60, recipe, cache=tmp_path), images)
    again = predict(real_classifier(TRAIN, 60, recipe, cache=tmp_path), images)
    assert torch.equal(first, again)
    assert len(trained) == 1
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("classifier-")
    real_classifier(TRAIN, 40, recipe, cache=tmp_path)
    real_classifier(colours(200, 5), 60, recipe, cache=tmp_path)
    real_classifier(
        TRAIN, 60, TrainingRecipe(classes=CLASSES, epochs=1, seed=1, device=CPU), cache=tmp_path
    )
    assert len(trained) == 4
    path.write_bytes(b"torn")
    with caplog.at_level(logging.WARNING, "cascadezoo"):
        assert torch.equal(
            predict(real_classifier(TRAIN, 60, recipe, cache=tmp_path), images), first
        )
    assert str(path) in caplog.text
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    real_classifier(TRAIN, 60, recipe, cache=blocked)
    assert str(blocked) in caplog.text
    with raises(InputError, "input-classifier-no-labels", split="train"):
        real_classifier(ImageData(TRAIN.images, None, "train"), 60, recipe, cache=tmp_path)


@pytest.mark.parametrize("flip", [False, True])
def test_images_are_shifted_and_mirrored_only_with_flip(flip):
    images = torch.zeros(64, 1, 32, 32, dtype=torch.uint8)
    images[:, :, 10:20, 8:12] = 255  # left of the centre by more than the largest shift
    moved = classifier._augmented(images, flip, torch.Generator().manual_seed(0))
    assert moved.shape == (64, 3, 32, 32)
    assert torch.equal(moved[:, 0], moved[:, 2])
    columns = (moved[:, 0] > 0).any(dim=1).float()
    middle = (columns * torch.arange(32)).sum(dim=1) / columns.sum(dim=1)
    assert bool((middle > 16).any()) == flip
    assert len(middle.unique()) > 5
    assert (columns.sum(dim=1) == 4).all()


@pytest.mark.parametrize("size", [8, 32, 64])
def test_any_size_and_one_channel(size):
    images = torch.full((3, 1, size, size), 77, dtype=torch.uint8)
    small = shrink(images)
    assert small.shape == (3, 1, 32, 32)
    assert (small == 77).all()
    assert predict(classifier.SmallNet(4).eval(), images).shape == (3,)


@pytest.mark.slow
def test_real_cifar10_images_as_samples(cifar10, real_cifar10, monkeypatch, means):
    monkeypatch.setattr(classifier, "MIN_STEPS", 120)
    monkeypatch.setattr(classifier, "BATCH", 32)
    labels = cifar10["test_labels"].numpy()
    parts = {"train": slice(0, 4000), "other": slice(4000, 8000), "test": slice(8000, 10000)}
    train, other, test = (
        ImageData(cifar10["test"][rows].numpy(), labels[rows], "train") for rows in parts.values()
    )
    data = {"source": "npz", "config": {"path": str(real_cifar10)}, "size": 32, "flip": True}
    one = cascade_inputs(
        toy(spec(32, data=data), noise, bicubic, same),
        means,
        train,
        n=1000,
        test=test,
        sample=of_labels(other, classes=10),
        batch_size=250,
    )
    cas = measure_cas(config(), one)
    assert cas["real"].value > 0.3  # chance is 0.1
    assert cas[""].value == pytest.approx(cas["real"].value, abs=0.07)
    agreement = measure_agreement(config(real_images=1000), one)
    assert agreement["real"].value == cas["real"].value  # the same classifier, from the cache
    assert agreement[""].value == pytest.approx(agreement["real"].value, abs=0.06)
