from __future__ import annotations

import gc

import pytest
import torch
import torch.nn.functional as F
from errors_help import raises
from toy_cascades import bicubic, cascade_inputs, noise, same, smooth, spec, subject, toy

from cascadezoo import Cascade, load_spec
from cascadezoo.data.pixels import to_float, to_uint8
from cascadezoo.errors import InputError, WeightsUnavailableError
from cascadezoo.evaluate.configs import LpipsMetricConfig
from cascadezoo.evaluate.evaluate_metrics import evaluate_metrics
from cascadezoo.evaluate.metrics.mean_scores import mean_of, share_of
from cascadezoo.evaluate.metrics.reconstruction import (
    MAX_PSNR,
    _Enlarged,
    measure_lpips,
    measure_psnr,
    measure_ssim,
)
from cascadezoo.evaluate.options import EvaluationOptions
from cascadezoo.evaluate.partial_cascades import RealFeed, upto
from cascadezoo.evaluate.real_features import choose_real
from cascadezoo.spec.configs import EmptyConfig

REAL = smooth(60)
PLAIN = EmptyConfig()


@pytest.fixture(scope="module")
def cascade():
    return toy(spec(), noise, bicubic, same)


def truth_and_bicubic(n):
    """Real images and their bicubic enlargements, as 8-bit images."""
    rows = choose_real(len(REAL), n)
    truth = torch.from_numpy(REAL.images[rows])
    small = F.interpolate(to_float(truth), (8, 8), mode="area")
    large = F.interpolate(small, (16, 16), mode="bicubic").clamp(-1, 1)
    return truth, to_uint8(large)


def test_psnr_is_that_of_torchmetrics_on_bytes(cascade, means):
    from torchmetrics.functional.image import peak_signal_noise_ratio

    results = measure_psnr(PLAIN, cascade_inputs(cascade, means, REAL, n=20))
    assert list(results) == ["", "up", "refine", "bicubic"]
    each = torch.stack(
        [
            peak_signal_noise_ratio(image.float(), truth.float(), data_range=255.0)
            for truth, image in zip(*truth_and_bicubic(20), strict=True)
        ]
    )
    for part in ("", "up", "bicubic"):
        assert results[part].value == pytest.approx(float(each.mean()), rel=1e-6)
        assert results[part].std == pytest.approx(float(each.std()) / 20**0.5, rel=1e-4)
        assert (results[part].n, results[part].n_real, results[part].unit) == (20, 20, "dB")
        assert results[part].tolerance > 2 * results[part].std
    assert "3x8x8" in results[""].note
    assert "up, refine" in results[""].note


def test_an_identity_stage_has_the_maximum_psnr(cascade, means):
    refine = measure_psnr(PLAIN, cascade_inputs(cascade, means, REAL, n=10))["refine"]
    assert refine.value == pytest.approx(MAX_PSNR, rel=1e-6)
    assert refine.tolerance == 0.01
    assert measure_ssim(PLAIN, cascade_inputs(cascade, means, REAL, n=10))["refine"].value == 1


def test_a_known_error_gives_the_known_psnr(means):
    cascade = toy(spec(), noise, bicubic, lambda upstream, _: upstream * 0 + 100 / 127.5 - 1)
    grey = smooth(12)
    grey.images[:] = 90
    results = measure_psnr(PLAIN, cascade_inputs(cascade, means, grey, n=12))
    assert results["refine"].value == pytest.approx(28.1308, abs=1e-3)  # 20 log10(255 / 10)
    assert results[""].value == results["refine"].value
    assert results["up"].value == pytest.approx(MAX_PSNR, rel=1e-6)


def test_ssim_is_that_of_torchmetrics_on_bytes(cascade, means):
    from torchmetrics.functional.image import structural_similarity_index_measure

    results = measure_ssim(PLAIN, cascade_inputs(cascade, means, REAL, n=20, batch_size=7))
    truth, large = truth_and_bicubic(20)
    reference = structural_similarity_index_measure(
        large.float(), truth.float(), data_range=255.0, sigma=1.5
    )
    for part in ("", "up", "bicubic"):
        assert results[part].value == pytest.approx(float(reference), rel=1e-5)


