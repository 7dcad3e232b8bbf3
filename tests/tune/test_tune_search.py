from __future__ import annotations

import copy
import csv
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from errors_help import raises
from PIL import Image
from tune_cases import CDM, untrained

from cascadezoo import Cascade
from cascadezoo.errors import InputError, ModelError, RunFolderError, SampleError
from cascadezoo.evaluate.options import EvaluationOptions
from cascadezoo.model_folder.integrity import check_files
from cascadezoo.model_folder.layout import read_config
from cascadezoo.tune.tune_model import tune_model
from cascadezoo.tune.upstream_cache import Upstream


def upstream(cascade: Cascade, kept_to: int = 1, **rest: Any) -> Upstream:
    return Upstream(cascade, EvaluationOptions(n=5, seed=3, batch_size=2), kept_to=kept_to, **rest)


def drawn(source: Upstream, options: Any) -> torch.Tensor:
    sample = source.sample_fn(options)
    return torch.cat([sample(0, 2), sample(2, 2), sample(4, 1)])


def test_low_resolution_is_sampled_once_and_images_equal_those_of_sample(cdm: Cascade) -> None:
    source = upstream(cdm)
    for s in (0.0, 0.2, 0.5):
        images = drawn(source, {"sr": {"s": s}})
        assert torch.allclose(images, cdm.sample(5, seed=3, options={"s": s}), atol=1e-5)
    assert source.levels_sampled == 1
    drawn(source, {"coarse": {"steps": 2}, "sr": {"s": 0.2}})
    assert source.levels_sampled == 2
    drawn(source, {"coarse": {"steps": 2}, "sr": {"s": 0.3}})
    assert source.levels_sampled == 2


def test_truncated_sampling_is_not_cached(cdm: Cascade) -> None:
    source = upstream(cdm)
    options = {"s": 0.4, "truncated": True}
    images = drawn(source, {"sr": options})
    assert source.levels_sampled == 0
    assert torch.allclose(images, cdm.sample(5, seed=3, options=options), atol=1e-5)
    assert not torch.allclose(images, cdm.sample(5, seed=3, options={"s": 0.4}), atol=1e-3)


def test_nothing_is_cached_if_only_the_first_stage_changes(cdm: Cascade) -> None:
    source = upstream(cdm, kept_to=0)
    images = drawn(source, {"coarse": {"steps": 2}})
    assert torch.allclose(images, cdm.sample(5, seed=3, steps={"coarse": 2}), atol=1e-5)
    assert source.levels_sampled == 0


def test_three_stages_with_a_truncated_one_in_between() -> None:
    spec = copy.deepcopy(CDM)
    spec["data"]["config"]["size"] = 32
    again = copy.deepcopy(spec["stages"][1])
    spec["stages"].append({**again, "name": "sr2"})
    cascade = untrained(spec)
    source = upstream(cascade, kept_to=2)
    for s2 in (0.1, 0.3):
        options = {"sr": {"s": 0.4, "truncated": True}, "sr2": {"s": s2}}
        images = drawn(source, options)
        expected = cascade.sample(
            5, seed=3, options={"s": {"sr": 0.4, "sr2": s2}, "truncated": {"sr": True}}
        )
        assert torch.allclose(images, expected, atol=1e-5)
    assert source.levels_sampled == 1  # the output of "sr" from a stopped "coarse"


def test_a_search_writes_its_table_and_plot(model: Path) -> None:
    before = {p: p.read_bytes() for p in model.rglob("*") if p.is_file()}
    result = tune_model(
        model, ["s", "guidance"], values={"s": ["0", "0.4"], "guidance": ["1", "2"]}, n=20
    )
    assert result.folder == Path("runs/tune-cdm")
    assert {p.name for p in result.folder.iterdir()} == {
        "TUNE.md",
        "tune.csv",
        "tune.json",
        "tune.png",
    }
    data = json.loads((result.folder / "tune.json").read_text())
    assert [row["setting"] for row in data["rows"]] == [
        {"guidance": g, "s": s} for g in (1.0, 2.0) for s in (0.0, 0.4)
    ]
    best = min(data["rows"], key=lambda row: row["figure"]["value"])
    assert data["best"]["setting"] == best["setting"]
    assert data["before"] == {"s": 0.0, "guidance": 1.0}
    rows = list(csv.DictReader((result.folder / "tune.csv").read_text().splitlines()))
    assert [float(row["kid"]) for row in rows] == [r["figure"]["value"] for r in data["rows"]]
    assert sum(int(row["best"]) for row in rows) == 1
    text = (result.folder / "TUNE.md").read_text()
    assert f"guidance {best['setting']['guidance']:g}, s {best['setting']['s']:g}" in text
    assert text.count("| best |") == 1
    with Image.open(result.folder / "tune.png") as picture:
        assert picture.width > 700
    assert {p: p.read_bytes() for p in model.rglob("*") if p.is_file()} == before
    figure = data["rows"][0]["figure"]
    assert (figure["n"], figure["extractor"], figure["seed"]) == (20, "small", 0)


