from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from errors_help import raises

from cascadezoo.data.base import ImageData
from cascadezoo.errors import InputError
from cascadezoo.evaluate.evaluate_sampler import evaluate_kid, measure_sampling
from cascadezoo.evaluate.features.base import load_extractor
from cascadezoo.evaluate.metrics.kid import kernel_inception_distance
from cascadezoo.evaluate.metrics.reconstruction import psnr
from cascadezoo.evaluate.options import EvaluationOptions
from cascadezoo.evaluate.real_features import choose_real, real_features, real_statistics


def data(count=200, size=8, seed=0, split="train"):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    return ImageData(images, None, split)


class Sampler:
    """Image i depends only on i. Records the calls."""

    def __init__(self, size=8):
        self.size = size
        self.calls = []

    def __call__(self, first, count):
        self.calls.append((first, count))
        rows = [
            torch.rand(3, self.size, self.size, generator=torch.Generator().manual_seed(i)) * 2 - 1
            for i in range(first, first + count)
        ]
        return torch.stack(rows)


def test_a_figure_records_its_measurement(means):
    real, sampler = data(), Sampler()
    figure = evaluate_kid(
        sampler,
        real,
        EvaluationOptions(n=100, seed=4, subsets=10, batch_size=33),
        extractor=means,
        note="hello",
    )
    assert sampler.calls == [(0, 33), (33, 33), (66, 33), (99, 1)]
    result = figure.to_dict()
    assert result.pop("seconds") > 0
    assert result.pop("sampling_seconds") > 0
    chosen = torch.from_numpy(real.images[choose_real(200, 100)])
    kid = kernel_inception_distance(
        means(Sampler()(0, 100)), means(chosen), subsets=10, subset_size=50, seed=4
    )
    assert result == {
        "name": "kid.means.n100",
        "metric": "kid",
        "value": kid.mean,
        "std": kid.std,
        "tolerance": kid.std,
        "n": 100,
        "n_real": 100,
        "extractor": "means",
        "extractor_version": "v1",
        "extractor_sha256": "0" * 64,
        "precision": "fp32",
        "subsets": 10,
        "subset_size": 50,
        "seed": 4,
        "split": "train",
        "data_digest": real.digest,
        "resolution": 8,
        "device": "cpu",
        "note": "hello",
    }


def test_the_batch_size_does_not_change_the_value(means):
    values = {
        evaluate_kid(
            Sampler(), data(), EvaluationOptions(n=60, subsets=5, batch_size=b), extractor=means
        ).value
        for b in (1, 7, 60, 1000)
    }
    assert len(values) == 1


def test_too_few_images_are_refused_before_sampling(means):
    sampler = Sampler()
    with raises(InputError, "input-too-few-images", n=100, n_real=100) as caught:
        evaluate_kid(sampler, data(), EvaluationOptions(n=100, subset_size=1000), extractor=means)
    assert "1000" in str(caught.value.hint)
    with raises(InputError, "input-too-few-images", n=1):
        evaluate_kid(sampler, data(), EvaluationOptions(n=1), extractor=means)
    with raises(InputError, "input-too-few-images", n_real=20):
        evaluate_kid(sampler, data(20), EvaluationOptions(n=100, subset_size=30), extractor=means)
    assert sampler.calls == []


@pytest.mark.parametrize(
    ("n", "batch_size", "code"), [(0, 8, "too-few-images"), (8, 0, "sample-count")]
)
def test_nothing_to_sample(means, n, batch_size, code):
    options = EvaluationOptions(n=n, batch_size=batch_size)
    with raises(InputError, f"input-{code}", n=n):
        evaluate_kid(Sampler(), data(), options, extractor=means)


def test_sizes_that_differ_from_the_real_images(means):
    with raises(InputError, "input-images-unlike", generated="3x16x16", real="3x8x8"):
        evaluate_kid(Sampler(size=16), data(), EvaluationOptions(n=20), extractor=means)