def test_batch_size_and_seed_do_not_change_psnr(cascade, means):
    values = {
        measure_psnr(PLAIN, cascade_inputs(cascade, means, REAL, n=20, batch_size=b, seed=s))[
            "up"
        ].value
        for b, s in ((1, 0), (7, 0), (20, 3), (64, 9))
    }
    assert max(values) - min(values) < 1e-6


def test_stages_get_true_input_and_its_labels(means):
    cascade = toy(spec(), noise, bicubic, same)
    measure_psnr(PLAIN, cascade_inputs(cascade, means, REAL, n=30, batch_size=30))
    rows = choose_real(60, 30)
    truth = to_float(torch.from_numpy(REAL.images[rows]))
    assert cascade.stage("coarse").inputs == []
    whole, single = cascade.stage("up").inputs
    for upstream, labels in (whole, single):
        torch.testing.assert_close(upstream, F.interpolate(truth, (8, 8), mode="area"))
        assert labels.tolist() == REAL.labels[rows].tolist()
    (_, (upstream, _)) = cascade.stage("refine").inputs
    torch.testing.assert_close(upstream, truth)


def test_metrics_of_one_evaluation_share_the_images(means):
    cascade = toy(spec(), noise, bicubic, same)
    known = len(_Enlarged._known)
    figures = evaluate_metrics(
        ["psnr", "ssim"],
        subject(cascade, REAL),
        EvaluationOptions(n=20, batch_size=20),
        extractor=means,
    )
    assert [f.name for f in figures] == [
        f"{m}.n20{p}" for m in ("psnr", "ssim") for p in ("", ".up", ".refine", ".bicubic")
    ]
    assert len(cascade.stage("up").inputs) == 2
    assert figures[0].extractor is None
    assert figures[0].data_digest == REAL.digest
    gc.collect()
    assert len(_Enlarged._known) == known
    one = cascade_inputs(cascade, means, REAL, n=20, batch_size=20)
    measure_psnr(PLAIN, one)
    before = len(cascade.stage("up").inputs)
    measure_ssim(PLAIN, one)
    assert len(cascade.stage("up").inputs) == before


def test_more_images_than_the_dataset_has(cascade, means):
    (figure, *_) = evaluate_metrics(
        ["psnr"], subject(cascade, REAL), EvaluationOptions(n=1000), extractor=means
    )
    assert (figure.name, figure.n_real) == ("psnr.n60", 60)


def test_a_single_stage_is_the_whole_chain(means):
    cascade = toy(spec(refine=False), noise, bicubic)
    results = measure_psnr(PLAIN, cascade_inputs(cascade, means, REAL, n=20, batch_size=20))
    assert results[""].value == results["up"].value
    assert len(cascade.stage("up").inputs) == 1


def test_a_stage_called_bicubic(means):
    data = spec(refine=False)
    data["stages"][1]["name"] = "bicubic"
    cascade = toy(data, noise, lambda upstream, _: F.interpolate(upstream, (16, 16)))
    results = measure_psnr(PLAIN, cascade_inputs(cascade, means, REAL, n=20))
    assert list(results) == ["", "bicubic", "plain.bicubic"]
    assert results["bicubic"].value < results["plain.bicubic"].value


def test_a_cascade_with_only_a_generator(means):
    data = spec(refine=False)
    del data["stages"][1]
    cascade = toy(data, lambda _, r: r.draw.randn(r.count, 3, 16, 16))
    for measure in (measure_psnr, measure_ssim):
        with raises(InputError, "input-generator-alone", name="toy"):
            measure(PLAIN, cascade_inputs(cascade, means, REAL, n=20))


def test_images_too_small_for_ssim(means):
    tiny = smooth(20, 8)
    cascade = toy(spec(8, refine=False), noise, bicubic)
    with raises(InputError, "input-images-too-small", size=8):
        measure_ssim(PLAIN, cascade_inputs(cascade, means, tiny, n=20))
    data = spec(16, refine=False)
    data["stages"].insert(1, {**data["stages"][1], "name": "first"})
    cascade = toy(data, noise, bicubic, bicubic)
    results = measure_ssim(PLAIN, cascade_inputs(cascade, means, REAL, n=20))
    assert list(results) == ["", "up", "bicubic"]
    assert "first" in results[""].note


