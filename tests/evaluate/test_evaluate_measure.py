"""Several metrics in one evaluation, of a real cascade and of counted samplers."""

from __future__ import annotations

import pytest
import torch
from errors_help import check_error, raises

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.split import load_split
from cascadezoo.errors import InputError, StoppedError, UnknownNameError
from cascadezoo.evaluate.evaluate_metrics import Subject, evaluate_metrics
from cascadezoo.evaluate.features.moments import Statistics
from cascadezoo.evaluate.metrics.fid import frechet_distance
from cascadezoo.evaluate.metrics.kid import kernel_inception_distance
from cascadezoo.evaluate.options import EvaluationOptions
from cascadezoo.evaluate.real_features import choose_real
from cascadezoo.evaluate.samples import Samples
from cascadezoo.spec import load_spec

ON_FEATURES = ["kid", "fid", "inception-score", "precision", "recall"]


@pytest.fixture(scope="module")
def cascade():
    return Cascade.from_pretrained("shapes-tiny").eval()


@pytest.fixture(scope="module")
def splits():
    resolved = load_spec("shapes-tiny")
    return {split: load_split(resolved, split) for split in ("train", "test")}


class Sampler:
    """Draws real training images and counts them; ``fault`` replaces image 40."""

    def __init__(self, data, fault=None):
        self.images = torch.from_numpy(data.images).float() / 127.5 - 1
        self.fault = fault
        self.drawn = []

    def __call__(self, first, count):
        self.drawn += range(first, first + count)
        if self.fault is not None and first <= 40 < first + count:
            if isinstance(self.fault, BaseException):
                raise self.fault
            return self.images[first : first + count] * self.fault
        return self.images[first : first + count]


@pytest.fixture
def subject(cascade, splits):
    def make(split="train", **options):
        sampler = Sampler(splits["train"], **options)
        return Subject(
            cascade=cascade, real=splits[split], split=splits.__getitem__, sample=sampler
        )

    return make


@pytest.mark.slow
def test_all_metrics_on_features_of_a_real_cascade(cascade, splits, means, monkeypatch):
    monkeypatch.setattr(type(means), "logits", lambda self, features: 9 * features, raising=False)
    extractor = means
    whole = Subject(cascade=cascade, real=splits["test"], split=splits.__getitem__)
    figures = evaluate_metrics(
        ON_FEATURES,
        whole,
        EvaluationOptions(n=48, seed=3, subsets=5, subset_size=24),
        extractor=extractor,
    )
    *figures, speed = figures
    assert [figure.name for figure in figures] == [
        "kid.means.n48.test",
        "fid.means.n48.test",
        "inception-score.means.n48",
        "precision.means.n48.test",
        "recall.means.n48.test",
    ]
    assert (speed.metric, speed.n) == ("images-per-second", 48)
    kid, fid, score, precision, _ = figures
    images = cascade.sample(48, seed=3)
    real = splits["test"]
    generated = extractor(images)
    features = extractor(torch.from_numpy(real.images[choose_real(len(real), 48)]))
    expected = kernel_inception_distance(generated, features, subsets=5, subset_size=24, seed=3)
    assert kid.value == pytest.approx(expected.mean, rel=1e-2)
    everything = Statistics.of(extractor(torch.from_numpy(real.images)))
    assert fid.value == pytest.approx(frechet_distance(generated, everything).value, rel=1e-2)
    assert (kid.n_real, fid.n_real, precision.n_real) == (48, len(real), 48)
    assert kid.data_digest == fid.data_digest == real.digest
    assert (score.n_real, score.split, score.data_digest) == (None, None, None)
    assert kid.tolerance == kid.std
    assert fid.tolerance == pytest.approx(8**0.5 * fid.std)
    assert all(figure.seconds > 0 and figure.sampling_seconds > 0 for figure in figures)


def test_images_are_drawn_once(subject, means):
    counted = subject()
    figures = evaluate_metrics(
        [*ON_FEATURES[:2], *ON_FEATURES[3:]],
        counted,
        EvaluationOptions(n=100, subsets=3, subset_size=50, batch_size=33),
        extractor=means,
    )
    assert counted.sample.drawn == list(range(100))
    assert [figure.n for figure in figures] == [100] * 5


def test_impossible_measurements_are_refused_before_sampling(subject, means):
    for name, n, error in (
        (
            "fid",
            12,
            {"code": "input-too-few-images", "which": "generated", "count": 12, "needed": 13},
        ),
        ("kid", 12, {"code": "input-too-few-images", "subset_size": 1000, "n": 12}),
        ("inception-score", 12, {"code": "input-too-few-images", "needed": 20}),
        ("inception-score", 30, {"code": "input-no-classifier"}),
    ):
        counted = subject()
        with raises(InputError, **error):
            evaluate_metrics(
                [name], counted, EvaluationOptions(n=n, subset_size=1000), extractor=means
            )
        assert counted.sample.drawn == []


