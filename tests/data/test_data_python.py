"""Images that a program passes: what is accepted, how it is converted, and what is recorded."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from errors_help import raises
from PIL import Image
from shards_help import png

from cascadezoo import DataConfig, ImageData
from cascadezoo.data.folder import FolderConfig
from cascadezoo.data.python_config import PythonConfig, load
from cascadezoo.data.python_data import read_given
from cascadezoo.data.python_spec import load_spec_with
from cascadezoo.data.shapes import ShapesConfig
from cascadezoo.errors import DataError, InputError, SpecError
from cascadezoo.spec import load_spec, resolve
from cascadezoo.spec.advice import spec_warnings

rng = np.random.default_rng(0)
PIXELS = rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3
SPEC: dict[str, Any] = {"name": "mine", "stages": [{"name": "coarse", "kind": "flow"}]}


class Pictures(torch.utils.data.Dataset[Any]):
    """A map-style dataset in the way of torchvision."""

    classes = ["ant", "bee", "cat"]

    def __init__(self, transform: Any = Image.fromarray) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return len(PIXELS)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        return self.transform(PIXELS[row]), int(LABELS[row])


def train(data: Any, **options: Any) -> ImageData:
    found = read_given(data, **options).splits["train"]
    assert isinstance(found, ImageData)
    return found


def floats(low: float) -> Any:
    """torchvision's ToTensor, and with ``low`` of -1 its usual Normalize."""

    def transform(pixels: Any) -> torch.Tensor:
        unit = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        return unit if low == 0 else unit * 2 - 1

    return transform


SAME: dict[str, Any] = {
    "array": (PIXELS, LABELS),
    "channels first": (np.ascontiguousarray(PIXELS.transpose(0, 3, 1, 2)), LABELS.tolist()),
    "tensors": (torch.from_numpy(PIXELS).permute(0, 3, 1, 2), torch.from_numpy(LABELS)),
    "pictures": Pictures(),
    "subset": torch.utils.data.Subset(Pictures(), range(12)),
    "tensor dataset": torch.utils.data.TensorDataset(
        torch.from_numpy(PIXELS).permute(0, 3, 1, 2), torch.from_numpy(LABELS)
    ),
    "unit floats": Pictures(floats(0)),
    "signed floats": Pictures(floats(-1)),
    "list": [(Image.fromarray(p), int(n)) for p, n in zip(PIXELS, LABELS, strict=True)],
    "image data": ImageData(np.ascontiguousarray(PIXELS.transpose(0, 3, 1, 2)), LABELS, "train"),
}


@pytest.mark.parametrize("form", SAME)
def test_all_forms_of_the_same_images_are_equal(form: str) -> None:
    given = read_given(SAME[form])
    data = given.splits["train"]
    assert isinstance(data, ImageData)
    assert np.array_equal(data.images, PIXELS.transpose(0, 3, 1, 2))
    assert data.labels is not None
    assert data.labels.tolist() == LABELS.tolist()
    assert given.config() == read_given(SAME["array"]).config()
    named = form in ("pictures", "subset", "unit floats", "signed floats")
    assert given.class_names == (("ant", "bee", "cat") if named else None)


@pytest.mark.filterwarnings("default")  # datasets warns about objects of other packages
def test_a_dataset_of_hugging_face() -> None:
    datasets = pytest.importorskip("datasets", reason="the library datasets is not installed")
    features = datasets.Features(
        {
            "id": datasets.Value("int64"),
            "picture": datasets.Image(),
            "label": datasets.ClassLabel(names=["ant", "bee", "cat"]),
        }
    )
    import pyarrow

    pictures = [{"bytes": png(pixels), "path": None} for pixels in PIXELS]
    table = pyarrow.table(
        {
            "id": list(range(12)),
            "picture": pyarrow.array(pictures, type=datasets.Image().pa_type),
            "label": LABELS.tolist(),
        }
    )
    # A stated fingerprint: some versions of dill cannot pickle what some of pyarrow contain.
    info = datasets.DatasetInfo(features=features)
    whole = datasets.Dataset(table, info=info, fingerprint="0")
    given = read_given(datasets.DatasetDict({"train": whole, "test": whole.select(range(4))}))
    assert given.class_names == ("ant", "bee", "cat")
    assert given.config().train == read_given(SAME["array"]).config().train
    assert given.config().test is not None
    assert given.config().test.count == 4
    # Whatever format the rows have, the images are the same.
    assert read_given(whole.with_format("numpy")).config().train == given.config().train
    with raises(DataError, "data-columns"):
        read_given(whole.remove_columns("picture"))
    with raises(InputError, "input-data-type"):
        read_given(whole.to_iterable_dataset())


def test_pictures_of_every_mode() -> None:
    grey = Image.new("L", (8, 8), 7)
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert train([grey]).images.shape == (1, 1, 8, 8)
    both = train([grey, clear]).images
    assert both.shape == (2, 3, 8, 8)
    assert (both[0] == 7).all()
    assert (both[1] == 255).all()  # on white, as files
    assert (train([Image.new("La", (8, 8), (0, 0))]).images == 255).all()
    with raises(DataError, "data-pixel-type"):
        train([Image.new("I;16", (8, 8))])


