"""Datasets of the library datasets: in memory, mapped and as a stream."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from errors_help import raises
from pydantic import ValidationError
from shards_help import pictures, png

from cascadezoo.data.decoder import ImageForm
from cascadezoo.data.huggingface import HuggingFaceConfig, load, open_source
from cascadezoo.data.loader import iterate
from cascadezoo.data.stream_loader import make_loader
from cascadezoo.data.streamed import StreamedData
from cascadezoo.errors import DataError, ResourceError
from cascadezoo.evaluate.real_features import choose_real
from cascadezoo.spec.models import StreamSpec

FORM = ImageForm(8, 3, "resize", 4)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two splits of a dataset, saved by save_to_disk, and one of them as parquet files."""
    datasets = pytest.importorskip("datasets", reason="the library datasets is not installed")
    root = tmp_path_factory.mktemp("saved")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["ant", "bee", "cat", "dog"]),
            "text": datasets.Value("string"),
        }
    )

    def split(count, seed):
        rows = {
            "image": [{"bytes": png(image), "path": None} for image in pictures(count, seed=seed)],
            "label": [number % 4 for number in range(count)],
            "text": ["x"] * count,
        }
        return datasets.Dataset.from_dict(rows, features=features)

    both = datasets.DatasetDict(train=split(60, 0), test=split(12, 1))
    both.save_to_disk(str(root / "dict"))
    (root / "parquet").mkdir()
    for shard in range(4):
        part = both["train"].shard(4, shard, contiguous=True)
        part.to_parquet(str(root / "parquet" / f"train-{shard:05d}-of-00004.parquet"))
    return root


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def config(folder: Path, **settings: object) -> HuggingFaceConfig:
    return HuggingFaceConfig(path=str(folder), label="label", **settings)


def streamed(made: HuggingFaceConfig, **settings: object) -> StreamedData:
    spec = StreamSpec(**{"workers": 0, "buffer": 16, **settings})
    return StreamedData(open_source(made, "train"), FORM, spec)


@pytest.mark.parametrize("keep", ["mapped", "memory", "stream"])
@pytest.mark.parametrize("folder", ["dict", "parquet"])
def test_images_and_labels_in_the_order_of_the_dataset(saved, folder, keep):
    data = load(config(saved / folder, keep=keep, count=60), "train")
    assert np.array_equal(data.images, pictures(60).transpose(0, 3, 1, 2))
    assert data.labels.tolist() == [number % 4 for number in range(60)]


