"""``evaluate_model``: figures of a trained model, and metrics that cannot be measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from errors_help import check_error, raises
from measured_cases import change_metrics, copied, figures_of, resealed, untrained

from cascadezoo import Cascade, evaluate_model
from cascadezoo.data.split import load_split
from cascadezoo.errors import (
    DataError,
    InputError,
    ModelError,
    SpecError,
    UnknownNameError,
    WeightsUnavailableError,
)
from cascadezoo.evaluate.bench import LazyExtractor
from cascadezoo.evaluate.evaluate_sampler import evaluate_kid
from cascadezoo.evaluate.features.base import load_extractor
from cascadezoo.evaluate.options import EvaluationOptions
from cascadezoo.model_folder.integrity import check_files
from cascadezoo.model_folder.layout import read_config
from cascadezoo.model_folder.trained_spec import trained_spec
from cascadezoo.plugins.manager import get_registry


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("plain") / "model")


@pytest.fixture(scope="module")
def saved(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copied(plain, tmp_path_factory.mktemp("saved") / "model")
    assert evaluate_model(folder, ["kid", "psnr"], save=True).ok
    return folder


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    return copied(saved, tmp_path / "model")


@pytest.fixture
def damaged_inception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged file in place of the Inception weights, so that nothing is downloaded."""
    from cascadezoo.evaluate.features.inception import WEIGHTS_FILE

    path = tmp_path / "torch" / "hub" / "checkpoints" / WEIGHTS_FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"nothing")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def orphan(tmp_path: Path) -> Path:
    """A model whose data file was moved."""
    images = np.random.default_rng(0).integers(0, 255, (64, 16, 16, 3), np.uint8)
    path = tmp_path / "images.npz"
    labels = np.arange(64) % 2
    np.savez(
        path,
        train_images=images,
        train_labels=labels,
        test_images=images[:32],
        test_labels=labels[:32],
    )
    data = {"source": "npz", "config": {"path": str(path)}}
    folder = untrained(tmp_path / "orphan", data=data)
    path.rename(tmp_path / "moved.npz")
    return folder


def test_the_figure_equals_that_of_evaluate_kid(plain: Path) -> None:
    result = evaluate_model(plain)
    resolved = trained_spec(plain)
    cascade = Cascade.from_pretrained(plain)
    expected = evaluate_kid(
        lambda first, count: cascade.sample(count, first=first, seed=0),
        load_split(resolved, "train"),
        EvaluationOptions(n=40, subsets=8, subset_size=16, batch_size=20),
        extractor=load_extractor("small"),
    )
    kid, speed = result.figures
    assert kid.name == expected.name == "kid.small.n40"
    assert kid.value == pytest.approx(expected.value, abs=1e-6)
    assert kid.data_digest == expected.data_digest
    assert speed.metric == "images-per-second"
    assert (result.ok, result.problems, result.saved) == (True, (), False)
    assert not (plain / "metrics.json").exists()


def test_the_figure_records_the_requested_options(plain: Path) -> None:
    requested: dict[str, Any] = {"n": 20, "seed": 5, "precision": "bf16", "split": "test"}
    result = evaluate_model(plain, ["kid"], extractor="small", **requested)
    figure = result.figures[0]
    assert figure.name == "kid.small-bf16.n20.test"
    assert (figure.n, figure.seed, figure.precision, figure.split) == (20, 5, "bf16", "test")
    assert figure.subset_size == 16
    # n is less than the subset size of the spec, so half of n is used.
    assert evaluate_model(plain, ["kid"], n=12).figures[0].subset_size == 6
    assert (
        evaluate_model(plain, ["kid"], settings=["evaluation.subset_size=9"]).figures[0].subset_size
        == 9
    )


def test_settings_may_change_only_the_data(plain: Path) -> None:
    here = evaluate_model(plain, ["kid"], settings=["data.config.seed=1"]).figures[0]
    assert here.data_digest != evaluate_model(plain, ["kid"]).figures[0].data_digest
    for setting in ("data.size=8", "stages.up.config.blocks=2", "seed=3"):
        with raises(InputError, "input-setting-trained"):
            evaluate_model(plain, settings=[setting])
    with raises(SpecError, "spec", problems={"data.config.nope": "extra-forbidden"}):
        evaluate_model(plain, settings=["data.config.nope=1"])


def test_unknown_names(plain: Path) -> None:
    with raises(UnknownNameError, "lookup", kind="metric", name="kd"):
        evaluate_model(plain, ["kd"])
    with raises(UnknownNameError, "lookup", kind="feature extractor", name="tiny"):
        evaluate_model(plain, extractor="tiny")
    with raises(InputError, "input-no-argument"):
        evaluate_model(plain, ["kid:small"])


def test_a_model_without_its_data(orphan: Path) -> None:
    result = evaluate_model(orphan, "all")
    figures = {figure.metric: figure for figure in result.figures}
    why = {problem.metric: problem.error.what for problem in result.problems}
    assert set(figures) == {"inception-score", "images-per-second"}
    assert figures["inception-score"].data_digest is None
    assert "images.npz" in why["kid"]
    assert set(why) | {"inception-score"} == set(get_registry().metrics.names())
    assert result.ok
    assert not evaluate_model(orphan).ok  # the spec has only kid
    partial = evaluate_model(orphan, ["inception-score", "kid"])
    assert (partial.measured, partial.refused, partial.ok) == (True, ("kid",), False)
    with_data = evaluate_model(orphan, settings=[f"data.config.path={orphan.parent / 'moved.npz'}"])
    assert with_data.figures[0].metric == "kid"


