"""Streamed data: parity with resident data, order, resume, processes, faults, memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from errors_help import raises
from PIL import Image
from shards_help import pictures, png, write_folder, write_shards, write_tar

from cascadezoo.data.decoder import ImageForm
from cascadezoo.data.folder import FolderConfig
from cascadezoo.data.folder import load as load_folder
from cascadezoo.data.folder import open_source as open_folder
from cascadezoo.data.loader import BatchLoader, iterate
from cascadezoo.data.split import load_split
from cascadezoo.data.stream_loader import StreamLoader, decoding_workers, make_loader
from cascadezoo.data.stream_order import stream_order
from cascadezoo.data.streamed import StreamedData
from cascadezoo.data.webdataset import WebDatasetConfig
from cascadezoo.data.webdataset import load as load_shards
from cascadezoo.data.webdataset import open_source as open_shards
from cascadezoo.errors import DataError, ResourceError, SpecError
from cascadezoo.evaluate.real_features import choose_real
from cascadezoo.spec import load_spec
from cascadezoo.spec.models import StreamSpec

FORM = ImageForm(8, 3, "resize", 4)
SERIAL = {"workers": 0}


def streamed(root: Path, **settings: object) -> StreamedData:
    source = open_folder(FolderConfig(path=str(root)), "train")
    return StreamedData(source, FORM, StreamSpec(**{**SERIAL, **settings}))


def sharded(root: Path, **settings: object) -> StreamedData:
    source = open_shards(WebDatasetConfig(path=str(root)), "train")
    return StreamedData(source, FORM, StreamSpec(**{**SERIAL, **settings}))


def loader(data, batch_size=16, **options) -> BatchLoader:
    return make_loader(data, batch_size=batch_size, seed=3, **options)


def epochs(made: BatchLoader, count: int = 2):
    for epoch in range(count):
        for index in range(made.steps_per_epoch):
            yield made.batch(epoch, index)


def equal(first, second) -> bool:
    return torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


# --- parity


@pytest.mark.parametrize("workers", [0, 2])
def test_a_streamed_folder_trains_on_the_same_batches_as_a_resident_one(tmp_path, workers):
    write_folder(tmp_path, pictures(50))
    resident = load_folder(FolderConfig(path=str(tmp_path)), "train")
    made = loader(streamed(tmp_path, workers=workers), flip=True)
    pairs = zip(epochs(loader(resident, flip=True)), epochs(made), strict=True)
    assert sum(equal(a, b) for a, b in pairs) == 6
    made.close()


@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_images_are_converted_like_resident_ones(tmp_path, fit):
    write_folder(tmp_path, pictures(9, size=12))
    spec = {
        "name": "small",
        "data": {
            "source": "folder",
            "config": {"path": str(tmp_path)},
            "size": 8,
            "channels": 1,
            "fit": fit,
        },
        "stages": [{"name": "coarse", "kind": "flow"}],
    }
    both = [
        load_split(load_spec(spec, settings=[f"data.streaming={value}"]), "train")
        for value in ("true", "false")
    ]
    assert [type(data) is StreamedData for data in both] == [True, False]
    assert np.array_equal(both[0].images[:], both[1].images)
    assert np.array_equal(both[0].labels, both[1].labels)
    for (a, _), (b, _) in zip(iterate(both[0], 4), iterate(both[1], 4), strict=True):
        assert torch.equal(a, b)


def test_images_behave_like_an_array(tmp_path):
    images = pictures(10)
    write_shards(tmp_path, images, 4)
    lazy, whole = sharded(tmp_path).images, images.transpose(0, 3, 1, 2)
    assert (lazy.shape, lazy.dtype, len(lazy), lazy.nbytes) == ((10, 3, 8, 8), np.uint8, 10, 1920)
    assert np.array_equal(np.asarray(lazy), whole)
    for rows in (3, -1, slice(2, 9, 3), [5, 1, 5], np.arange(10) % 3 == 0, np.array([], int)):
        assert np.array_equal(lazy[rows], whole[rows])
    with pytest.raises(IndexError):
        lazy[10]


def test_a_large_read_at_once_is_refused(tmp_path, monkeypatch):
    write_folder(tmp_path, pictures(20))
    data = streamed(tmp_path)
    monkeypatch.setenv("CASCADEZOO_MAX_DATA_BYTES", "2000")
    assert data.images[:10].shape == (10, 3, 8, 8)
    with raises(ResourceError, "resources-data"):
        np.asarray(data.images)


# --- order


def test_a_buffer_as_large_as_the_data_is_one_permutation():
    shards = np.array([5, 0, 7, 8])
    whole = stream_order(20, shards, 20, 1, "order", 0)
    generator = torch.Generator().manual_seed(_seed(1, "order", 0))
    assert whole.tolist() == torch.randperm(20, generator=generator).tolist()


def _seed(*key):
    from cascadezoo.util.rng import derive_seed

    return derive_seed(*key)


@pytest.mark.parametrize("buffer", [1, 7, 30, 1000])
def test_an_order_visits_each_image_once_and_keeps_reads_close(buffer):
    shards = np.full(20, 30)
    order = stream_order(600, shards, buffer, 1, "order", 4)
    assert sorted(order.tolist()) == list(range(600))
    assert order.tolist() == stream_order(600, shards, buffer, 1, "order", 4).tolist()
    assert order.tolist() != stream_order(600, shards, buffer, 1, "order", 5).tolist()
    if buffer <= 30:
        # Any block of the buffer's size touches at most two shards.
        blocks = [order[i : i + buffer] // 30 for i in range(0, 600, buffer)]
        assert max(len(set(block.tolist())) for block in blocks) <= 2
        assert len({int(block[0]) for block in blocks}) == 20


def test_the_shuffle_of_blocks_is_uniform():
    counts = np.zeros((6, 6))
    for epoch in range(3000):
        order = stream_order(12, np.array([6, 6]), 6, "uniform", epoch)
        first = order[:6] % 6
        counts[np.arange(6), first] += 1
    # Each cell is binomial with mean 500 and standard deviation 20.4.
    assert np.abs(counts - 500).max() < 5 * 20.4


@pytest.mark.parametrize("buffer", [10, 1000])
def test_workers_and_processes_do_not_change_the_batches(tmp_path, buffer):
    write_shards(tmp_path, pictures(70), 20)
    one = loader(sharded(tmp_path, buffer=buffer), flip=True)
    expected = list(epochs(one))
    for world, workers in ((2, 0), (4, 1)):
        ranks = [
            loader(
                sharded(tmp_path, buffer=buffer, workers=workers), flip=True, rank=r, world=world
            )
            for r in range(world)
        ]
        parts = zip(*(list(epochs(rank)) for rank in ranks), strict=True)
        for whole, part in zip(expected, parts, strict=True):
            assert torch.equal(whole[0], torch.cat([p[0] for p in part]))
            assert torch.equal(whole[1], torch.cat([p[1] for p in part]))
        for rank in ranks:
            rank.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resume_gives_the_same_following_batches(tmp_path, workers):
    write_shards(tmp_path, pictures(90), 20)
    settings = {"buffer": 25, "workers": workers}
    expected = list(epochs(loader(sharded(tmp_path, **settings), flip=True), 3))
    per_epoch = 90 // 16
    for start in (1, per_epoch - 1, per_epoch + 2):
        made = loader(sharded(tmp_path, **settings), flip=True)
        for step in range(start, 3 * per_epoch):
            assert equal(made.batch(*divmod(step, per_epoch)), expected[step])
        made.close()


def test_an_epoch_of_fewer_images_than_a_batch_repeats_them(tmp_path):
    write_folder(tmp_path, pictures(5))
    resident = load_folder(FolderConfig(path=str(tmp_path)), "train")
    pair = loader(resident, 12).batch(2, 0), loader(streamed(tmp_path), 12).batch(2, 0)
    assert equal(*pair)


def test_loaders_of_other_batch_sizes_share_the_workers(tmp_path):
    write_shards(tmp_path, pictures(64), 16)
    large = loader(sharded(tmp_path, buffer=16), 16)
    small = large.with_batch_size(8)
    whole = large.batch(0, 1)
    halves = [small.batch(0, 2), small.batch(0, 3)]
    assert torch.equal(whole[0], torch.cat([half[0] for half in halves]))
    assert isinstance(small, StreamLoader)
    assert small._feed is large._feed


def test_batches_and_processes_must_fit(tmp_path):
    write_folder(tmp_path, pictures(8))
    with raises(DataError, "data-batch-uneven", batch_size=9, world=2):
        loader(streamed(tmp_path), 9, world=2)
    with pytest.raises(IndexError):
        loader(streamed(tmp_path), 4).batch(0, 2)


def test_evaluation_reads_real_images_in_its_own_order(tmp_path):
    write_folder(tmp_path, pictures(40))
    resident = load_folder(FolderConfig(path=str(tmp_path)), "train")
    rows = choose_real(40, 25)
    assert np.array_equal(streamed(tmp_path).images[rows], resident.images[rows])


def test_workers_are_counted_for_each_training_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(16), raising=False)
    assert decoding_workers(None) == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert decoding_workers(None) == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert (decoding_workers(None), decoding_workers(0)) == (1, 0)


# --- the choice


def small_spec(root: Path, source: str = "folder") -> dict[str, object]:
    return {
        "name": "small",
        "data": {"source": source, "config": {"path": str(root)}},
        "stages": [{"name": "coarse", "kind": "flow"}],
    }


def test_auto_streams_what_is_larger_than_the_limit(tmp_path, monkeypatch):
    write_folder(tmp_path, pictures(30))
    resolved = load_spec(small_spec(tmp_path))
    assert type(load_split(resolved, "train")) is not StreamedData
    monkeypatch.setenv("CASCADEZOO_MAX_DATA_BYTES", "4000")
    data = load_split(resolved, "train")
    assert isinstance(data, StreamedData)
    assert data.images.nbytes == 30 * 192
    never = load_spec(small_spec(tmp_path), settings=["data.streaming=false"])
    with raises(ResourceError, "resources-data"):
        load_split(never, "train")


def test_auto_streams_what_may_be_bad(tmp_path):
    write_folder(tmp_path, pictures(30))
    resolved = load_spec(small_spec(tmp_path), settings=["data.stream.max_bad=0.1"])
    assert isinstance(load_split(resolved, "train"), StreamedData)


def test_data_that_cannot_be_streamed_are_a_problem_of_the_spec():
    spec = {**small_spec(Path()), "data": {"source": "shapes", "streaming": True}}
    with raises(SpecError, "spec", problems={"data.streaming": "not-streamable"}):
        load_spec(spec)


@pytest.mark.parametrize(
    "setting",
    [
        "data.stream.buffer=0",
        "data.stream.buffer=10000001",
        "data.stream.workers=129",
        "data.stream.workers=-1",
        "data.stream.max_bad=0.6",
        "data.streaming=maybe",
        "data.stream.depth=2",
    ],
)
def test_settings_are_bounded(setting):
    with pytest.raises(SpecError):
        load_spec("shapes-demo", settings=[setting])


def test_defaults_keep_the_digests_of_former_specs():
    spec = load_spec("shapes-demo").spec
    workers = load_spec("shapes-demo", settings=["data.stream.workers=3"]).spec
    buffer = load_spec("shapes-demo", settings=["data.stream.buffer=3"]).spec
    assert spec.training_digest() == workers.training_digest() != buffer.training_digest()


# --- digest


def test_the_digest_identifies_keys_sizes_labels_and_form(tmp_path):
    images = pictures(20)
    write_folder(tmp_path / "a", images)
    write_folder(tmp_path / "b", images)
    digest = streamed(tmp_path / "a").digest
    assert digest == streamed(tmp_path / "b").digest == streamed(tmp_path / "a", buffer=3).digest
    source = open_folder(FolderConfig(path=str(tmp_path / "a")), "train")
    assert digest != StreamedData(source, ImageForm(4, 3)).digest
    changed = tmp_path / "b" / "c1" / "00001.png"
    kept = changed.read_bytes()
    changed.write_bytes(png(pictures(1, seed=5)[0]))
    assert digest != streamed(tmp_path / "b").digest
    changed.write_bytes(kept)
    changed.rename(tmp_path / "b" / "c2" / "00001.png")
    assert digest != streamed(tmp_path / "b").digest


# --- faults


def broken(root: Path, numbers: list[int], count: int = 40) -> None:
    write_folder(root, pictures(count))
    for number in numbers:
        path = root / f"c{number % 4}" / f"{number:05d}.png"
        path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_stops_with_its_name(tmp_path, workers):
    broken(tmp_path, [13])
    made = loader(streamed(tmp_path, workers=workers))
    with raises(DataError, "data-image-unreadable") as caught:
        list(epochs(made))
    assert str(tmp_path / "c1" / "00013.png") in caught.value.what
    assert "data.stream.max_bad" in str(caught.value.hint)


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_images_are_replaced_by_the_next_good_ones(tmp_path, workers):
    broken(tmp_path, [13, 17])
    data = streamed(tmp_path, max_bad=0.1, workers=workers)
    seen = []
    data.listeners.append(seen.append)
    made = loader(data, 8)
    batches = list(epochs(made, 2))
    assert data.skipped.keys() == {"c1/00013.png", "c1/00017.png"}
    assert sum(len(part) for part in seen) == 2
    # The folder's order is by class: c1/00013.png and c1/00017.png come before c1/00021.png.
    images = pictures(40)
    next_good = torch.from_numpy(images[21].transpose(2, 0, 1)).float() / 127.5 - 1
    found = sum(
        bool((image - next_good).abs().max() < 1e-6) for batch in batches for image in batch[0]
    )
    assert found == 2 * 3
    again = loader(streamed(tmp_path, max_bad=0.1, workers=0), 8)
    assert all(equal(a, b) for a, b in zip(batches, epochs(again, 2), strict=True))
    made.close()


def test_more_bad_images_than_the_share_stop(tmp_path):
    broken(tmp_path, [1, 2, 3, 5])
    with raises(DataError, "data-too-many-bad", total=40) as caught:
        list(epochs(loader(streamed(tmp_path, max_bad=0.08), 8)))
    assert caught.value.fields["count"] == 4
    assert "is not a readable image" in caught.value.what


def test_images_of_another_size_are_bad(tmp_path):
    write_folder(tmp_path, pictures(40))
    Image.new("RGB", (9, 9)).save(tmp_path / "c3" / "00039.png")
    with raises(DataError, "data-sizes-differ"):
        list(epochs(loader(streamed(tmp_path), 8)))
    data = streamed(tmp_path, max_bad=0.05)
    list(epochs(loader(data, 8)))
    assert list(data.skipped) == ["c3/00039.png"]


@pytest.mark.parametrize("queued", [False, True])
def test_a_killed_worker_is_an_error(tmp_path, queued):
    """Before or after it has queued batches, whose memory ends with it."""
    import signal

    write_folder(tmp_path, pictures(200))
    made = loader(streamed(tmp_path, workers=1), 4)
    made.batch(0, 0)
    (worker,) = made._feed._batches._workers
    if queued:
        time.sleep(0.5)
    os.kill(worker.pid, signal.SIGKILL)
    with raises(DataError, "data-worker-ended"):
        [made.batch(0, index) for index in range(1, 50)]
    assert made.batch(0, 0)[0].shape == (4, 3, 8, 8)
    made.close()


def test_workers_leave_signals_to_the_training(tmp_path):
    import signal

    write_folder(tmp_path, pictures(64))
    made = loader(streamed(tmp_path, workers=1), 4)
    first = made.batch(0, 0)
    (worker,) = made._feed._batches._workers
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(worker.pid, number)
    assert len(list(epochs(made, 1))) == 16
    assert equal(first, made.batch(0, 0))
    made.close()


# --- shards


def test_shards_are_read_in_their_order(tmp_path):
    images = pictures(23)
    write_shards(tmp_path, images, 10)
    config = WebDatasetConfig(path=str(tmp_path))
    data = load_shards(config, "train")
    assert np.array_equal(data.images, images.transpose(0, 3, 1, 2))
    assert data.labels.tolist() == [i % 4 for i in range(23)]
    info = config.info()
    assert (info.size, info.num_classes, info.train) == (8, 4, 23)


@pytest.mark.parametrize("name", ["train-*.tar", "train-{000..002}.tar", ""])
def test_shards_are_named_by_folder_pattern_or_range(tmp_path, name):
    write_shards(tmp_path, pictures(23), 10)
    assert WebDatasetConfig(path=str(tmp_path / name)).info().train == 23


def test_a_missing_shard_of_a_range_is_an_error(tmp_path):
    write_shards(tmp_path, pictures(23), 10)
    with raises(DataError, "data-shard-unreadable"):
        WebDatasetConfig(path=str(tmp_path / "train-{000..003}.tar")).info()


@pytest.mark.parametrize(
    ("path", "code"),
    [("none-*.tar", "data-no-shards"), ("https://example.com/a.tar", "data-shards-remote")],
)
def test_no_shards(tmp_path, path, code):
    where = path if ":" in path else str(tmp_path / path)
    with raises(DataError, code):
        WebDatasetConfig(path=where).info()


def test_the_holdout_of_shards_is_that_of_other_data(tmp_path):
    images = pictures(40)
    write_shards(tmp_path, images, 10)
    config = WebDatasetConfig(path=str(tmp_path), holdout=0.25)
    train, test = (open_shards(config, split) for split in ("train", "test"))
    assert (len(train), len(test), int(train.shards.sum())) == (30, 10, 30)
    rows = {source.key(row) for source in (train, test) for row in range(len(source))}
    assert len(rows) == 40
    data = StreamedData(train, FORM, StreamSpec(buffer=4, **SERIAL))
    assert len(list(epochs(loader(data, 10), 1))) == 3


def test_a_truncated_shard_names_itself_or_is_used_up_to_the_damage(tmp_path):
    images = pictures(40)
    shards = write_shards(tmp_path, images, 10)
    whole = shards[1].read_bytes()
    shards[1].write_bytes(whole[: len(whole) // 2])
    with raises(DataError, "data-shard-damaged", name="train-001.tar", total=4) as caught:
        sharded(tmp_path)
    assert "truncated" in caught.value.what
    with raises(DataError, "data-shard-damaged"):
        load_shards(WebDatasetConfig(path=str(tmp_path)), "train")
    data = sharded(tmp_path, max_bad=0.25)
    assert data.skipped_shards.keys() == {"train-001.tar"}
    assert 30 < len(data) < 40
    keys = [data.source.key(row) for row in range(len(data))]
    assert [key for key in keys if key.startswith("train-002.tar")] == [
        f"train-002.tar: {number:06d}.png" for number in range(20, 30)
    ]
    with raises(DataError, "data-shard-damaged"):
        sharded(tmp_path, max_bad=0.2)


def test_samples_without_image_or_label_are_left_out_by_name(tmp_path):
    good = png(pictures(1)[0])
    files = [(f"{i}.png", good) for i in range(1)] + [("0.cls", b"1")]
    for number in range(1, 12):
        files += [(f"{number}.png", good), (f"{number}.cls", b"3")]
    files += [("a.png", good), ("a.cls", b"one"), ("b.json", b"{}"), ("c.png", good)]
    write_tar(tmp_path / "t.tar", files)
    with raises(DataError, "data-too-many-bad", count=3, total=15) as caught:
        sharded(tmp_path)
    assert "t.tar: c.png has no label" in caught.value.what
    data = sharded(tmp_path, max_bad=0.2)
    assert len(data) == 12
    assert sorted(data.skipped) == ["t.tar: a.png", "t.tar: b.json", "t.tar: c.png"]
    assert WebDatasetConfig(path=str(tmp_path), label=None).info().num_classes is None


def test_a_bad_image_in_a_shard_is_named_with_its_shard(tmp_path):
    good = png(pictures(1)[0])
    files = [("0.png", good), ("0.cls", b"0"), ("x/1.png", b"no image"), ("x/1.cls", b"0")]
    write_tar(tmp_path / "t.tar", files)
    with raises(DataError, "data-image-unreadable") as caught:
        sharded(tmp_path).images[:]
    assert "t.tar: x/1.png is not a readable image: its format is unknown" in caught.value.what


# --- memory

MEASURE = """
import json, resource, sys
from cascadezoo.data.decoder import ImageForm
from cascadezoo.data.stream_loader import make_loader
from cascadezoo.data.streamed import StreamedData
from cascadezoo.data.webdataset import WebDatasetConfig, open_source
from cascadezoo.spec.models import StreamSpec