def test_other_metrics_are_measured_after_a_problem(subject, means):
    counted, problems = subject(), {}
    figures = evaluate_metrics(
        ON_FEATURES,
        counted,
        EvaluationOptions(n=12, subsets=2, subset_size=6),
        extractor=means,
        on_problem=problems.__setitem__,
    )
    names = ["kid", "precision", "recall", "images-per-second"]
    assert [figure.metric for figure in figures] == names
    assert set(problems) == {"fid", "inception-score"}
    check_error(problems["fid"], InputError, "input-too-few-images", which="generated", needed=13)
    assert counted.sample.drawn == list(range(12))


def test_too_few_real_images_for_a_covariance(subject, splits, means, cascade):
    few = splits["test"]
    few = type(few)(few.images[:12], None, "test")
    counted = Subject(
        cascade=cascade, real=few, split=splits.__getitem__, sample=Sampler(splits["train"])
    )
    with raises(InputError, "input-too-few-images", which="real", count=12, needed=13):
        evaluate_metrics(["fid"], counted, EvaluationOptions(n=50), extractor=means)


def test_a_diverged_model_fails_every_metric_and_is_drawn_once(subject, means):
    counted, problems = subject(fault=float("nan")), {}
    figures = evaluate_metrics(
        ["kid", "fid", "recall"],
        counted,
        EvaluationOptions(n=60, subset_size=20, batch_size=10),
        extractor=means,
        on_problem=problems.__setitem__,
    )
    assert list(problems) == ["kid", "fid", "recall"]
    for error in problems.values():
        check_error(error, InputError, "input-images-not-finite", count=10, total=10)
    assert counted.sample.drawn == list(range(50))
    assert [figure.metric for figure in figures] == ["images-per-second"]


def test_an_error_of_the_sampler_is_not_blamed_on_the_metric(subject, means):
    fault = RuntimeError("out of memory")
    with pytest.raises(RuntimeError) as caught:
        evaluate_metrics(
            ["kid"],
            subject(fault=fault),
            EvaluationOptions(n=60, subset_size=20),
            extractor=means,
            on_problem=lambda name, error: None,
        )
    assert caught.value is fault


def test_a_stop_is_not_blamed_on_a_metric(subject, means):
    with pytest.raises(StoppedError):
        evaluate_metrics(
            ["kid", "recall"],
            subject(fault=StoppedError("stopped")),
            EvaluationOptions(n=60, subset_size=20),
            extractor=means,
            on_problem=lambda name, error: pytest.fail(f"{name}: {error}"),
        )


def test_an_unknown_metric_is_refused_before_sampling(subject, means):
    counted = subject()
    with raises(UnknownNameError, "lookup", kind="metric", name="kidd"):
        evaluate_metrics(
            ["kid", "kidd"],
            counted,
            EvaluationOptions(),
            extractor=means,
            on_problem=lambda name, error: None,
        )
    assert counted.sample.drawn == []


def batches_of(samples, n):
    return torch.cat(list(samples.batches(n)))


def test_kept_samples_are_drawn_once(splits):
    sampler = Sampler(splits["train"])
    samples = Samples(sampler, splits["train"].images.shape[1:], batch_size=8, keep=True)
    real = torch.from_numpy(splits["train"].images)
    for n, drawn in ((20, 20), (20, 20), (5, 20), (24, 28), (30, 34), (30, 34)):
        assert torch.equal(batches_of(samples, n), real[:n])
        # The short last batch is drawn again only if more of it is requested.
        assert len(sampler.drawn) == samples.drawn == drawn


def test_samples_beyond_the_limit_are_drawn_again(splits):
    shape = splits["train"].images.shape[1:]
    size = shape[0] * shape[1] * shape[2]
    real = torch.from_numpy(splits["train"].images)
    sampler = Sampler(splits["train"])
    samples = Samples(sampler, shape, batch_size=8, keep=True, kept_bytes=17 * size)
    for _ in range(2):
        assert torch.equal(batches_of(samples, 30), real[:30])
    assert len(sampler.drawn) == 30 + 14
    loose = Samples(Sampler(splits["train"]), shape, batch_size=8)
    for _ in range(2):
        batches_of(loose, 30)
    assert loose.drawn == 60


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_figure_records_the_digest_of_its_split(subject, splits, means, split):
    """``memorisation`` always compares with training images."""
    options = EvaluationOptions(n=24, subsets=2, subset_size=8)
    figures = evaluate_metrics(["memorisation", "kid"], subject(split), options, extractor=means)
    copied, _, kid, _ = figures
    assert (copied.name, copied.data_digest) == ("memorisation.means.n24", splits["train"].digest)
    assert (kid.split, kid.data_digest) == (split, splits[split].digest)
