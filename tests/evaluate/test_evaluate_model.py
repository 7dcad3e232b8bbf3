"""Measuring a trained model: what can be measured is, and the rest is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from errors_help import raises
from measured_cases import change_metrics, copied, figures_of, resealed, untrained

from cascadezoo import Cascade, evaluate_model
from cascadezoo.data.split import load_split
from cascadezoo.errors import (
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
    """A file in the place of Inception's weights, so that nothing is downloaded."""
    from cascadezoo.evaluate.features.inception import WEIGHTS_FILE

    path = tmp_path / "torch" / "hub" / "checkpoints" / WEIGHTS_FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"nothing")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def orphan(tmp_path: Path) -> Path:
    """A model whose data were there when it was made."""
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


def test_the_figure_is_the_one_of_evaluate_kid(plain: Path) -> None:
    found = evaluate_model(plain)
    resolved = trained_spec(plain)
    cascade = Cascade.from_pretrained(plain)
    expected = evaluate_kid(
        lambda first, count: cascade.sample(count, first=first, seed=0),
        load_split(resolved, "train"),
        EvaluationOptions(n=40, subsets=8, subset_size=16, batch_size=20),
        extractor=load_extractor("small"),
    )
    kid, speed = found.figures
    assert kid.name == expected.name == "kid.small.n40"
    assert kid.value == pytest.approx(expected.value, abs=1e-6)
    assert kid.data_digest == expected.data_digest
    assert speed.metric == "images-per-second"
    assert (found.ok, found.problems, found.saved) == (True, (), False)
    assert not (plain / "metrics.json").exists()


def test_everything_asked_for_is_in_the_record(plain: Path) -> None:
    asked: dict[str, Any] = {"n": 20, "seed": 5, "precision": "bf16", "split": "test"}
    found = evaluate_model(plain, ["kid"], extractor="small", **asked)
    figure = found.figures[0]
    assert figure.name == "kid.small-bf16.n20.test"
    assert (figure.n, figure.seed, figure.precision, figure.split) == (20, 5, "bf16", "test")
    assert figure.subset_size == 16
    # Fewer images than a subset of the spec: half of them.
    assert evaluate_model(plain, ["kid"], n=12).figures[0].subset_size == 6
    assert (
        evaluate_model(plain, ["kid"], settings=["evaluation.subset_size=9"]).figures[0].subset_size
        == 9
    )


def test_other_data_can_be_named_and_nothing_else(plain: Path) -> None:
    here = evaluate_model(plain, ["kid"], settings=["data.config.seed=1"]).figures[0]
    assert here.data_digest != evaluate_model(plain, ["kid"]).figures[0].data_digest
    for setting in ("data.size=8", "stages.up.config.blocks=2", "seed=3"):
        with raises(InputError, "input-setting-trained"):
            evaluate_model(plain, settings=[setting])
    with raises(SpecError, "spec", problems={"data.config.nope": "extra-forbidden"}):
        evaluate_model(plain, settings=["data.config.nope=1"])


def test_names_that_nothing_answers_to(plain: Path) -> None:
    with raises(UnknownNameError, "lookup", kind="metric", name="kd"):
        evaluate_model(plain, ["kd"])
    with raises(UnknownNameError, "lookup", kind="feature extractor", name="tiny"):
        evaluate_model(plain, extractor="tiny")
    with raises(InputError, "input-no-argument"):
        evaluate_model(plain, ["kid:small"])


def test_a_model_without_its_data(orphan: Path) -> None:
    found = evaluate_model(orphan, "all")
    figures = {figure.metric: figure for figure in found.figures}
    why = {problem.metric: problem.error.what for problem in found.problems}
    assert set(figures) == {"inception-score", "images-per-second"}
    assert figures["inception-score"].data_digest is None
    assert "images.npz" in why["kid"]
    assert set(why) | {"inception-score"} == set(get_registry().metrics.names())
    assert found.ok
    assert not evaluate_model(orphan).ok  # the spec's kid is all that it asks for
    asked = evaluate_model(orphan, ["inception-score", "kid"])
    assert (asked.measured, asked.refused, asked.ok) == (True, ("kid",), False)
    there = evaluate_model(orphan, settings=[f"data.config.path={orphan.parent / 'moved.npz'}"])
    assert there.figures[0].metric == "kid"


