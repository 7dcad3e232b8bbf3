"""npz: loaded arrays, errors for invalid content, and damaged bytes."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from errors_help import raises
from hypothesis import given, settings
from hypothesis import strategies as st

from cascadezoo.data.npz import NpzConfig, load
from cascadezoo.data.npz_reader import NpzReader
from cascadezoo.errors import DataError, ResourceError

CACHE = Path.home() / ".cache" / "cascadezoo-dev"


def grey(count=20, size=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size), dtype=np.uint8)


def color(count=20, size=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.fixture
def save(tmp_path):
    def make(**arrays):
        compressed = arrays.pop("compressed", False)
        path = tmp_path / "data.npz"
        (np.savez_compressed if compressed else np.savez)(path, **arrays)
        return str(path)

    return make


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("x_train", "y_train", "x_test", "y_test"),
        ("images", "labels", "test_images", "test_labels"),
    ],
)
def test_usual_names_with_test_images_are_read(save, names, compressed):
    images, labels = color(20), np.arange(20) % 4
    other, other_labels = color(8, seed=1), np.arange(8) % 5
    arrays = dict(zip(names, (images, labels, other, other_labels), strict=True))
    config = NpzConfig(path=save(**arrays, compressed=compressed))
    info = config.info()
    assert (info.size, info.channels, info.num_classes, info.class_names) == (6, 3, 5, None)
    train, test = load(config, "train"), load(config, "test")
    assert (train.images == images.transpose(0, 3, 1, 2)).all()
    assert (test.images == other.transpose(0, 3, 1, 2)).all()
    assert train.labels.tolist() == labels.tolist()
    assert test.labels.tolist() == other_labels.tolist()
    assert (train.split, test.split) == ("train", "test")
    assert train.images.flags.c_contiguous


def test_the_names_of_guided_diffusion_are_read(save):
    images, labels = color(), np.arange(20) % 3
    config = NpzConfig(path=save(arr_0=images, arr_1=labels))
    assert (load(config, "train").images == images.transpose(0, 3, 1, 2)).all()
    assert load(config, "train").labels.tolist() == labels.tolist()
    with raises(DataError, "data-no-test-split") as caught:
        load(config, "test")
    assert "holdout" in caught.value.hint


def test_without_labels(save):
    config = NpzConfig(path=save(images=grey()))
    assert config.info().num_classes == 0
    data = load(config, "train")
    assert data.labels is None
    assert data.images.shape == (20, 1, 6, 6)


def test_named_arrays(save):
    images, labels = grey(), np.arange(20, dtype=np.uint8) % 7
    path = save(pictures=images, kinds=labels, more=grey(5, seed=3), images=grey(3))
    config = NpzConfig(path=path, images="pictures", labels="kinds", test_images="more")
    assert (load(config, "train").images[:, 0] == images).all()
    assert load(config, "train").labels.dtype == np.int64
    assert load(config, "test").labels is None
    assert len(load(config, "test")) == 5


def test_class_names(save):
    path = save(images=grey(), labels=np.arange(20) % 2, class_names=np.array(["a", "b", "c"]))
    info = NpzConfig(path=path).info()
    assert (info.num_classes, info.class_names) == (3, ("a", "b", "c"))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("limit", [None, 1, 7, 100])
def test_limit_reads_the_first(save, limit, order):
    images, labels = np.asarray(color(), order=order), np.arange(20)
    config = NpzConfig(path=save(images=images, labels=labels), limit=limit)
    data = load(config, "train")
    assert (data.images == images[:limit].transpose(0, 3, 1, 2)).all()
    assert data.labels.tolist() == labels[:limit].tolist()
    assert config.info().num_classes == 20


@settings(max_examples=30, deadline=None)
@given(count=st.integers(2, 60), holdout=st.floats(0.01, 0.9), limit=st.integers(1, 70))
def test_holdout_splits_once_and_for_all(tmp_path_factory, count, holdout, limit):
    path = tmp_path_factory.mktemp("npz") / "data.npz"
    np.savez(path, images=grey(count), labels=np.arange(count))
    config = NpzConfig(path=str(path), holdout=holdout)
    held = max(1, round(count * holdout))
    if held >= count:
        with raises(DataError, "data-holdout-all", count=count):
            load(config, "train")
        return
    train, test = load(config, "train"), load(config, "test")
    assert len(test) == held
    assert sorted([*train.labels, *test.labels]) == list(range(count))
    assert (grey(count)[test.labels] == test.images[:, 0]).all()
    few = load(config.model_copy(update={"limit": limit}), "train")
    assert few.labels.tolist() == train.labels[:limit].tolist()


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((5, 8, 8), "auto", (5, 1, 8, 8)),
        ((5, 8, 8, 3), "auto", (5, 3, 8, 8)),
        ((5, 8, 8, 1), "auto", (5, 1, 8, 8)),
        ((5, 3, 8, 8), "auto", (5, 3, 8, 8)),
        ((5, 1, 8, 8), "auto", (5, 1, 8, 8)),
        ((5, 3, 3, 3), "auto", "layout"),
        ((5, 3, 3, 3), "NHWC", (5, 3, 3, 3)),
        ((5, 1, 3, 3), "NCHW", (5, 1, 3, 3)),
        ((5, 8, 8, 4), "auto", "layout"),
        ((5, 8, 8, 4), "NHWC", "channels"),
        ((5, 8, 8, 3), "NCHW", "channels"),
        ((5, 8, 9), "auto", "not-square"),
        ((5, 64), "auto", "dims"),
        ((0, 8, 8), "auto", "empty"),
    ],
)
def test_layouts(save, shape, layout, expected):
    images = np.arange(np.prod(shape), dtype=np.int64).astype(np.uint8).reshape(shape)
    config = NpzConfig(path=save(images=images), layout=layout)
    if isinstance(expected, str):
        with raises(DataError, f"data-array-{expected}", shape=shape):
            config.info()
        with raises(DataError, f"data-array-{expected}", shape=shape):
            load(config, "train")
        return
    data = load(config, "train").images
    assert data.shape == expected
    if len(shape) == 3:
        images = images[..., None]
    if layout == "NCHW" or (layout == "auto" and images.shape[3] not in (1, 3)):
        assert (data == images).all()
    else:
        assert (data == np.moveaxis(images, 3, 1)).all()
    assert (config.info().channels, config.info().size) == expected[1:3]


@pytest.mark.parametrize(
    ("arrays", "keys", "error"),
    [
        (
            {"images": grey().astype(np.float32)},
            {},
            {"code": "data-array-not-uint8", "dtype": "float32", "name": "images"},
        ),
        (
            {"images": grey().astype(np.int64)},
            {},
            {"code": "data-array-not-uint8", "dtype": "int64", "name": "images"},
        ),
        ({"images": np.array([b"x", None])}, {}, {"code": "data-array-objects"}),
        ({"data": grey()}, {}, {"code": "data-no-images-array"}),
        ({"images": grey()}, {"labels": "kinds"}, {"code": "data-no-array", "name": "kinds"}),
        ({"images": grey()}, {"images": "pictures"}, {"code": "data-no-array", "name": "pictures"}),
        (
            {"images": grey(), "labels": np.arange(19)},
            {},
            {"code": "data-labels-shape", "shape": (19,)},
        ),
        (
            {"images": grey(), "labels": np.arange(20)[:, None]},
            {},
            {"code": "data-labels-shape", "shape": (20, 1)},
        ),
        (
            {"images": grey(), "labels": np.arange(20) / 2},
            {},
            {"code": "data-labels-not-whole", "dtype": "float64", "name": "labels"},
        ),
        (
            {"images": grey(), "labels": np.arange(20) - 1},
            {},
            {"code": "data-labels-negative", "high": 18, "low": -1, "name": "labels"},
        ),
        (
            {"images": grey(), "labels": np.full(20, 2**63, np.uint64)},
            {},
            {"code": "data-labels-negative"},
        ),
        (
            {"images": grey(), "labels": np.arange(20) // 7, "class_names": np.array(["a", "b"])},
            {},
            {"code": "data-names-too-few", "highest": 2},
        ),
        (
            {"images": grey(), "labels": np.arange(20), "class_names": np.arange(20)},
            {},
            {"code": "data-names-form"},
        ),
        (
            {"images": grey(), "test_labels": np.arange(4)},
            {},
            {"code": "data-labels-without-images"},
        ),
        (
            {"images": grey(), "test_images": grey(3)},
            {"holdout": 0.5},
            {"code": "data-holdout-with-test"},
        ),
    ],
)
def test_bad_content(save, arrays, keys, error):
    config = NpzConfig(path=save(**arrays), **keys)
    with raises(DataError, **error) as caught:
        load(config, "train")
    assert "data.npz" in caught.value.what
    assert caught.value.hint


def test_bad_files(tmp_path):
    def rejected(path, code, hint=""):
        with raises(DataError, code, path=path.name) as caught:
            NpzConfig(path=str(path)).info()
        assert hint in caught.value.hint

    rejected(tmp_path / "missing.npz", "data-no-file")
    (tmp_path / "folder.npz").mkdir()
    rejected(tmp_path / "folder.npz", "data-npz-unreadable")
    (tmp_path / "text.npz").write_text("hello")
    rejected(tmp_path / "text.npz", "data-npz-unreadable", "numpy.savez")
    (tmp_path / "empty.npz").touch()
    rejected(tmp_path / "empty.npz", "data-npz-unreadable", "numpy.savez")
    np.save(tmp_path / "single.npy", grey())
    rejected(tmp_path / "single.npy", "data-npz-unreadable", ".npy")
    with zipfile.ZipFile(tmp_path / "none.npz", "w") as file:
        file.writestr("readme.txt", "no arrays")
    rejected(tmp_path / "none.npz", "data-no-images-array", "data.config.images")


def test_truncated_file(save, tmp_path):
    whole = Path(save(images=grey(400))).read_bytes()
    path = tmp_path / "half.npz"
    path.write_bytes(whole[: len(whole) // 2])
    with raises(DataError, "data-npz-unreadable", path="half.npz"):
        load(NpzConfig(path=str(path)), "train")


@pytest.mark.parametrize("compressed", [False, True])
def test_flipped_pixel_is_noticed(save, compressed):
    images = grey(400) if not compressed else np.zeros((40000, 6, 6), np.uint8)
    path = Path(save(images=images, compressed=compressed))
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with raises(DataError, "data-array-damaged", name="images", path="data.npz"):
        load(NpzConfig(path=str(path)), "train")
    assert NpzConfig(path=str(path)).info().size == 6  # which reads no pixels


def archive(path, header, body=b"", name="images.npy"):
    text = header.encode("latin1") + b"\n"
    start = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, start + body)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 64, 64)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-4, 8, 8)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': 7}",
        "{'descr': '|u1', 'fortran_order': False}",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (4, 8, 8)}",
        "__import__('os').system('true')",
        "(" * 300,
        "",
    ],
)
def test_wrong_headers_are_an_error(tmp_path, header):
    """A header is untrusted data: it does not cause allocations or run code."""
    path = tmp_path / "data.npz"
    archive(path, header, bytes(256))
    with raises(DataError, "data-array-damaged", name="images", path="data.npz"):
        NpzConfig(path=str(path)).info()


def test_arrays_larger_than_the_memory_are_rejected(tmp_path):
    """An honest header of a compressed file that would not fit."""
    path = tmp_path / "data.npz"
    shape = (2**33, 64, 64)
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}"
    archive(path, header, bytes(4096))
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    with zipfile.ZipFile(path) as file:
        size = file.getinfo("images.npy").file_size
    # Zip64: the size in the directory is changed to agree with the header.
    result = size - 4096 + 2**33 * 4096
    extra = b"\x01\x00\x08\x00" + result.to_bytes(8, "little")
    content[entry + 24 : entry + 28] = b"\xff\xff\xff\xff"
    content[entry + 30 : entry + 32] = len(extra).to_bytes(2, "little")
    name_end = entry + 46 + len("images.npy")
    content[name_end:name_end] = extra
    end = content.rindex(b"PK\x05\x06")
    content[end + 12 : end + 16] = (end - entry).to_bytes(4, "little")
    path.write_bytes(content)
    with raises(ResourceError, "resources-memory"):
        load(NpzConfig(path=str(path)), "train")
    with NpzReader(path) as file, raises(ResourceError, "resources-memory"):
        file.read("images")
    assert NpzConfig(path=str(path)).info().size == 64


def sample(compressed):
    buffer = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(buffer, images=color(6, 4), labels=np.arange(6), class_names=np.array(list("abcdef")))
    return buffer.getvalue()


SAMPLES = {compressed: sample(compressed) for compressed in (False, True)}


@settings(max_examples=400, deadline=None)
@given(
    compressed=st.booleans(),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.one_of(st.none(), st.floats(0, 1)),
)
def test_damaged_bytes_give_data_errors_only(tmp_path_factory, compressed, changes, cut):
    content = bytearray(SAMPLES[compressed])
    for where, value in changes:
        content[int(where * (len(content) - 1))] = value
    if cut is not None:
        del content[int(cut * len(content)) :]
    path = tmp_path_factory.getbasetemp() / "fuzz.npz"
    path.write_bytes(content)
    config = NpzConfig(path=str(path), holdout=0.3)
    for call in (config.info, lambda: load(config, "train"), lambda: load(config, "test")):
        try:
            call()
        except DataError as error:
            assert "fuzz.npz" in error.what


@settings(max_examples=300, deadline=None)
@given(
    header=st.one_of(
        st.text(st.characters(max_codepoint=255), max_size=80),
        st.builds(
            "{{'descr': {!r}, 'fortran_order': {}, 'shape': {}}}".format,
            st.sampled_from(["|u1", "<i8", "|O", "<U4", "|V0", "<M8[s]", "|S0", "<f4,<f4"]),
            st.sampled_from(["True", "False", "0"]),
            st.lists(st.integers(-2, 10**20), max_size=5).map(tuple),
        ),
    ),
    body=st.binary(max_size=64),
    name=st.sampled_from(["images.npy", "labels.npy", "class_names.npy"]),
)
def test_strange_headers_give_data_errors_only(tmp_path_factory, header, body, name):
    path = tmp_path_factory.getbasetemp() / "strange.npz"
    archive(path, header, body, name)
    with NpzReader(path) as file:
        try:
            file.read(name.removesuffix(".npy"))
        except (DataError, ResourceError) as error:
            assert "strange.npz" in error.what


@pytest.mark.parametrize(
    ("name", "size", "channels", "last"), [("mnist", 28, 1, "9"), ("cifar10", 32, 3, "truck")]
)
def test_real_files(name, size, channels, last):
    path = CACHE / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"the real {name}.npz is not in the development cache")
    config = NpzConfig(path=str(path), limit=100)
    info = config.info()
    assert (info.size, info.channels, info.num_classes) == (size, channels, 10)
    assert info.class_names is not None
    assert info.class_names[-1] == last
    test = load(config, "test")
    assert test.images.shape == (100, channels, size, size)
    with np.load(path) as file:
        expected = file["test_images"][:100]
        labels = file["test_labels"][:100]
    expected = expected[:, None] if expected.ndim == 3 else expected.transpose(0, 3, 1, 2)
    assert (test.images == expected).all()
    assert (test.labels == labels).all()
