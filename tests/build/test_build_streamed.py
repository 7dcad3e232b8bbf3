"""Builds on data that stay encoded: resume, faults on the card, figures, plan."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from build_cases import same
from errors_help import raises
from shards_help import pictures, write_folder, write_shards

from cascadezoo.build.build import build_cascade
from cascadezoo.build.plan import make_plan
from cascadezoo.data.split import load_split
from cascadezoo.data.streamed import StreamedData
from cascadezoo.errors import DataError, RunFolderError, StoppedError
from cascadezoo.evaluate.features.base import load_extractor
from cascadezoo.evaluate.real_features import real_features, real_statistics
from cascadezoo.spec import load_spec
from cascadezoo.train.events import read_events
from cascadezoo.train.progress import QuietProgress


def spec(root: Path, source: str, **data: Any) -> dict[str, Any]:
    config = {"channels": 8, "multipliers": [1], "blocks": 1, "attention": []}
    return {
        "name": "streamed",
        "data": {"source": source, "config": {"path": str(root)}, **data},
        "stages": [{"name": "coarse", "kind": "flow", "config": config}],
        "training": {
            "batch_size": 8,
            "precision": "fp32",
            "log_steps": 1,
            "phases": [{"name": "coarse", "train": ["coarse"], "epochs": 3}],
        },
        "evaluation": {"metrics": []},
    }


class Stop(QuietProgress):
    """Requests a stop at a step, as a signal does."""

    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, step: int, epoch: int, epochs: int) -> None:
        if step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    write_shards(root, pictures(44), 10)
    return root


def built(spec: dict[str, Any], run: Path, **options: Any) -> Path:
    build_cascade(spec, run, device="cpu", **options)
    return run / "model"


def test_a_streamed_folder_gives_the_weights_of_a_resident_one(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", pictures(44))
    models = [
        built(spec(tmp_path / "data", "folder", streaming=value, flip=True), tmp_path / str(value))
        for value in (True, False)
    ]
    assert same(*models)
    rows = [json.loads((m / "metrics.json").read_text())["training"] for m in models]
    assert rows[0]["images"] == rows[1]["images"] == 44
    assert (rows[0]["skipped_images"], rows[0]["skipped_shards"]) == (0, 0)
    assert "skipped_images" not in rows[1]
    assert rows[0]["data_digest"] != rows[1]["data_digest"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_build_stopped_within_an_epoch_resumes_to_the_same_weights(
    shards: Path, tmp_path: Path, workers: int
) -> None:
    stream = {"buffer": 12, "workers": workers}
    made = spec(shards, "webdataset", streaming=True, stream=stream, flip=True)
    whole = built(made, tmp_path / "whole")
    with raises(StoppedError, "interrupted-training", step=8):
        built(made, tmp_path / "run", progress=Stop(8))
    # The number of workers may change.
    made["data"]["stream"] = {"buffer": 12, "workers": 1 - workers}
    assert same(whole, built(made, tmp_path / "run"))


def test_other_data_are_noticed_when_a_build_resumes(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_shards(root, pictures(44), 10)
    made = spec(root, "webdataset", streaming=True, stream={"workers": 0})
    with raises(StoppedError, "interrupted-training"):
        built(made, tmp_path / "run", progress=Stop(4))
    write_shards(root, pictures(43), 10)
    with raises(RunFolderError, "run-folder-checkpoint-other-data"):
        built(made, tmp_path / "run")


def test_the_card_counts_what_was_left_out(tmp_path: Path) -> None:
    root = tmp_path / "data"
    paths = write_shards(root, pictures(44), 10)
    content = paths[3].read_bytes()
    paths[3].write_bytes(content[: len(content) // 2])
    content = bytearray(paths[0].read_bytes())
    start = content.index(b"IDAT")
    content[start + 4 : start + 40] = bytes(36)
    paths[0].write_bytes(content)
    made = spec(root, "webdataset", stream={"max_bad": 0.25, "workers": 0})
    with raises(StoppedError, "interrupted-training"):
        built(made, tmp_path / "run", progress=Stop(9))
    model = built(made, tmp_path / "run")
    row = json.loads((model / "metrics.json").read_text())["training"]
    events = [
        r for r in read_events(tmp_path / "run/events.jsonl") if r["event"] == "images-skipped"
    ]
    keys = {key for event in events for key in event["images"]}
    assert "train-000.tar: 000000.png" in keys
    assert (row["skipped_images"], row["skipped_shards"]) == (len(keys), 1)
    text = (model / "README.md").read_text()
    assert f"Left out: {len(keys)} images that could not be used, and the rest of 1 damaged" in text


def test_a_bad_image_stops_a_build_with_its_name(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", pictures(44))
    (root / "c2" / "00002.png").write_bytes(b"no image")
    with raises(DataError, "data-image-unreadable") as caught:
        built(spec(root, "folder", streaming=True, stream={"workers": 1}), tmp_path / "run")
    assert "00002.png" in caught.value.what


def test_features_of_streamed_images_are_those_of_resident_ones(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", pictures(44))
    resolved = [
        load_spec(spec(tmp_path / "data", "folder", streaming=value)) for value in (True, False)
    ]
    streamed, resident = (load_split(one, "train") for one in resolved)
    assert isinstance(streamed, StreamedData)
    small = load_extractor("small", device="cpu")
    caches = tmp_path / "a", tmp_path / "b"
    features = [
        real_features(data, small, count=30, cache=cache)
        for data, cache in zip((streamed, resident), caches, strict=True)
    ]
    assert torch.equal(*features)
    statistics = [
        real_statistics(data, small, cache=cache)
        for data, cache in zip((streamed, resident), caches, strict=True)
    ]
    assert torch.equal(statistics[0].mean, statistics[1].mean)
    assert torch.equal(statistics[0].covariance, statistics[1].covariance)


def test_the_plan_states_how_the_images_are_read(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = load_spec(spec(shards, "webdataset", stream={"workers": 3}))
    data = make_plan(made, "cpu").data
    assert data is not None
    assert (data.images, data.decoded_bytes, data.streamed) == (44, 44 * 192, False)
    monkeypatch.setenv("CASCADEZOO_MAX_DATA_BYTES", "5000")
    data = make_plan(made, "cpu").data
    assert data is not None
    assert (data.limit_bytes, data.streamed, data.ahead_bytes) == (5000, True, 2 * 3 * 8 * 192)
    assert make_plan(load_spec("shapes-demo"), "cpu").data is None