def test_the_figure_equals_that_of_an_evaluation(model: Path) -> None:
    result = tune_model(model, ["s"], values={"s": ["0.3"]}, n=20, batch_size=20)
    cascade = Cascade.from_pretrained(model)
    from cascadezoo.data.split import load_split
    from cascadezoo.evaluate.evaluate_sampler import evaluate_kid
    from cascadezoo.evaluate.features.base import load_extractor
    from cascadezoo.model_folder.trained_spec import trained_spec

    expected = evaluate_kid(
        lambda first, count: cascade.sample(count, first=first, options={"s": 0.3}),
        load_split(trained_spec(model), "train"),
        EvaluationOptions(n=20),
        extractor=load_extractor("small"),
    )
    assert result.table.rows[0].figure.value == pytest.approx(expected.value, abs=1e-5)


def test_the_best_setting_becomes_the_default(model: Path) -> None:
    weights = (model / "stages/sr/model.safetensors").read_bytes()
    values = {"s": ["0.3"], "guidance": ["2"], "truncated": ["true"], "coarse.steps": ["3"]}
    old = Cascade.from_pretrained(model)
    result = tune_model(model, list(values), values=values, n=20, write=True)
    assert result.written
    new = Cascade.from_pretrained(model)
    configs = [stage.config for _, stage in new.named_stages()]
    assert [(c.guidance, c.steps) for c in configs] == [(2.0, 3), (2.0, 2)]
    assert (configs[1].s, configs[1].truncated) == (0.3, True)
    options = {"s": 0.3, "truncated": True}
    expected = old.sample(3, steps={"coarse": 3}, guidance=2.0, options=options)
    assert torch.equal(new.sample(3), expected)
    assert (model / "stages/sr/model.safetensors").read_bytes() == weights
    config = read_config(model)
    check_files(model, config)
    assert config.spec_digest == new.spec.digest()
    metrics = json.loads((model / "metrics.json").read_text())
    assert metrics["spec_digest"] == new.spec.digest()
    tuned, before = metrics["figures"]
    assert tuned["name"] == "kid.small.n20.tuned"
    assert tuned["value"] == result.table.best.figure.value
    assert "s 0.3" in tuned["note"]
    assert before["note"] == "measured before the sampling defaults were tuned"
    assert "kid.small.n20.tuned" in (model / "README.md").read_text()
    with Image.open(model / "samples.png") as picture:
        picture.load()
    # Another search replaces the figure of the first one and adds no second note.
    tune_model(model, ["s"], values={"s": ["0.1"]}, n=20, write=True)
    figures = json.loads((model / "metrics.json").read_text())["figures"]
    assert [row["name"] for row in figures] == ["kid.small.n20.tuned", "kid.small.n20"]
    assert figures[1]["note"] == before["note"]
    assert not list(model.parent.rglob("*.tmp"))


def test_an_edited_card_is_unchanged(model: Path) -> None:
    (model / "README.md").write_text("mine\n")
    tune_model(model, ["s"], values={"s": ["0.1"]}, n=20, write=True)
    assert (model / "README.md").read_text() == "mine\n"
    check_files(model, read_config(model))


