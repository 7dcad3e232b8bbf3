"""folder: order, classes, orientation, transparency, and errors."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from errors_help import raises
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cascadezoo.data.folder import FolderConfig, load
from cascadezoo.errors import DataError


def pixels(size=(8, 8), seed=0, channels=3):
    wide, high = size
    shape = (high, wide, channels) if channels > 1 else (high, wide)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path, size=(8, 8), seed=0, channels=3, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels(size, seed, channels)
    Image.fromarray(image).save(path, **options)
    return image


def rejected(config, code, *words, split="train"):
    with raises(DataError, f"data-{code}") as caught:
        load(config, split)
    for word in words:
        assert str(word) in str(caught.value)
    return caught.value


def test_exact_pixels_in_order_of_names(tmp_path):
    wanted = [write(tmp_path / f"{name}.png", seed=ord(name)) for name in "cab"]
    data = load(FolderConfig(path=str(tmp_path)), "train")
    order = [wanted[1], wanted[2], wanted[0]]
    assert (data.images == np.stack(order).transpose(0, 3, 1, 2)).all()
    assert data.labels is None
    info = FolderConfig(path=str(tmp_path)).info()
    assert (info.size, info.channels, info.num_classes) == (8, 3, 0)


def test_subfolders_are_classes(tmp_path):
    for index, name in enumerate(["dog/1.png", "cat/b/2.png", "cat/a.jpg", "emu/x.PNG"]):
        write(tmp_path / name, seed=index)
    (tmp_path / "cat" / "labels.txt").write_text("not an image")
    (tmp_path / "README").write_text("nor this")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "thumb.png").write_bytes(b"nor this")
    config = FolderConfig(path=str(tmp_path))
    data = load(config, "train")
    assert data.labels.tolist() == [0, 0, 1, 2]
    assert config.info().class_names == ("cat", "dog", "emu")
    assert load(FolderConfig(path=str(tmp_path), labels=False), "train").labels is None


@pytest.mark.parametrize("names", [["a/1.png", "2.png"], ["only/1.png", "only/2.png"]])
def test_loose_images_have_no_classes(tmp_path, names):
    for name in names:
        write(tmp_path / name)
    assert load(FolderConfig(path=str(tmp_path)), "train").labels is None


def test_a_single_class_with_labels_is_read(tmp_path):
    write(tmp_path / "only" / "1.png")
    config = FolderConfig(path=str(tmp_path), labels=True)
    assert load(config, "train").labels.tolist() == [0]
    write(tmp_path / "loose.png")
    rejected(config, "no-class", tmp_path / "loose.png", "data.config.labels")


def test_grey(tmp_path):
    image = write(tmp_path / "a.png", channels=1)
    data = load(FolderConfig(path=str(tmp_path), channels=1), "train")
    assert (data.images[0, 0] == image).all()
    rgb = load(FolderConfig(path=str(tmp_path)), "train")
    assert (rgb.images[0] == image[None]).all()


def test_crops_about_the_centre(tmp_path):
    wide = write(tmp_path / "a.png", size=(12, 8))
    tall = write(tmp_path / "b.png", size=(8, 14), seed=1)
    data = load(FolderConfig(path=str(tmp_path)), "train")
    assert (data.images[0] == wide[:, 2:10].transpose(2, 0, 1)).all()
    assert (data.images[1] == tall[3:11].transpose(2, 0, 1)).all()


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a)),
    ],
)
def test_exif_orientation(tmp_path, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = write(tmp_path / "a.png", exif=exif)
    data = load(FolderConfig(path=str(tmp_path)), "train")
    assert (data.images[0] == turn(image).transpose(2, 0, 1)).all()


def test_transparent_pixels_lie_on_white(tmp_path):
    image = pixels(channels=4)
    image[..., 3] = 0
    image[:4, :, 3] = 255
    Image.fromarray(image).save(tmp_path / "a.png")
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.save(tmp_path / "b.png", transparency=1)
    data = load(FolderConfig(path=str(tmp_path)), "train")
    assert (data.images[0, :, :4] == image[:4, :, :3].transpose(2, 0, 1)).all()
    assert (data.images[0, :, 4:] == 255).all()
    assert (data.images[1] == 255).all()


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tif", "bmp", "gif", "ppm"])
def test_formats(tmp_path, kind):
    flat = Image.new("RGB", (16, 16), (200, 40, 90))
    flat.save(tmp_path / f"a.{kind}")
    data = load(FolderConfig(path=str(tmp_path)), "train")
    assert np.abs(data.images[0].astype(int) - np.array([200, 40, 90])[:, None, None]).max() <= 4


def test_different_sizes_are_an_error_with_two_files(tmp_path):
    write(tmp_path / "a.png", size=(8, 8))
    write(tmp_path / "b.png", size=(10, 8))  # 8x8 after cropping
    write(tmp_path / "c.png", size=(10, 12))
    error = rejected(
        FolderConfig(path=str(tmp_path)),
        "sizes-differ",
        tmp_path / "a.png",
        "8x8",
        tmp_path / "c.png",
        "10x10",
    )
    assert "data.config.resize" in error.hint
    data = load(FolderConfig(path=str(tmp_path), resize=6), "train")
    assert data.images.shape == (3, 3, 6, 6)
    assert FolderConfig(path=str(tmp_path), resize=6).info().size == 6


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_resize_is_antialiased(tmp_path, kind):
    """A fine checkerboard becomes even grey, and a ramp stays a ramp."""
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / f"a.{kind}", quality=100)
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None], 256, axis=0)
    Image.fromarray(ramp).save(tmp_path / f"b.{kind}", quality=100)
    data = load(FolderConfig(path=str(tmp_path), resize=16, channels=1), "train").images
    assert np.abs(data[0].astype(int) - 127).max() <= 3
    assert np.abs(data[1, 0, 8].astype(int) - np.arange(7.5, 256, 16)).max() <= 4


def test_holdout_and_test_path(tmp_path):
    for index in range(20):
        write(tmp_path / "train" / "ab"[index % 2] / f"{index:02}.png", seed=index)
    config = FolderConfig(path=str(tmp_path / "train"), holdout=0.25)
    train, test = load(config, "train"), load(config, "test")
    assert (len(train), len(test)) == (15, 5)
    both = np.concatenate([train.images, test.images]).reshape(20, -1)
    assert len(np.unique(both, axis=0)) == 20
    rejected(FolderConfig(path=str(tmp_path / "train")), "no-test-split", split="test")

    write(tmp_path / "test" / "b" / "new.png", seed=99)
    config = FolderConfig(path=str(tmp_path / "train"), test_path=str(tmp_path / "test"))
    assert load(config, "test").labels.tolist() == [1]
    assert len(load(config, "train")) == 20
    write(tmp_path / "test" / "zebra" / "new.png", seed=98)
    rejected(config, "class-unknown", "'zebra'", split="test")
    error = rejected(FolderConfig(path=str(tmp_path)), "classes-are-splits")
    assert "data.config.test_path" in error.hint


def test_links_to_parent_folders_end(tmp_path):
    write(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    data = load(FolderConfig(path=str(tmp_path)), "train")
    assert len(data) == 1


def test_relative_path(tmp_path, monkeypatch):
    write(tmp_path / "pictures" / "1.png")
    monkeypatch.chdir(tmp_path)
    assert len(load(FolderConfig(path="pictures"), "train")) == 1


def test_bad_folders(tmp_path):
    rejected(FolderConfig(path=str(tmp_path / "none")), "no-folder", tmp_path / "none")
    (tmp_path / "file").touch()
    rejected(FolderConfig(path=str(tmp_path / "file")), "not-a-folder", tmp_path / "file")
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    (tmp_path / "empty" / "notes.md").touch()
    rejected(FolderConfig(path=str(tmp_path / "empty")), "no-images", ".png")
    with raises(DataError, "data-no-images", path="empty"):
        FolderConfig(path=str(tmp_path / "empty")).info()


@pytest.mark.parametrize("name", ["movie.mp4", "photo.heic", "noname"])
def test_files_of_unknown_type_are_an_error(tmp_path, name):
    write(tmp_path / "a.png")
    (tmp_path / name).write_bytes(b"1234")
    rejected(FolderConfig(path=str(tmp_path)), "file-strange", tmp_path / name)


def test_bad_images_are_named(tmp_path):
    for index in range(40):
        write(tmp_path / f"{index:02}.png", seed=index)
    config = FolderConfig(path=str(tmp_path))
    bad = tmp_path / "17.png"
    whole = bad.read_bytes()
    for content in (b"", b"text", whole[:40], whole[: len(whole) // 2], whole[:100] + b"?" * 90):
        bad.write_bytes(content)
        rejected(config, "image-unreadable", bad)
    write(tmp_path / "30.png", size=(9, 9))
    rejected(
        config, "image-unreadable", bad
    )  # the first bad one in the order of names, whatever the threads do
    bad.unlink()
    bad.symlink_to(tmp_path / "gone.png")
    rejected(config, "file-missing", bad)


def test_indices_without_a_palette_are_rejected(tmp_path):
    picture = Image.fromarray(np.zeros((8, 8), np.uint8)).convert("P")
    picture.save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    start = whole.index(b"PLTE") - 4
    end = start + 12 + int.from_bytes(whole[start : start + 4])
    (tmp_path / "a.png").write_bytes(whole[:start] + whole[end:])
    for resize in (None, 4):
        config = FolderConfig(path=str(tmp_path), resize=resize)
        rejected(config, "image-unreadable", tmp_path / "a.png", "palette")


def test_deep_pixels_are_rejected(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "a.png")
    rejected(FolderConfig(path=str(tmp_path)), "pixel-type", tmp_path / "a.png")


def bomb(side):
    """A PNG of a hundred bytes whose header states side x side pixels."""

    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0" * 99))


@pytest.mark.parametrize("side", [10_000, 100_000])
def test_decompression_bombs(tmp_path, side):
    (tmp_path / "a.png").write_bytes(bomb(side))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow only warns of the smaller one
        rejected(FolderConfig(path=str(tmp_path)), "image-too-large", tmp_path / "a.png")
        with raises(DataError, "data-image-too-large", path="a.png"):
            FolderConfig(path=str(tmp_path)).info()


def test_large_jpegs_lose_nothing_to_faster_decoding(tmp_path):
    """A resized JPEG is as sharp as a resized PNG of the same pixels."""
    x, y = np.meshgrid(np.arange(512), np.arange(512))
    stripes = (127 + 100 * np.sin(x / 7) * np.cos(y / 9)).astype(np.uint8)
    for kind in ("jpg", "png"):
        (tmp_path / kind).mkdir()
        Image.fromarray(stripes).save(tmp_path / kind / f"a.{kind}", quality=100)
    fast, exact = (
        load(FolderConfig(path=str(tmp_path / kind), resize=128, channels=1), "train").images
        for kind in ("jpg", "png")
    )
    assert np.abs(fast.astype(int) - exact).mean() < 1.0
    assert exact.std() > 40


def encoded(kind):
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    extra = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}
    Image.fromarray(pixels((24, 24))).save(buffer, kind, **extra)
    return buffer.getvalue()


KINDS = {kind: encoded(kind) for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")}


@settings(max_examples=400, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4),
    head=st.booleans(),
    cut=st.one_of(st.none(), st.floats(0, 1)),
)
def test_damaged_images_give_data_errors_only(tmp_path_factory, kind, changes, head, cut):
    content = bytearray(KINDS[kind])
    reach = min(200, len(content)) if head else len(content)
    for where, value in changes:
        content[int(where * (reach - 1))] = value
    if cut is not None:
        del content[int(cut * len(content)) :]
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    (folder / "fuzz.png").write_bytes(content)
    config = FolderConfig(path=str(folder), resize=8)
    for call in (config.info, lambda: load(config, "train")):
        try:
            call()
        except DataError as error:
            assert "fuzz.png" in error.what


def test_many_images_come_in_order(tmp_path):
    folder = Path(tmp_path)
    for index in range(300):
        Image.new("L", (4, 4), index % 256).save(folder / f"{index:03}.png")
    data = load(FolderConfig(path=str(folder), channels=1), "train")
    assert (data.images[:, 0, 0, 0] == np.arange(300) % 256).all()
