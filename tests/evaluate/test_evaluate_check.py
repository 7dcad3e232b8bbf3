"""Figures of a card, computed again: what holds, what does not, and what was tampered with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from errors_help import raises
from hypothesis import given
from hypothesis import strategies as st
from measured_cases import change_metrics, copied, figures_of, resealed, untrained
from safetensors.torch import load_file, save_file

from cascadezoo import check_model, evaluate_model
from cascadezoo.errors import InputError, ModelError
from cascadezoo.evaluate.card_check import CheckReport, _groups, compare
from cascadezoo.evaluate.metrics.kid import usual_subset_size
from cascadezoo.evaluate.options import evaluation_options
from cascadezoo.model_folder.figures import Figure, figure_name
from cascadezoo.spec.models import EvaluationSpec

METRICS = ["kid", "fid", "psnr", "inception-score"]
KID = "kid.small.n40"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = untrained(tmp_path_factory.mktemp("checked") / "model")
    assert evaluate_model(folder, METRICS, save=True).measured
    evaluate_model(folder, ["kid"], n=24, seed=3, split="test", save=True)
    return folder


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    return copied(saved, tmp_path / "model")


def row(report: CheckReport, name: str) -> Any:
    return next(row for row in report.rows if row.name == name)


def figure(value: float = 1.0, **changes: Any) -> Figure:
    fields: dict[str, Any] = {"metric": "kid", "n": 10, "extractor": "small", "precision": "fp32"}
    fields |= {"seed": 0, "value": value, **changes}
    name = figure_name(fields["metric"], fields["n"], fields["extractor"], fields["precision"])
    return Figure(name=name, **fields)


def test_what_was_measured_holds(saved: Path) -> None:
    report = check_model(saved)
    assert report.ok, report
    assert [row.name for row in report.rows] == list(figures_of(saved))
    for found in report.rows:
        if found.name.startswith("images-per-second"):
            assert found.holds is None
            assert "the machine" in found.reason
        else:
            assert found.holds is True
            assert abs(found.difference) <= 1e-5 * max(1.0, abs(found.stated))
    assert row(report, "kid.small.n24.test").holds
    assert report.to_dict()["ok"] is True


def test_only_some_metrics(saved: Path) -> None:
    report = check_model(saved, ["psnr"])
    assert {row.name.partition(".")[0] for row in report.rows} == {"psnr"}
    with raises(InputError, "input-no-figure"):
        check_model(saved, ["diversity"])


def test_a_changed_figure_is_named_whether_it_was_sealed_again_or_not(model: Path) -> None:
    true = figures_of(model)[KID]["value"]

    def lower(data: dict[str, Any]) -> None:
        data["figures"][0]["value"] = true - 10 * data["figures"][0]["std"]

    change_metrics(model, lower, reseal=False)
    report = check_model(model, ["kid"])
    assert [r.name for r in report.failed] == [KID]
    assert row(report, KID).measured == pytest.approx(true)
    assert "more than the tolerance" in row(report, KID).reason
    assert report.faults[0].startswith("metrics.json is not what was sealed")
    resealed(model)
    report = check_model(model, ["kid"])
    assert [r.name for r in report.failed] == [KID]
    # The card still claims the true value, which is no longer in metrics.json.
    assert all(fault.startswith("README.md: ") for fault in report.faults)
    assert len(report.faults) == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tolerance": 1000.0}, "the card's tolerance is 1000 and the recomputed one"),
        ({"std": 1000.0}, "the card's spread is 1000 and the recomputed one"),
        ({"data_digest": "0" * 64}, "not compared: the digest of the real images is"),
        ({"extractor_sha256": "0" * 64}, "not compared: the extractor's digest is"),
        ({"extractor_version": "v0"}, "not compared: the extractor's version is"),
        ({"resolution": 32}, "not compared: the resolution is 16 here and 32 on the card"),
        ({"seed": 1}, "differs by"),
        ({"subset_size": 41}, "cannot be measured here"),
    ],
)
def test_what_a_record_says_is_not_believed(
    model: Path, change: dict[str, Any], reason: str
) -> None:
    changed = {"tolerance": 1e-9, **change}
    change_metrics(model, lambda data: data["figures"][0].update(changed))
    report = check_model(model, ["kid"])
    assert reason in row(report, KID).reason
    assert not report.ok


def test_a_record_without_a_tolerance_takes_its_spread(model: Path) -> None:
    def older(data: dict[str, Any]) -> None:
        for figure in data["figures"]:
            figure.pop("tolerance", None)
        data["figures"][0]["value"] += 0.5 * data["figures"][0]["std"]

    change_metrics(model, older)
    report = check_model(model)
    assert row(report, KID).tolerance == figures_of(model)[KID]["std"]
    assert row(report, KID).holds
    assert not report.failed


def test_other_data_than_the_cards_are_said_and_not_compared(saved: Path) -> None:
    report = check_model(saved, ["kid"], settings=["data.config.seed=1"])
    assert row(report, KID).measured is None
    assert "the digest of the real images" in row(report, KID).reason
    assert not report.ok


def test_changed_weights_are_named_and_not_loaded(model: Path) -> None:
    path = model / "stages/up/model.safetensors"
    tensors = load_file(path)
    save_file({name: 0.5 * tensor for name, tensor in tensors.items()}, path)
    report = check_model(model)
    assert report.faults[0].startswith("stages/up/model.safetensors is not what was sealed")
    assert {r.measured for r in report.rows} == {None}
    # Sealed again, the weights are loaded and the figures tell.
    resealed(model)
    report = check_model(model)
    assert not report.faults
    assert KID in [r.name for r in report.failed]


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', "\xff"])
def test_metrics_that_cannot_be_understood(model: Path, text: str) -> None:
    (model / "metrics.json").write_bytes(text.encode("latin-1"))
    report = check_model(model)
    assert not report.ok
    assert "metrics.json" in " ".join(report.faults)
    assert report.rows == ()


def test_another_models_metrics(model: Path) -> None:
    change_metrics(model, lambda data: data.update(spec_digest="0" * 64))
    assert "metrics.json is of another spec" in check_model(model, ["psnr"]).faults[0]


def test_a_model_without_figures(tmp_path: Path) -> None:
    with raises(ModelError, "model-no-metrics"):
        check_model(untrained(tmp_path / "model"))


def claimed(model: Path, change: Callable[[str], str]) -> list[str]:
    path = model / "README.md"
    before = path.read_text()
    assert change(before) != before
    path.write_text(change(before))
    resealed(model)
    return list(check_model(model, ["psnr"]).faults)


def test_a_card_that_claims_more_than_there_is(model: Path) -> None:
    text = (model / "README.md").read_text()
    value = next(line for line in text.splitlines() if line.startswith(f"| `{KID}`")).split(" | ")[
        2
    ]
    (fault,) = claimed(model, lambda t: t.replace(value, "0.01 +- 0.01 x 10^-3"))
    assert KID in fault
    assert "0.01 +- 0.01 x 10^-3" in fault


def test_a_card_that_claims_what_there_is_not(model: Path) -> None:
    line = "| `fid.inception.n50000` | FID | 1.79 | measured by nobody |\n"
    (fault,) = claimed(model, lambda t: t.replace("| `psnr", f"{line}| `psnr", 1))
    assert "fid.inception.n50000" in fault


def test_front_matter_that_claims_another_number(model: Path) -> None:
    value = repr(figures_of(model)[KID]["value"])
    faults = claimed(model, lambda t: t.replace(f"value: {value}", "value: 0.001", 1))
    assert [KID in fault and "model-index" in fault for fault in faults] == [True]
    faults = claimed(model, lambda t: t.replace("n: 40", "n: 50000", 1))
    assert any("says n 50000" in fault for fault in faults)


def test_a_cards_text_is_anyones_and_its_figures_are_not(model: Path) -> None:
    path = model / "README.md"
    path.write_text(path.read_text() + "\nmine\n")
    assert check_model(model, ["psnr"]).ok
    path.write_text(path.read_text().replace("n: 40", "n: 50000", 1))
    assert any("says n 50000" in fault for fault in check_model(model, ["psnr"]).faults)


def test_stages_are_checked_where_that_is_asked(model: Path) -> None:
    evaluate_model(model, stages=True, n=24, save=True)
    names = {row.name for row in check_model(model, ["psnr"]).rows}
    report = check_model(model, ["psnr"], stages=True)
    more = {row.name: row for row in report.rows if row.name not in names}
    assert set(more) == {
        f"kid.small.n24.{s}" for s in ("coarse-generated", "up-real", "up-generated")
    }
    assert all(row.holds for row in more.values())

    def better(data: dict[str, Any]) -> None:
        data["attribution"][1]["generated"]["value"] = 0.0

    change_metrics(model, better)
    report = check_model(model, ["psnr"], stages=True)
    assert [row.name for row in report.failed] == ["kid.small.n24.up-generated"]
    assert any("table of stages" in fault for fault in report.faults)


def test_tuned_figures(model: Path) -> None:
    """A search measures with the settings that the model now has, and marks the figures before."""

    def tuned(data: dict[str, Any]) -> None:
        kid = data["figures"][0]
        new = {**kid, "name": f"{KID}.tuned"}
        kid["note"] = "measured before the sampling defaults were tuned"
        data["figures"].insert(0, new)

    change_metrics(model, tuned)
    report = check_model(model, ["kid"])
    assert row(report, f"{KID}.tuned").holds is True
    assert row(report, KID).holds is None


def test_figures_of_the_same_images_are_measured_together() -> None:
    rows = [
        figure(metric="fid"),
        figure(metric="kid", subsets=4, subset_size=5),
        figure(metric="psnr", extractor=None, precision=None),
        figure(metric="psnr", extractor=None, precision=None, seed=1),
        figure(metric="fid", extractor="inception"),
        figure(metric="fid", split="test"),
    ]
    usual = evaluation_options(EvaluationSpec(samples=2000), batch_size=7)
    groups = [[f.name for f in figures] for _, figures in _groups(rows, usual)]
    assert groups[0] == ["kid.small.n10", "fid.small.n10", "psnr.n10"]
    assert sorted(map(len, groups)) == [1, 1, 1, 3]
    asked = _groups(rows, usual)[0][0]
    assert (asked.subsets, asked.subset_size, asked.batch_size) == (4, 5, 7)


numbers = st.floats(-1e3, 1e3)
spreads = st.floats(1e-3, 10)


@given(numbers, numbers, spreads)
def test_a_figure_holds_within_its_tolerance(stated: float, found: float, spread: float) -> None:
    row = compare(figure(stated, std=spread), figure(found, std=spread))
    distance, rounding = abs(found - stated), 1e-5 * max(abs(found), abs(stated)) + 1e-9
    assert row.holds is (distance <= spread + rounding)
    assert row.difference == found - stated
    assert (row.reason == "") is row.holds


@given(numbers, spreads, st.floats(1.0, 20.0))
def test_a_tolerance_is_absurd_beyond_three_times(
    value: float, spread: float, times: float
) -> None:
    row = compare(figure(value, std=spread, tolerance=times * spread), figure(value, std=spread))
    rounding = 1e-5 * abs(value) + 1e-9
    assert row.holds is (times * spread <= 3 * spread + rounding)


def test_usual_subsets_are_found_again() -> None:
    assert usual_subset_size(24, 24) == 12