def test_a_dataset_and_a_metric_whose_plugins_are_not_here(plain: Path, tmp_path: Path) -> None:
    folder = copied(plain, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["spec"]["data"]["source"] = "sonar"
    config["spec"]["training"]["losses"] = [
        {"kind": "echo", "stage": "up", "weight": 1.0, "config": {}}
    ]
    config["spec"]["evaluation"]["metrics"] = ["loudness", "inception-score", "kid"]
    (folder / "config.json").write_text(json.dumps(config))
    found = evaluate_model(folder)
    why = {problem.metric: problem.error.what for problem in found.problems}
    assert "no metric 'loudness'" in why["loudness"]
    assert "no dataset 'sonar'" in why["kid"]
    assert found.figures[0].metric == "inception-score"
    assert found.ok


@pytest.mark.usefixtures("damaged_inception")
def test_weights_that_cannot_be_had(plain: Path) -> None:
    found = evaluate_model(plain, ["psnr", "kid"], extractor="inception")
    assert [figure.metric for figure in found.figures if figure.metric == "psnr"]
    (problem,) = found.problems
    assert isinstance(problem.error, WeightsUnavailableError)
    assert found.refused == ("kid",)


def test_an_extractor_is_loaded_when_it_is_first_asked() -> None:
    lazy = LazyExtractor("small", torch.device("cpu"))
    assert lazy._found is None
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


def test_figures_are_saved_by_name_and_the_model_stays_whole(model: Path) -> None:
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
    # The same name again takes the place of the one before.
    evaluate_model(model, ["kid"], n=20, seed=7, save=True)
    assert list(figures_of(model)) == list(after)
    assert figures_of(model)["kid.small.n20"]["seed"] == 7


def test_edited_blocks_are_kept_and_told(model: Path) -> None:
    text = (model / "README.md").read_text()
    (model / "README.md").write_text(text.replace("Licence of the data", "The licence"))
    done = evaluate_model(model, ["kid"], n=20, save=True)
    assert done.kept == ("limits",)
    assert "The licence" in (model / "README.md").read_text()


def test_the_record_of_a_first_measurement(saved: Path) -> None:
    data = json.loads((saved / "metrics.json").read_text())
    assert data["spec_digest"] == read_config(saved).spec_digest
    assert [row["name"] for row in data["stages"]] == ["coarse", "up"]
    assert all(row["flops"] > 0 and row["parameters"] > 0 for row in data["stages"])
    assert "training" in data


def test_what_could_not_be_measured_is_in_the_record_without_paths_of_home(
    orphan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(orphan.parent))
    done = evaluate_model(orphan, ["kid", "inception-score"], save=True)
    assert done.saved
    (row,) = json.loads((orphan / "metrics.json").read_text())["problems"]
    assert row["metric"] == "kid"
    assert str(orphan.parent) not in row["why"]
    assert "~/images.npz" in row["why"]
    assert "Requested but not measured" in (orphan / "README.md").read_text()
    # Once it is measured, the problem is gone.
    evaluate_model(
        orphan, ["kid"], settings=[f"data.config.path={orphan.parent / 'moved.npz'}"], save=True
    )
    assert "problems" not in json.loads((orphan / "metrics.json").read_text())


def test_models_that_are_not_changed(model: Path, tmp_path: Path) -> None:
    with raises(InputError, "input-model-read-only") as caught:
        evaluate_model("shapes-tiny", save=True)
    assert caught.value.hint is not None
    assert "cascadezoo pull shapes-tiny --to" in caught.value.hint
    snapshot = tmp_path / "models--org--x" / "snapshots" / ("a" * 40)
    copied(model, snapshot)
    with raises(InputError, "input-model-read-only"):
        evaluate_model(snapshot, save=True)


def test_a_tampered_model_is_not_sealed(model: Path) -> None:
    change_metrics(model, lambda data: data["figures"][0].update(value=0.0), reseal=False)
    with raises(ModelError, "model-damaged"):
        evaluate_model(model, save=True)
    resealed(model)
    assert evaluate_model(model, save=True).saved


def test_stages(model: Path) -> None:
    found = evaluate_model(model, stages=True, n=24, save=True)
    assert found.attribution is not None
    coarse, up = found.attribution
    assert (coarse.stage, coarse.real, up.stage) == ("coarse", None, "up")
    assert up.mismatch is not None
    assert found.advice
    assert [f.metric for f in found.figures] == []
    data = json.loads((model / "metrics.json").read_text())
    assert [row["stage"] for row in data["attribution"]] == ["coarse", "up"]
    card = (model / "README.md").read_text()
    assert "## Where it loses quality" in card
    assert "cascadezoo evaluate path/to/measured --stages --extractor small -n 24 --seed 0" in card