def test_a_dataset_and_a_metric_of_missing_plugins(plain: Path, tmp_path: Path) -> None:
    folder = copied(plain, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["spec"]["data"]["source"] = "sonar"
    config["spec"]["training"]["losses"] = [
        {"kind": "echo", "stage": "up", "weight": 1.0, "config": {}}
    ]
    config["spec"]["evaluation"]["metrics"] = ["loudness", "inception-score", "kid"]
    (folder / "config.json").write_text(json.dumps(config))
    result = evaluate_model(folder)
    errors = {problem.metric: problem.error for problem in result.problems}
    check_error(errors["loudness"], UnknownNameError, "lookup", kind="metric", name="loudness")
    check_error(errors["kid"], DataError, "data-unknown")
    assert "sonar" in errors["kid"].what
    assert result.figures[0].metric == "inception-score"
    assert result.ok


@pytest.mark.usefixtures("damaged_inception")
def test_unavailable_weights(plain: Path) -> None:
    result = evaluate_model(plain, ["psnr", "kid"], extractor="inception")
    assert [figure.metric for figure in result.figures if figure.metric == "psnr"]
    (problem,) = result.problems
    assert isinstance(problem.error, WeightsUnavailableError)
    assert result.refused == ("kid",)


def test_an_extractor_is_loaded_on_first_use() -> None:
    lazy = LazyExtractor("small", torch.device("cpu"))
    assert lazy._loaded is None
    true = load_extractor("small")
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(lazy(images), true(images))
    assert (lazy.sha256, lazy.version, lazy.batch_size) == (
        true.sha256,
        true.version,
        true.batch_size,
    )
    assert torch.equal(lazy.logits(true(images)), true.logits(true(images)))
    assert LazyExtractor("small", torch.device("cpu")).num_features == true.num_features
    with pytest.raises(AttributeError, match="nonsense"):
        _ = lazy.nonsense


def test_saved_figures_replace_those_of_the_same_name(model: Path) -> None:
    before = figures_of(model)
    text = (model / "README.md").read_text()
    (model / "README.md").write_text(text.replace("# measured", "# measured\n\nMy own words."))
    done = evaluate_model(model, ["kid"], n=20, save=True)
    after = figures_of(model)
    assert done.saved
    assert set(after) - set(before) == {"kid.small.n20", "images-per-second.n20"}
    assert {k: v for k, v in after.items() if k in before} == before
    config = read_config(model)
    check_files(model, config, list(config.files))
    card = (model / "README.md").read_text()
    assert "My own words." in card
    assert "| `kid.small.n20` |" in card
    assert Cascade.from_pretrained(model).names == ["coarse", "up"]
    # A figure of the same name is replaced.
    evaluate_model(model, ["kid"], n=20, seed=7, save=True)
    assert list(figures_of(model)) == list(after)
    assert figures_of(model)["kid.small.n20"]["seed"] == 7


def test_edited_blocks_are_kept_and_reported(model: Path) -> None:
    text = (model / "README.md").read_text()
    end = "<!-- cascadezoo:end limits -->"
    (model / "README.md").write_text(text.replace(end, f"My own words.\n{end}"))
    done = evaluate_model(model, ["kid"], n=20, save=True)
    assert done.kept == ("limits",)
    assert "My own words." in (model / "README.md").read_text()


def test_the_record_of_a_first_evaluation(saved: Path) -> None:
    data = json.loads((saved / "metrics.json").read_text())
    assert data["spec_digest"] == read_config(saved).spec_digest
    assert [row["name"] for row in data["stages"]] == ["coarse", "up"]
    assert all(row["flops"] > 0 and row["parameters"] > 0 for row in data["stages"])
    assert "training" in data


def test_problems_are_recorded_without_the_path_of_the_home_folder(
    orphan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(orphan.parent))
    done = evaluate_model(orphan, ["kid", "inception-score"], save=True)
    assert done.saved
    (row,) = json.loads((orphan / "metrics.json").read_text())["problems"]
    assert row["metric"] == "kid"
    assert str(orphan.parent) not in row["why"]
    assert "~/images.npz" in row["why"]
    assert "~/images.npz" in (orphan / "README.md").read_text()
    # The problem disappears once the metric is measured.
    evaluate_model(
        orphan, ["kid"], settings=[f"data.config.path={orphan.parent / 'moved.npz'}"], save=True
    )
    assert "problems" not in json.loads((orphan / "metrics.json").read_text())


def test_read_only_models(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with raises(InputError, "input-model-read-only") as caught:
        evaluate_model("shapes-tiny", save=True)
    assert caught.value.hint is not None
    assert "cascadezoo pull shapes-tiny --to" in caught.value.hint
    snapshot = tmp_path / "models--org--x" / "snapshots" / ("a" * 40)
    copied(model, snapshot)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with raises(InputError, "input-model-read-only"):
        evaluate_model(snapshot, save=True)


def test_a_damaged_model_is_not_sealed_again(model: Path) -> None:
    change_metrics(model, lambda data: data["figures"][0].update(value=0.0), reseal=False)
    with raises(ModelError, "model-damaged"):
        evaluate_model(model, save=True)
    resealed(model)
    assert evaluate_model(model, save=True).saved


def test_stages(model: Path) -> None:
    result = evaluate_model(model, stages=True, n=24, save=True)
    assert result.attribution is not None
    coarse, up = result.attribution
    assert (coarse.stage, coarse.real, up.stage) == ("coarse", None, "up")
    assert up.mismatch is not None
    assert result.advice
    assert [f.metric for f in result.figures] == []
    data = json.loads((model / "metrics.json").read_text())
    assert [row["stage"] for row in data["attribution"]] == ["coarse", "up"]
    card = (model / "README.md").read_text()
    assert "cascadezoo evaluate path/to/measured --stages --extractor small -n 24 --seed 0" in card