def test_a_diverged_model_is_refused(means):
    with raises(InputError, "input-images-not-finite", count=20, total=20):
        evaluate_kid(
            lambda first, count: Sampler()(first, count) * float("nan"),
            data(),
            EvaluationOptions(n=20, batch_size=20),
            extractor=means,
        )


def test_a_sampler_that_returns_too_few_images(means):
    with raises(InputError, "input-sampler-count", count=5, needed=20):
        evaluate_kid(
            lambda first, count: torch.zeros(5, 3, 8, 8),
            data(),
            EvaluationOptions(n=20),
            extractor=means,
        )


def test_the_name_contains_the_precision(means):
    figure = evaluate_kid(
        Sampler(), data(), EvaluationOptions(n=20, subsets=2, precision="bf16"), extractor=means
    )
    assert figure.name == "kid.means-bf16.n20"


def test_sampling_speed(means):
    sampler = Sampler()
    figure = measure_sampling(sampler, n=20, batch_size=8)
    assert sampler.calls == [(0, 8), (0, 8), (8, 8), (16, 4)]
    assert figure.name == "images-per-second.n20"
    assert figure.unit == "images/s"
    assert figure.value > 0


def test_the_choice_of_real_images_does_not_depend_on_the_count():
    some, more = choose_real(500, 20), choose_real(500, 100)
    assert list(some) == list(more[:20])
    assert len(set(more)) == 100
    assert sorted(choose_real(30, 30)) == list(range(30))
    for count in (0, 31):
        with raises(InputError, "input-too-few-images", count=30):
            choose_real(30, count)


class Counting:
    """Counts the images that an extractor receives."""

    def __init__(self, extractor):
        self.__dict__.update(inner=extractor, images=0)

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __call__(self, images, **options):
        self.__dict__["images"] += len(images)
        return self.inner(images, **options)


def test_real_features_are_computed_once(means, tmp_path):
    counting, real = Counting(means), data()
    first = real_features(real, counting, count=150, cache=tmp_path)
    assert counting.images == 150
    assert torch.equal(real_features(real, counting, count=150, cache=tmp_path), first)
    assert counting.images == 150
    (folder,) = tmp_path.iterdir()
    assert [path.name for path in folder.iterdir()] == ["000000.safetensors"]


def test_changes_that_affect_features_recompute_them(means, tmp_path):
    counting = Counting(means)
    real_features(data(), counting, count=100, cache=tmp_path)
    before = counting.images
    real_features(data(seed=1), counting, count=100, cache=tmp_path)
    real_features(data(split="test"), counting, count=100, cache=tmp_path)
    real_features(data(), counting, count=100, precision="bf16", cache=tmp_path)
    means.version = "v2"
    real_features(data(), counting, count=100, cache=tmp_path)
    means.sha256 = "1" * 64
    real_features(data(), counting, count=100, cache=tmp_path)
    assert counting.images - before == 5 * 100


def test_a_change_of_the_resolution_recomputes_features(means, tmp_path):
    counting = Counting(means)
    real = data()
    doubled = ImageData(real.images.repeat(2, axis=2).repeat(2, axis=3), None, "train")
    for each in (real, doubled):
        real_features(each, counting, count=100, cache=tmp_path)
    assert counting.images == 200
    assert len(list(tmp_path.iterdir())) == 2


def test_only_missing_features_are_computed(means, tmp_path, monkeypatch):
    monkeypatch.setattr("cascadezoo.evaluate.real_features.BLOCK", 40)
    counting, real = Counting(means), data()
    whole = means(torch.from_numpy(real.images[choose_real(200, 200)]))
    computed = 0
    for count, more in ((50, 50), (30, 0), (64, 14), (200, 136), (150, 0)):
        features = real_features(real, counting, count=count, cache=tmp_path)
        assert torch.equal(features, whole[:count])
        computed += more
        assert counting.images == computed
    (folder,) = tmp_path.iterdir()
    assert len(list(folder.iterdir())) == 5