def test_one_range_of_floats_for_all_images() -> None:
    dark, light = np.full((8, 8), -1.0, np.float32), np.full((8, 8), 0.5, np.float32)
    assert train([light, light]).images.max() == 128  # 0.5 of 255, rounded
    assert train([light, dark]).images[0].max() == 191  # halfway between 0 and 1 in [-1, 1]
    splits = read_given({"train": [light], "test": [dark]}).splits
    assert splits["train"].images.max() == 191  # type: ignore[union-attr]
    for bad in (np.full((8, 8), 255.0), np.full((8, 8), np.nan), np.full((8, 8), -2.1)):
        with raises(DataError, "data-float-range"):
            train([bad])


def test_images_of_different_sizes_need_a_size() -> None:
    rows = [Image.new("RGB", (8, 8)), Image.new("RGB", (20, 10), "red")]
    with raises(DataError, "data-sizes-differ"):
        train(rows)
    resized = train(rows, size=6).images
    assert resized.shape == (2, 3, 6, 6)
    assert (resized[1, 0] == 255).all()
    assert load_spec_with(SPEC, rows, ["data.size=6"])[0].image.size == 6


class Failing(list[Any]):
    def __getitem__(self, row: Any) -> Any:
        raise OSError("no such file")


@pytest.mark.parametrize(
    ("data", "kind", "code"),
    [
        ("photos/", InputError, "input-data-type"),
        (iter([1]), InputError, "input-data-type"),
        (torch.utils.data.DataLoader(Pictures()), InputError, "input-data-type"),
        ({"images": PIXELS, "labels": LABELS}, InputError, "input-data-splits"),
        ({}, InputError, "input-data-splits"),
        ({"train": None, "test": None}, InputError, "input-data-splits"),
        ([], DataError, "data-no-images"),
        ([{"image": 1}], DataError, "data-item-type"),
        (Failing([1]), DataError, "data-item-failed"),
        ([(PIXELS[0], 1.0)], DataError, "data-labels-not-whole"),
        ([(PIXELS[0], True)], DataError, "data-labels-not-whole"),
        ([(PIXELS[0], -2)], DataError, "data-labels-out-of-range"),
        ([(PIXELS[0], 2**31)], DataError, "data-labels-out-of-range"),
        ([(PIXELS[0], 1), (PIXELS[1], None)], DataError, "data-labels-missing"),
        ((PIXELS, LABELS[:3]), DataError, "data-labels-form"),
        ((PIXELS, LABELS / 2), DataError, "data-labels-form"),
        ((PIXELS[:2], [[0], [1, 2]]), DataError, "data-labels-form"),
        ((PIXELS[:2], [0, 2_000_000]), DataError, "data-labels-out-of-range"),
        (ImageData(np.zeros((1, 4, 8, 8), np.uint8), None, "train"), DataError, "data-images-form"),
        (np.zeros((1, 1, 70_000), np.uint8), DataError, "data-images-form"),
        (PIXELS.astype(np.int64), DataError, "data-pixel-type"),
        (PIXELS[0, 0], DataError, "data-images-form"),
        ({"train": PIXELS, "test": PIXELS[:, :4]}, DataError, "data-splits-differ"),
    ],
)
def test_what_is_refused(data: Any, kind: type[DataError], code: str) -> None:
    with raises(kind, code) as caught:
        read_given(data).config()
    assert caught.value.hint or code in ("data-no-images", "data-item-failed")


@pytest.mark.parametrize("form", ["items", "arrays", "images"])
def test_negative_labels_are_refused(form: str) -> None:
    """Hugging Face marks images without a label by -1."""
    labels = np.where(np.arange(12) == 7, -1, LABELS)
    forms: dict[str, Any] = {
        "items": list(zip(PIXELS, labels.tolist(), strict=True)),
        "arrays": (PIXELS, labels),
        "images": ImageData(PIXELS.transpose(0, 3, 1, 2), labels, "test"),
    }
    with raises(DataError, "data-labels-out-of-range", low=-1) as caught:
        read_given({"train": Pictures(), "test": forms[form]})
    assert caught.value.what == "the label of test image 7 is -1"
    assert "without labels" in (caught.value.hint or "")