def test_a_saved_dataset_states_its_classes_without_the_library(saved):
    code = (
        "import sys, json\n"
        "from cascadezoo.data.huggingface import HuggingFaceConfig\n"
        "info = HuggingFaceConfig(path=sys.argv[1], label='label', resize=8).info()\n"
        "heavy = [m for m in ('datasets', 'torch', 'huggingface_hub') if m in sys.modules]\n"
        "print(json.dumps([info.size, info.num_classes, info.class_names, info.train, heavy]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved / "dict")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [8, 4, ["ant", "bee", "cat", "dog"], None, []]


def test_the_number_of_images_that_a_file_states(tmp_path):
    info = {"splits": {"train": {"name": "train", "num_examples": 50}}, "features": {}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    made = HuggingFaceConfig(path=str(tmp_path), holdout=0.1)
    assert (made.info().train, made.info().num_classes) == (45, None)


def test_splits(saved):
    made = config(saved / "dict", test="test")
    assert np.array_equal(load(made, "test").images, pictures(12, seed=1).transpose(0, 3, 1, 2))
    held = config(saved / "dict", holdout=0.25)
    assert (len(load(held, "train")), len(load(held, "test"))) == (45, 15)
    for keep in ("mapped", "stream"):
        first = load(config(saved / "dict", count=20, keep=keep), "train")
        assert np.array_equal(first.images, pictures(60)[:20].transpose(0, 3, 1, 2))
    assert streamed(config(saved / "dict", count=20)).source.sizes().shape == (20,)
    with raises(DataError, "data-no-test-split"):
        open_source(config(saved / "dict", keep="stream"), "test")


def test_a_mapped_dataset_streams_every_image_once(saved):
    data = streamed(config(saved / "dict"))
    loader = make_loader(data, batch_size=10, seed=1)
    images = torch.cat([loader.batch(0, index)[0] for index in range(6)])
    whole = torch.from_numpy(pictures(60).transpose(0, 3, 1, 2)).float() / 127.5 - 1
    distance = (images[:, None] - whole[None]).abs().amax((2, 3, 4))
    assert sorted(distance.argmin(1).tolist()) == list(range(60))
    assert float(distance.min(1).values.max()) < 1e-6


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_does_not_depend_on_workers_and_processes_and_resumes(saved, workers):
    made = config(saved / "parquet", keep="stream", count=60)
    one = make_loader(streamed(made), batch_size=8, seed=1, flip=True)
    expected = [one.batch(*divmod(step, 7)) for step in range(14)]
    assert not torch.equal(expected[0][0], expected[7][0])
    for start in (3, 6, 9):
        other = make_loader(streamed(made, workers=workers), batch_size=8, seed=1, flip=True)
        for step in range(start, 14):
            images, labels = other.batch(*divmod(step, 7))
            assert torch.equal(images, expected[step][0])
            assert torch.equal(labels, expected[step][1])
        other.close()
    ranks = [
        make_loader(streamed(made), batch_size=8, seed=1, flip=True, rank=rank, world=2)
        for rank in range(2)
    ]
    for step in range(14):
        parts = [rank.batch(*divmod(step, 7))[0] for rank in ranks]
        assert torch.equal(torch.cat(parts), expected[step][0])


def test_an_epoch_of_a_stream_visits_each_image_once(saved):
    made = config(saved / "parquet", keep="stream", count=60)
    loader = make_loader(streamed(made), batch_size=60, seed=1)
    whole = torch.from_numpy(pictures(60).transpose(0, 3, 1, 2)).float() / 127.5 - 1
    for epoch in (0, 1):
        images, labels = loader.batch(epoch, 0)
        rows = torch.cdist(images.flatten(1), whole.flatten(1)).argmin(1)
        assert sorted(rows.tolist()) == list(range(60))
        assert torch.equal(labels, rows % 4)


def test_evaluation_reads_a_stream_once_from_the_start(saved, monkeypatch):
    data = streamed(config(saved / "parquet", keep="stream", count=60))
    reads = []
    original = type(data.source).samples

    def counted(self, shard):
        reads.append(shard)
        return original(self, shard)

    monkeypatch.setattr(type(data.source), "samples", counted)
    rows = choose_real(60, 40)
    parts = [data.images[rows[first : first + 8]] for first in range(0, 40, 8)]
    assert len(reads) <= 4
    reads.clear()
    assert np.array_equal(np.concatenate(parts), data.images[rows])
    labels = data.labels[rows]
    whole = pictures(60).transpose(0, 3, 1, 2).reshape(60, -1)
    found = [int((whole == part.reshape(-1)).all(1).argmax()) for part in np.concatenate(parts)]
    assert len(set(found)) == 40
    assert [number % 4 for number in found] == labels.tolist()


def test_all_images_of_a_stream_in_one_pass(saved):
    data = streamed(config(saved / "parquet", keep="stream", count=60))
    batches = [images for images, _ in iterate(data, 16, scaled=False, labels=False)]
    assert [len(batch) for batch in batches] == [16, 16, 16, 12]
    whole = {image.tobytes() for image in pictures(60).transpose(0, 3, 1, 2)}
    assert {image.numpy().tobytes() for batch in batches for image in batch} == whole


def test_a_stream_of_unknown_length_asks_for_it(saved, tmp_path):
    # The library keeps the number of images of a folder that it has once converted.
    shutil.copytree(saved / "parquet", tmp_path / "new")
    with raises(DataError, "data-count-unknown") as caught:
        open_source(config(tmp_path / "new", keep="stream"), "train")
    assert "data.config.count" in str(caught.value.hint)
    loader = make_loader(
        streamed(config(tmp_path / "new", keep="stream", count=70)), batch_size=8, seed=0
    )
    with raises(DataError, "data-stream-short", count=60, needed=70):
        [loader.batch(0, index) for index in range(8)]


def test_a_buffer_larger_than_the_limit_is_refused(saved, monkeypatch):
    made = streamed(config(saved / "parquet", keep="stream", count=60), buffer=60)
    loader = make_loader(made, batch_size=8, seed=0)
    monkeypatch.setenv("CASCADEZOO_MAX_DATA_BYTES", "10000")
    with raises(ResourceError, "resources-stream-buffer", limit=5000):
        loader.batch(0, 0)


def test_the_digest_of_each_way(saved, tmp_path):
    digests = {
        streamed(config(saved / "dict")).digest,
        streamed(config(saved / "dict", keep="memory")).digest,
    }
    assert len(digests) == 1
    made = config(saved / "parquet", keep="stream", count=60)
    assert streamed(made).digest == streamed(made).digest
    assert streamed(made).digest != streamed(made, buffer=17).digest


# --- faults


def test_a_bad_image_is_named_or_replaced(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the library datasets is not installed")

    rows = [{"bytes": png(image), "path": None} for image in pictures(20)]
    rows[7] = {"bytes": b"damaged", "path": None}
    rows[9] = {"bytes": None, "path": "/etc/hostname"}
    features = datasets.Features(
        {"image": datasets.Image(decode=False), "label": datasets.Value("int64")}
    )
    made = datasets.Dataset.from_dict({"image": rows, "label": [0] * 20}, features=features)
    made = made.cast_column("image", datasets.Image())

    def load_made(config, stored):
        stream = config.keep == "stream"
        return (made.to_iterable_dataset(num_shards=2) if stream else made), 20

    # Saving would store the file that the path names.
    monkeypatch.setattr("cascadezoo.data.huggingface_source._load", load_made)
    with raises(DataError, "data-image-unreadable") as caught:
        load(config(tmp_path / "bad"), "train")
    assert "train[7]" in caught.value.what
    for keep in ("mapped", "stream"):
        data = streamed(config(tmp_path / "bad", keep=keep, count=20), max_bad=0.1)
        loader = make_loader(data, batch_size=20, seed=0)
        assert loader.batch(0, 0)[0].shape == (20, 3, 8, 8)
        assert len(data.skipped) == 2
        assert any("is not stored in the dataset" in reason for reason in data.skipped.values())


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"image": "picture"}, "data-no-column"),
        ({"image": "text"}, "data-column-not-images"),
        ({"train": "nothing"}, "data-datasets-failed"),
    ],
)
def test_wrong_columns_and_splits(saved, settings, code):
    with raises(DataError, code):
        open_source(config(saved / "dict", **settings), "train")


def test_labels_must_be_integers(saved):
    made = HuggingFaceConfig(path=str(saved / "dict"), label="text")
    with raises(DataError, "data-labels-not-whole"):
        open_source(made, "train")


def test_a_missing_folder(tmp_path):
    with raises(DataError, "data-no-folder"):
        HuggingFaceConfig(path=str(tmp_path / "none")).info()


def test_a_damaged_info_file(tmp_path):
    (tmp_path / "dataset_info.json").write_text("{")
    with raises(DataError, "data-info-damaged"):
        HuggingFaceConfig(path=str(tmp_path)).info()


def test_without_the_library_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with raises(DataError, "data-datasets-missing") as caught:
        open_source(HuggingFaceConfig(path=str(tmp_path)), "train")
    assert "pip install 'cascadezoo[datasets]'" in str(caught.value.hint)


@pytest.mark.parametrize(
    "settings", [{"path": ""}, {"path": "a", "keep": "all"}, {"path": "a", "count": 0}]
)
def test_bounds(settings):
    with pytest.raises(ValidationError):
        HuggingFaceConfig(**settings)