def test_an_interrupted_extraction_resumes(means, tmp_path, monkeypatch):
    monkeypatch.setattr("cascadezoo.evaluate.real_features.BLOCK", 40)

    class Stopping(type(means)):
        seen = 0

        def features(self, images):
            type(self).seen += len(images)
            if self.seen > 100:
                raise KeyboardInterrupt
            return super().features(images)

    with pytest.raises(KeyboardInterrupt):
        real_features(data(), Stopping(), cache=tmp_path)
    counting = Counting(means)
    real_features(data(), counting, cache=tmp_path)
    assert counting.images == 200 - 80


def test_an_extractor_name_with_characters_that_a_file_name_may_not_have(means, tmp_path):
    means.name = "timm:../org/../net.v1"
    real_features(data(), means, cache=tmp_path)
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("timm-..-org-..-net.v1-")


def test_statistics_of_all_real_images_are_streamed_and_cached(means, tmp_path, monkeypatch):
    monkeypatch.setattr("cascadezoo.evaluate.real_features.BLOCK", 64)
    real, counting = data(), Counting(means)
    features = means(torch.from_numpy(real.images)).double()
    # Features that a KID has cached are not computed again.
    real_features(real, counting, count=70, cache=tmp_path)
    for _ in range(2):
        statistics = real_statistics(real, counting, cache=tmp_path)
        assert counting.images == 200
        assert statistics.count == 200
        torch.testing.assert_close(statistics.mean, features.mean(dim=0))
        torch.testing.assert_close(statistics.covariance, torch.cov(features.T))
    (folder,) = tmp_path.iterdir()
    torch.save("torn", folder / "statistics.safetensors")
    assert torch.equal(real_statistics(real, counting, cache=tmp_path).mean, statistics.mean)
    assert counting.images == 200


def test_very_large_features_are_not_cached(means, tmp_path, monkeypatch):
    monkeypatch.setattr("cascadezoo.evaluate.real_features.KEPT_BYTES", 200 * 12 * 4 - 1)
    real_statistics(data(), means, cache=tmp_path)
    (folder,) = tmp_path.iterdir()
    assert [path.name for path in folder.iterdir()] == ["statistics.safetensors"]


@pytest.mark.parametrize("content", [b"", b"torn", b"\x10\0\0\0\0\0\0\0{"])
def test_a_damaged_cache_file_is_replaced_with_a_warning(means, tmp_path, content, caplog):
    whole = real_features(data(), means, cache=tmp_path)
    (path,) = tmp_path.glob("*/*")
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "cascadezoo"):
        assert torch.equal(real_features(data(), means, cache=tmp_path), whole)
    assert str(path) in caplog.text
    counting = Counting(means)
    real_features(data(), counting, cache=tmp_path)
    assert counting.images == 0


def test_a_cache_that_cannot_be_written_is_a_warning(means, tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert len(real_features(data(), means, cache=blocked)) == 200
    assert str(blocked) in caplog.text


@pytest.mark.slow
def test_kid_of_real_images_is_about_zero(cifar10):
    real = ImageData(cifar10["train"][:6000].numpy(), None, "train")
    test = cifar10["test"][:1000].float() / 127.5 - 1
    extractor = load_extractor("small")
    figure = evaluate_kid(
        lambda first, count: test[first : first + count],
        real,
        EvaluationOptions(n=1000, subsets=50, subset_size=500),
        extractor=extractor,
        n_real=5000,
    )
    assert figure.name == "kid.small.n1000"
    assert figure.n_real == 5000
    assert abs(figure.value) < 3 * figure.std


def test_psnr():
    from torchmetrics.functional.image import peak_signal_noise_ratio

    truth = torch.rand(4, 3, 8, 8) * 2 - 1
    images = (truth + 0.1 * torch.randn_like(truth)).clamp(-1, 1)
    each = [
        peak_signal_noise_ratio(i, t, data_range=2.0) for i, t in zip(images, truth, strict=True)
    ]
    torch.testing.assert_close(psnr(images, truth), torch.stack(each))
    assert psnr(truth, truth).isinf().all()
    with raises(InputError, "input-images-unlike"):
        psnr(images, truth[:2])