def peak():
    text = open("/proc/self/status").read()
    return int(text.split("VmHWM:")[1].split()[0]) * 1024

config = WebDatasetConfig(path=sys.argv[1], resize=128)
make_loader(StreamedData(open_source(config, "train"), ImageForm(128, 3), StreamSpec(workers=0)),
            batch_size=8, seed=0).batch(0, 0)
before = peak()
data = StreamedData(open_source(config, "train"), ImageForm(128, 3), StreamSpec(workers=1))
loader = make_loader(data, batch_size=8, seed=0)
for index in range(loader.steps_per_epoch):
    loader.batch(0, index)
loader.close()
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
print(json.dumps([data.images.nbytes, peak() - before, children - before]))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(tmp_path):
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of memory is read from /proc")
    content = png(np.zeros((16, 16, 3), np.uint8))
    files = [(f"{i:06d}.{e}", c) for i in range(2000) for e, c in (("png", content), ("cls", b"0"))]
    write_tar(tmp_path / "t.tar", files)
    # glibc would keep freed batches in its heap, as it happens 1 to 95 MB of them.
    exact = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=exact)
    size, own, worker = json.loads(done.stdout)
    assert size > 98e6
    # Two batches of 0.4 MB are decoded in advance.
    assert own < 8e6
    assert worker < 48e6
