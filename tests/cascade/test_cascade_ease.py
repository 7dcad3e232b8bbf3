"""Sampling as users of other libraries expect it: labels by name, seeds, formats, stages by name."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from errors_help import raises
from PIL import Image

from cascadezoo import Cascade, load_spec
from cascadezoo.cascade.labels import labels_count
from cascadezoo.data.pixels import to_uint8
from cascadezoo.errors import InputError, SampleError
from cascadezoo.spec.labels import label_from_text, label_number

FEW = {"steps": 1}
NAMES = ("circle", "square", "triangle", "star", "heart", "ring", "cross", "moon")


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    return Cascade.from_pretrained("shapes-tiny")


def test_a_bundled_model_knows_its_class_names(cascade: Cascade) -> None:
    names = cascade.class_names
    assert names is not None
    assert len(names) == cascade.resolved.num_classes
    assert "star" in names
    assert "ring" in names


def test_labels_are_class_names(cascade: Cascade) -> None:
    names = cascade.class_names or ()
    numbers = [names.index("star"), names.index("ring")]
    by_name = cascade.sample(labels=["star", "ring"], **FEW)
    assert len(by_name) == 2
    assert torch.equal(by_name, cascade.sample(2, labels=numbers, **FEW))
    assert torch.equal(by_name, cascade.sample(labels=torch.tensor(numbers), **FEW))
    assert torch.equal(
        cascade.sample(2, labels="star", **FEW), cascade.sample(2, labels=numbers[0], **FEW)
    )
    negative = [
        cascade.sample(1, options={"negative_label": label}, **FEW)
        for label in ("ring", numbers[1], numbers[0])
    ]
    assert torch.equal(negative[0], negative[1])
    assert not torch.equal(negative[0], negative[2])


def test_unknown_labels_are_refused(cascade: Cascade) -> None:
    with raises(SampleError, "sample-class-unknown", label="Starr") as caught:
        cascade.sample(labels=["Starr"], **FEW)
    assert "did you mean 'star'?" in (caught.value.hint or "")
    with raises(SampleError, "sample-label-type", label=1.5):
        cascade.sample(labels=[1.5], **FEW)  # type: ignore[list-item]
    with raises(SampleError, "sample-label-out-of-range", label=99) as caught:
        cascade.sample(1, labels=99, **FEW)
    assert "'star'" in (caught.value.hint or "")
    with raises(SampleError, "sample-label-count", labels=2, n=3):
        cascade.sample(3, labels=["star", "ring"], **FEW)


def test_names_that_do_not_decide() -> None:
    with raises(SampleError, "sample-class-name-twice", label="a"):
        label_number("a", 2, ("a", "a"))
    with raises(SampleError, "sample-class-names-unknown", label="a"):
        label_number("a", 2, None)
    # A name that looks like a number is a name.
    assert label_number("1", 2, ("1", "0")) == 0
    assert labels_count(torch.tensor(3)) is None


def test_labels_of_the_command_line() -> None:
    names = ("1", "0", "name:2")
    with raises(SampleError, "sample-label-ambiguous", label="1") as caught:
        label_from_text("1", 3, names)
    assert caught.value.hint == "write name:1 or number:1"
    assert label_from_text("name:1", 3, names) == 0
    assert label_from_text("number:1", 3, names) == 1
    assert label_from_text("2", 3, names) == 2
    assert label_from_text("name:name:2", 3, names) == 2
    assert [label_from_text(text, 2, None) for text in ("0", "number:1")] == [0, 1]
    with raises(SampleError, "sample-no-labels"):
        label_from_text("star", None, None)


def test_a_seed_of_none_is_random(cascade: Cascade) -> None:
    first, second = (cascade.sample(1, seed=None, **FEW) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(cascade.sample(1, seed=np.int64(3), **FEW), cascade.sample(1, seed=3, **FEW))


@pytest.mark.parametrize("seed", ["a", 1.5, -1, 2**63, True, torch.tensor(1)])
def test_other_seeds_are_refused(cascade: Cascade, seed: object) -> None:
    with raises(SampleError, "sample-seed-invalid"):
        cascade.sample(1, seed=seed, **FEW)  # type: ignore[arg-type]


def test_a_generator_draws_the_seed(cascade: Cascade) -> None:
    def twice() -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(4)
        return [cascade.sample(1, generator=generator, **FEW) for _ in range(2)]

    first, second = twice()
    assert not torch.equal(first, second)
    again = twice()
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])
    with raises(SampleError, "sample-seed-and-generator"):
        cascade.sample(1, seed=1, generator=torch.Generator(), **FEW)


def test_output_types(cascade: Cascade) -> None:
    images = cascade.sample(2, **FEW)
    array = cascade.sample(2, output_type="np", **FEW)
    pictures = cascade.sample(2, output_type="pil", **FEW)
    assert array.dtype == np.uint8
    assert array.shape == (2, 32, 32, 3)
    assert np.array_equal(array, to_uint8(images).permute(0, 2, 3, 1).numpy())
    assert [p.mode for p in pictures] == ["RGB", "RGB"]
    assert np.array_equal(np.asarray(pictures[1]), array[1])
    stages = cascade.sample(1, return_stages=True, output_type="pil", **FEW)
    assert [row[0].size for row in stages.values()] == [(16, 16), (32, 32), (32, 32)]
    coarse = cascade.sample(1, return_stages=True, **FEW)["coarse"]
    refined = cascade.sample_from("up", coarse, output_type="np")
    assert np.array_equal(refined, array[:1])
    with raises(SampleError, "sample-output-type-unknown", name="jpg"):
        cascade.sample(1, output_type="jpg", **FEW)  # type: ignore[call-overload]


def test_latents_are_no_pictures() -> None:
    latent = Cascade.from_spec("mnist-latent-flow")
    with raises(SampleError, "sample-latents-as-pictures"):
        latent.sample(1, return_stages=True, output_type="pil", **FEW)


def test_stages_by_name(cascade: Cascade) -> None:
    assert cascade["up"] is cascade.stage("up")
    assert list(cascade) == cascade.names
    assert len(cascade) == 3
    assert "up" in cascade
    assert "down" not in cascade
    with pytest.raises(KeyError, match="coarse, up, refine"):
        cascade["down"]


def test_an_unknown_sampler_is_refused_before_sampling(cascade: Cascade) -> None:
    drawn: list[str] = []
    with raises(SampleError, "sample-sampler-unknown", name="ddim", stage="coarse") as caught:
        cascade.sample(1, sampler="ddim", watch=lambda name, image: drawn.append(name))
    assert caught.value.hint == "the samplers are coarse: euler, heun, midpoint"
    assert not drawn


def test_a_missing_device_is_an_error() -> None:
    for device in ("cuda:63", torch.device("cuda", 63)):
        with raises(InputError, "input-device-missing", name="cuda:63"):
            Cascade.from_pretrained("shapes-tiny", device=device)
        with raises(InputError, "input-device-missing", name="cuda:63"):
            Cascade.from_spec("shapes-demo", device=device)
    with raises(InputError, "input-device-unknown", name="abacus"):
        Cascade.from_pretrained("shapes-tiny", device="abacus")
    assert Cascade.from_pretrained("shapes-tiny", device="auto").device.type in (
        "cpu",
        "cuda",
        "mps",
    )


def test_the_spec_of_a_cascade_cannot_change(cascade: Cascade) -> None:
    before = cascade.spec.digest()
    with pytest.raises(TypeError, match=r"to_dict\(\)"):
        cascade.spec.stages[0].config["steps"] = 3
    with pytest.raises(TypeError, match="read-only"):
        cascade.resolved.stages[0].config.multipliers.append(2)
    assert cascade.spec.digest() == before
    data = cascade.spec.to_dict()
    data["stages"][0]["config"]["steps"] = 3
    assert load_spec(data).spec.digest() != before


def pictures_of(html: str) -> list[Image.Image]:
    rows = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(row))) for row in rows]


def test_a_notebook_shows_spec_sizes_and_samples(cascade: Cascade) -> None:
    html = cascade._repr_html_()
    for text in ("shapes-tiny", "flow.v1", "3x32x32", "star"):
        assert text in html
    (picture,) = pictures_of(html)
    assert picture.width > 32


def test_a_notebook_shows_samples_of_a_cascade_without_a_folder() -> None:
    data = {**load_spec("shapes-demo").spec.to_dict(), "description": "<script>alert(1)</script>"}
    html = Cascade.from_spec(data)._repr_html_()
    assert "<script>" not in html
    (picture,) = pictures_of(html)
    assert picture.size == (4 * 96, 96)


def test_compiled_modules_are_saved_under_names_that_load(tmp_path: Path) -> None:
    cascade = Cascade.from_pretrained("shapes-tiny")
    plain = {name: set(stage.saved_state()) for name, stage in cascade.named_stages()}
    # Nothing is compiled before the first call.
    cascade["coarse"].network = torch.compile(cascade["coarse"].network)
    inner = next(name for name, _ in cascade["up"].named_children())
    setattr(cascade["up"], inner, torch.compile(getattr(cascade["up"], inner)))
    assert any("_orig_mod" in name for name in cascade.state_dict())
    assert {name: set(stage.saved_state()) for name, stage in cascade.named_stages()} == plain
    again = Cascade.from_pretrained(cascade.save_pretrained(tmp_path / "model"))
    original = Cascade.from_pretrained("shapes-tiny").state_dict()
    assert again.state_dict().keys() == original.keys()
    assert all(torch.equal(value, original[name]) for name, value in again.state_dict().items())