def test_an_interrupted_search_leaves_nothing(model: Path) -> None:
    command = [sys.executable, "-m", "cascadezoo", "tune", str(model), "--over", "s", "-n", "20000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=model.parent)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("1/5")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    process.stderr.close()
    assert list((model.parent / "runs/tune-cdm").iterdir()) == []
    check_files(model, read_config(model))


def test_real_images_before_the_stage(model: Path) -> None:
    result = tune_model(model, ["s"], values={"s": ["0", "0.4"]}, n=16, upstream="real")
    data = result.to_dict()
    assert (data["upstream"], data["fed_to"]) == ("real", "sr")
    assert "`sr`" in (result.folder / "TUNE.md").read_text()
    generated = tune_model(model, ["s"], values={"s": ["0", "0.4"]}, n=16)
    pairs = zip(result.table.rows, generated.table.rows, strict=True)
    assert all(a.figure.value != b.figure.value for a, b in pairs)


REFUSED: dict[str, tuple[list[str], dict[str, Any], str]] = {
    "s outside the trained range": (["s"], {"values": {"s": ["0.9"]}}, "sample-s-out-of-range"),
    "steps above T": (["steps"], {"values": {"steps": ["9"]}}, "sample-steps-too-many"),
    "unknown schedule": (
        ["sampling_schedule"],
        {"values": {"sampling_schedule": ["magic"]}},
        "sample-schedule-unknown",
    ),
    "unknown sampler": (["sampler"], {"values": {"sampler": ["magic"]}}, "sample-sampler-unknown"),
    "truncated real images": (["truncated"], {"upstream": "real"}, "sample-truncated-given"),
    "storing a result of real images": (
        ["s"],
        {"upstream": "real", "write": True},
        "input-tune-upstream-real",
    ),
    "another training": (["s"], {"settings": ["training.batch_size=1"]}, "input-setting-trained"),
    "another size": (["s"], {"settings": ["data.size=32"]}, "input-setting-trained"),
    "missing data": (
        ["s"],
        {"settings": ["data.source=npz", 'data.config={"path": "nowhere.npz"}']},
        "data-no-file",
    ),
    "unknown extractor": (["s"], {"extractor": "magic"}, "lookup"),
    "too many real images": (
        ["s"],
        {"upstream": "real", "n": 65},
        "input-too-few-images",
    ),
    "too many steps to be stored": (
        ["guidance"],
        {"values": {"guidance": ["2000"]}, "write": True},
        "input-tune-value-invalid",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_searches_that_are_refused_before_they_begin(case: str, model: Path) -> None:
    over, rest, code = REFUSED[case]
    before = {p: p.read_bytes() for p in model.rglob("*") if p.is_file()}
    with pytest.raises(InputError) as caught:
        tune_model(model, over, **{"n": 20, **rest})
    assert (caught.value.code, caught.value.exit_code) == (code, 2)
    assert {p: p.read_bytes() for p in model.rglob("*") if p.is_file()} == before


def test_the_schedule_of_sampling_is_searched_and_stored(model: Path) -> None:
    values = {"sr.sampling_schedule": ["karras", "log-snr"], "coarse.restart": ["0.8"]}
    old = Cascade.from_pretrained(model)
    result = tune_model(model, list(values), values=values, n=20, write=True)
    best = result.table.best.setting["sr.sampling_schedule"]
    new = Cascade.from_pretrained(model)
    coarse, sr = (stage.config for _, stage in new.named_stages())
    assert (sr.sampling_schedule, coarse.sampling_schedule) == (best, "trained")
    assert (sr.restart, coarse.restart) == (0.0, 0.8)
    options = {"sampling_schedule": {"sr": best}, "restart": {"coarse": 0.8}}
    assert torch.equal(new.sample(3), old.sample(3, options=options))
    assert "karras" in (Path("runs") / "tune-cdm" / "TUNE.md").read_text()


def test_a_combination_is_tried_as_one(model: Path) -> None:
    values = {"sampler": ["ddim"], "eta": ["0", "1"]}
    assert len(tune_model(model, ["sampler", "eta"], values=values, n=20).table.rows) == 2
    with pytest.raises(SampleError):
        tune_model(model, ["eta"], values={"eta": ["0", "1"]}, n=20)


def test_folders_that_are_not_writable(model: Path) -> None:
    Path("file").write_text("")
    with raises(RunFolderError, "run-folder-not-writable", path="file"):
        tune_model(model, ["s"], n=20, out="file")


def test_a_damaged_model_is_not_overwritten(model: Path) -> None:
    (model / "metrics.json").write_text("{}")
    with raises(ModelError, "model-damaged", faults={"metrics.json": "size"}):
        tune_model(model, ["s"], values={"s": ["0"]}, n=20, write=True)
    assert not Path("runs").exists()