def test_latents_are_left_out_but_decoders_are_measured(means):
    data = spec()
    data["stages"] = [
        {**data["stages"][0], "config": {"channels": 8, "multipliers": [1], "steps": 1}},
        {
            "name": "decode",
            "kind": "autoencoder.v1",
            "config": {"channels": 8, "multipliers": [1, 1]},
        },
    ]
    cascade = Cascade.from_spec(load_spec(data)).eval()
    results = measure_psnr(PLAIN, cascade_inputs(cascade, means, REAL, n=8))
    assert list(results) == ["", "decode"]
    assert "latents" in results[""].note
    assert results["decode"].value == results[""].value > 0


def test_cut_cascades_share_stages_and_keep_their_mode(cascade):
    cut = upto(cascade, "up")
    assert cut.names == ["coarse", "up"]
    assert cut.stage("up") is cascade.stage("up")
    assert upto(cascade, "refine") is cascade
    cut.sample(2)
    assert not any(module.training for module in cascade.modules())
    whole = cascade.sample(3, return_stages=True)
    assert torch.equal(cut.sample(3), whole["up"])


def test_real_feed_uses_image_numbers(cascade):
    feed = RealFeed(cascade, REAL, choose_real(60, 60), 0)
    whole = feed.run("up", "refine", 0, 10)
    torch.testing.assert_close(feed.run("up", "refine", 4, 3), whole[4:7])
    assert feed.targets("coarse", 5, 2).shape == (2, 3, 8, 8)
    torch.testing.assert_close(feed.upstream("refine", 5, 2), feed.images(5, 2))


def test_spreads_of_means_and_shares():
    values = torch.tensor([1.0, 2.0, 3.0, 6.0])
    mean = mean_of(values, unit="dB")
    assert (mean.value, mean.unit) == (3.0, "dB")
    assert mean.std == pytest.approx(float(values.std()) / 2)
    assert mean_of(values[:1]).std is None
    assert mean_of(values * 0, min_tolerance=0.5).tolerance == 0.5
    share = share_of(torch.tensor([True] * 50))
    assert share.value == 1
    assert 0.01 < share.std < 0.05


def test_lpips_without_weights(cascade, means, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with raises(WeightsUnavailableError, "weights-unavailable", name="alex") as caught:
        measure_lpips(LpipsMetricConfig(net="alex"), cascade_inputs(cascade, means, REAL, n=8))
    assert "TORCH_HOME" in str(caught.value.hint)
    assert "lpips:vgg" in str(caught.value.hint)


@pytest.mark.filterwarnings("ignore:The parameter 'pretrained'", "ignore:Arguments other than")
def test_lpips_equals_the_lpips_package(cascade, means, torch_home):
    import lpips

    figures = evaluate_metrics(
        ["lpips:vgg"],
        subject(cascade, REAL),
        EvaluationOptions(n=20, batch_size=16),
        extractor=means,
    )
    names = [f.name for f in figures]
    assert names == [f"lpips.vgg.n20{part}" for part in ("", ".up", ".refine", ".bicubic")]
    truth, large = truth_and_bicubic(20)
    with torch.no_grad():
        each = lpips.LPIPS(net="vgg", verbose=False)(to_float(large), to_float(truth)).flatten()
    assert figures[0].value == pytest.approx(float(each.mean()), rel=1e-5)
    assert figures[3].value == pytest.approx(float(each.mean()), rel=1e-5)
    assert figures[2].value == pytest.approx(0, abs=1e-6)
    assert figures[0].extractor_version == "0.1"
    assert len(figures[0].extractor_sha256) == 64


def test_images_too_small_for_a_backbone(means, torch_home):
    cascade = toy(spec(8, refine=False), noise, bicubic)
    with raises(InputError, "input-images-too-small", size=8, name="vgg"):
        measure_lpips(LpipsMetricConfig(), cascade_inputs(cascade, means, smooth(9, 8), n=8))