def test_a_damaged_file_that_is_decoded_late() -> None:
    whole = png(PIXELS[0])
    rows = [Image.open(io.BytesIO(data)) for data in (whole, whole[: len(whole) // 2])]
    with raises(DataError, "data-image-unreadable") as caught:
        train(rows)
    assert "train image 1" in caught.value.what


def test_more_labels_than_names() -> None:
    class Short(Pictures):
        classes = ["ant", "bee"]

    with raises(DataError, "data-labels-out-of-range"):
        read_given(Short()).config()


def test_what_the_spec_records() -> None:
    resolved, given = load_spec_with(SPEC, {"train": Pictures(), "test": Pictures()})
    assert given is not None
    data = resolved.spec.data
    assert (data.source, data.size, data.channels, data.num_classes) == ("python", 8, 3, 3)
    assert data.class_names == ["ant", "bee", "cat"]
    whole = given.split(resolved, "train")
    row = {"count": 12, "digest": whole.digest}
    assert data.config == {
        "height": 8,
        "width": 8,
        "channels": 3,
        "classes": 3,
        "train": row,
        "test": row,
    }
    assert resolved.data_info.test == 12
    # A resolved spec resolves to itself, says that commands cannot train it, and loads no images.
    again = resolve(resolved.spec.to_dict())
    assert again.spec == resolved.spec
    assert any("build_cascade(spec, data=...)" in text for text in spec_warnings(again))
    with raises(DataError, "data-given-in-python") as caught:
        load(PythonConfig.model_validate(data.config), "train")
    assert whole.digest[:12] in str(caught.value)


def test_what_is_kept_of_a_spec_with_another_dataset() -> None:
    base = load_spec("shapes-demo", settings=["data.flip=true"]).spec
    assert (base.data.size, base.data.num_classes) == (32, 8)
    resolved, given = load_spec_with(base, (PIXELS, LABELS))
    data = resolved.spec.data
    assert (data.size, data.flip, data.num_classes, data.class_names) == (32, True, 3, None)
    assert given is not None
    assert given.split(resolved, "train").images.shape == (12, 3, 32, 32)
    grey = load_spec_with(base, PIXELS[..., 0], ["data.fit=pad"])[0]
    assert (grey.spec.data.channels, grey.num_classes) == (1, None)
    plain = load_spec_with(base, Pictures(), ["data.num_classes=0"])[0]
    assert (plain.num_classes, plain.spec.data.class_names) == (None, None)


def test_other_images_than_those_of_the_spec() -> None:
    spec = load_spec_with(SPEC, (PIXELS, LABELS))[0].spec
    assert load_spec_with(spec, Pictures())[0].spec.training_digest() == spec.training_digest()
    with raises(DataError, "data-other-images"):
        load_spec_with(spec, (PIXELS[::-1], LABELS))
    with raises(DataError, "data-other-images"):
        load_spec_with(spec, (PIXELS, LABELS[::-1].copy()))
    with raises(SpecError, "spec", problems={"data.config.size": "extra-forbidden"}):
        load_spec_with({**SPEC, "data": {"source": "python", "config": {"size": 1}}}, PIXELS)


def test_a_spec_without_its_images() -> None:
    with raises(SpecError, "spec") as caught:
        load_spec({**SPEC, "data": {"source": "python"}})
    (problem,) = caught.value.problems
    assert (problem.path, problem.code) == ("data.config", "data-given-in-python")
    assert "build_cascade(spec, data=...)" in str(problem.hint)
    assert load_spec_with({**SPEC, "data": {"source": "python"}}, PIXELS)[0].image.size == 8


def test_the_config_of_a_registered_dataset() -> None:
    resolved, given = load_spec_with(SPEC, ShapesConfig(size=16, classes=4))
    assert given is None
    assert (resolved.spec.data.source, resolved.num_classes) == ("shapes", 4)
    assert resolved.class_names == ("circle", "square", "triangle", "star")

    # The classes and channels of images that were passed before are not those of the dataset.
    passed = load_spec_with(SPEC, (PIXELS, LABELS))[0].spec
    changed = load_spec_with(passed, ShapesConfig(size=16, classes=4))[0]
    assert changed.num_classes == 4
    assert changed.class_names == resolved.class_names

    class Unregistered(DataConfig):
        pass

    with raises(InputError, "input-data-config"):
        load_spec_with(SPEC, Unregistered())
    with raises(InputError, "input-data-twice"):
        load_spec_with(SPEC, PIXELS, ["data.source=shapes"])


def test_a_source_of_encoded_images(tmp_path: Path) -> None:
    from cascadezoo.data.folder import open_source

    for row, pixels in enumerate(PIXELS):
        folder = tmp_path / f"class-{row % 3}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{row:02d}.png")
    source = open_source(FolderConfig(path=str(tmp_path)), "train")
    resolved, given = load_spec_with(SPEC, source)
    assert given is not None
    assert (resolved.image.size, resolved.num_classes) == (8, 3)
    assert given.split(resolved, "train").images.shape == (12, 3, 8, 8)
    streamed, given = load_spec_with(SPEC, source, ["data.streaming=true"])
    assert given is not None
    assert type(given.split(streamed, "train")).__name__ == "StreamedData"
    with raises(DataError, "data-source-split"):
        read_given({"test": source})
    resident, given = load_spec_with(SPEC, PIXELS, ["data.streaming=true"])
    assert given is not None
    with raises(DataError, "data-not-streamable"):
        given.split(resident, "train")
    with raises(DataError, "data-given-in-python"):
        given.split(resident, "test")
