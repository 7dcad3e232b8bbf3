"""Cascades: sampling in any batch size, saving, loading, and damaged models."""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from errors_help import raises
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cascadezoo import Cascade
from cascadezoo.errors import (
    CascadezooError,
    InputError,
    ModelError,
    ModelReferenceError,
    SampleError,
    SpecError,
)
from cascadezoo.spec import load_spec

TINY = "diffusion-pixelshuffle-vit-tiny"


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    cascade = Cascade.from_spec(TINY)
    # Zero-initialised last layers would hide the effect of the stages.
    torch.manual_seed(0)
    for parameter in cascade.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return cascade.eval()


@pytest.fixture(scope="module")
def saved(cascade: Cascade, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cascade.save_pretrained(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def test_images_do_not_depend_on_the_batch_size(cascade: Cascade) -> None:
    whole = cascade.sample(7, seed=3, sampler="ddpm")
    for size in (1, 2, 3, 64):
        assert (
            cascade.sample(7, seed=3, batch_size=size, sampler="ddpm") - whole
        ).abs().max() < 1e-4
    parts = [
        cascade.sample(3, seed=3, sampler="ddpm"),
        cascade.sample(4, seed=3, first=3, sampler="ddpm"),
    ]
    assert (torch.cat(parts) - whole).abs().max() < 1e-4
    assert (cascade.sample(7, seed=4) - whole).abs().max() > 0.1


def test_sampling_has_no_side_effects(cascade: Cascade) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    images = cascade.train().sample(2)
    assert torch.equal(torch.rand(3), expected)
    assert not images.requires_grad
    assert cascade.training
    cascade.eval()


def test_outputs_of_all_stages_on_request(cascade: Cascade) -> None:
    stages = cascade.sample(5, return_stages=True, batch_size=2)
    assert {k: tuple(v.shape) for k, v in stages.items()} == {
        "coarse": (5, 3, 8, 8),
        "up": (5, 3, 16, 16),
        "refine": (5, 3, 16, 16),
    }
    assert torch.equal(stages["refine"], cascade.sample(5, batch_size=2))
    assert all(float(v.abs().max()) <= 1.0 for v in stages.values())


def test_labels(cascade: Cascade) -> None:
    cycled = cascade.sample(10, guidance=2.0)
    assert torch.equal(cycled, cascade.sample(10, guidance=2.0, labels=[*range(8), 0, 1]))
    later = cascade.sample(2, first=8, guidance=2.0)
    assert (later - cycled[8:]).abs().max() < 1e-4
    assert not torch.equal(cascade.sample(10, labels=3), cycled)
    assert torch.equal(
        cascade.sample(4, labels=torch.tensor([3, 3, 3, 3])), cascade.sample(4, labels=3)
    )


def test_options_by_stage(cascade: Cascade) -> None:
    assert torch.equal(cascade.sample(2, steps=3), cascade.sample(2, steps={"coarse": 3}))
    assert not torch.equal(cascade.sample(2, steps=3), cascade.sample(2, steps=8))


def test_progress_counts_finished_images(cascade: Cascade) -> None:
    done: list[int] = []
    cascade.sample(5, batch_size=2, progress=done.append)
    assert done == [2, 4, 5]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"n": 0}, {"code": "sample-count", "n": 0}),
        ({"batch_size": 0}, {"code": "sample-count", "batch_size": 0}),
        ({"first": -1}, {"code": "sample-count"}),
        ({"labels": 8}, {"code": "sample-label-out-of-range", "label": 8}),
        ({"labels": -1}, {"code": "sample-label-out-of-range", "label": -1}),
        ({"labels": [0]}, {"code": "sample-label-count", "labels": 1, "n": 2}),
        ({"steps": {"up": 3}}, {"code": "sample-option-unheeded-stage", "name": "up"}),
        ({"steps": {"unknown": 3}}, {"code": "sample-option-unheeded-stage", "name": "unknown"}),
        ({"steps": 9}, {"code": "sample-steps-too-many", "steps": 9}),
        ({"steps": 0}, {"code": "sample-steps-invalid"}),
        ({"sampler": "euler-a"}, {"code": "sample-sampler-unknown", "name": "euler-a"}),
        ({"guidance": -1.0}, {"code": "sample-guidance-invalid"}),
        ({"guidance": float("nan")}, {"code": "sample-guidance-invalid"}),
    ],
)
def test_invalid_requests(cascade: Cascade, options, error: dict[str, Any]) -> None:
    with raises(SampleError, **error):
        cascade.sample(**{"n": 2, **options})


def test_without_labels_no_labels_and_no_guidance() -> None:
    plain = Cascade.from_spec(load_spec(TINY, settings=["data.num_classes=0"]).spec)
    assert plain.sample(2).shape == (2, 3, 16, 16)
    for options in ({"labels": 0}, {"guidance": 1.0}):
        code = "no-labels" if "labels" in options else "option-needs-labels"
        with raises(SampleError, f"sample-{code}"):
            plain.sample(2, **options)


def test_initial_weights_depend_on_the_seed() -> None:
    one, two = Cascade.from_spec(TINY), Cascade.from_spec(TINY)
    other = Cascade.from_spec(TINY, seed=9)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert any(
        not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )


def test_a_loaded_cascade_equals_the_saved_one(cascade: Cascade, saved: Path) -> None:
    loaded = Cascade.from_pretrained(saved)
    assert loaded.spec == cascade.spec
    assert not loaded.training
    expected, actual = cascade.state_dict(), loaded.state_dict()
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[k], actual[k]) for k in expected)
    assert torch.equal(loaded.sample(3, seed=2), cascade.sample(3, seed=2))


def test_loading_initialises_nothing(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        device = args[0].device  # type: ignore[attr-defined]
        if device.type != "meta":
            raise AssertionError("a weight was initialised")

    for name in ("kaiming_uniform_", "uniform_", "normal_", "trunc_normal_"):
        monkeypatch.setattr(torch.nn.init, name, refuse)
    Cascade.from_pretrained(saved)


def damaged_header(data: bytes, change: Callable[[dict], None]) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def reseal(folder: Path) -> None:
    """Update sha256 and size in config.json, as a forger would."""
    import hashlib

    config = json.loads((folder / "config.json").read_text())
    for name in config["files"]:
        data = (folder / name).read_bytes()
        config["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    (folder / "config.json").write_text(json.dumps(config))


UP = "stages/up/model.safetensors"


def edit_config(folder: Path, change: Callable[[dict], None]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_a_truncated_file(folder: Path) -> None:
    path = folder / UP
    path.write_bytes(path.read_bytes()[:-1])
    with raises(ModelError, "model-damaged", path="model", faults={UP: "size"}):
        Cascade.from_pretrained(folder)


def test_a_flipped_bit(folder: Path) -> None:
    data = bytearray((folder / UP).read_bytes())
    data[-1] ^= 1
    (folder / UP).write_bytes(data)
    with raises(ModelError, "model-damaged", path="model", faults={UP: "content"}):
        Cascade.from_pretrained(folder)


def age(folder: Path) -> None:
    """Wait until a further change of a file must change its time stamp."""
    from cascadezoo.model_folder import verified_files as verified

    limit = time.monotonic() + verified.SETTLED + 0.2
    while time.monotonic() < limit:
        time.sleep(0.05)


def test_a_verified_file_is_hashed_again_after_a_change(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cascadezoo.model_folder import integrity

    monkeypatch.setenv("CASCADEZOO_CACHE", str(tmp_path / "cache"))
    hashed: list[str] = []
    real = integrity.file_sha256

    def record(folder: Path, name: str) -> str:
        hashed.append(name.split("/")[1])
        return real(folder, name)

    monkeypatch.setattr(integrity, "file_sha256", record)
    Cascade.from_pretrained(folder)
    Cascade.from_pretrained(folder)
    assert sorted(hashed) == [
        "coarse",
        "coarse",
        "refine",
        "refine",
        "up",
        "up",
    ]  # changed too recently
    age(folder)
    Cascade.from_pretrained(folder)
    hashed.clear()
    Cascade.from_pretrained(folder)
    assert hashed == []
    path = folder / UP
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with raises(ModelError, "model-damaged", path="model", faults={UP: "content"}):
        Cascade.from_pretrained(folder)
    assert hashed == ["up"]


def test_a_missing_file(folder: Path) -> None:
    (folder / UP).unlink()
    with raises(ModelError, "model-damaged", path="model", faults={UP: "missing"}):
        Cascade.from_pretrained(folder)


def test_weights_of_a_different_shape(folder: Path) -> None:
    other = Cascade.from_spec(load_spec(TINY, settings=["stages.up.config.hidden=24"]).spec)
    other.save_pretrained(folder.parent / "other")
    shutil.copy(folder.parent / "other" / UP, folder / UP)
    reseal(folder)
    with raises(
        ModelError,
        "model-weights-mismatch",
        path="model.safetensors",
        tensors={"network.stem.bias": "shape"},
    ):
        Cascade.from_pretrained(folder)


def test_unknown_and_missing_tensors(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / UP)
    first = sorted(state)[0]
    state["backdoor"] = state.pop(first)
    save_file(state, folder / UP)
    reseal(folder)
    with raises(
        ModelError,
        "model-weights-mismatch",
        path="model.safetensors",
        tensors={"network.blocks.0.conv.bias": "missing", "backdoor": "unknown"},
    ):
        Cascade.from_pretrained(folder)


def test_weights_of_a_different_type(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file({k: v.double() for k, v in load_file(folder / UP).items()}, folder / UP)
    reseal(folder)
    with raises(
        ModelError,
        "model-weights-mismatch",
        path="model.safetensors",
        tensors={"network.stem.bias": "dtype"},
    ):
        Cascade.from_pretrained(folder)


def test_a_pickle_instead_of_safetensors(folder: Path) -> None:
    torch.save({"a": torch.zeros(1)}, folder / UP)
    reseal(folder)
    with raises(ModelError, "model-weights-unreadable", path="model.safetensors"):
        Cascade.from_pretrained(folder)


def test_a_header_that_claims_more_than_the_file_contains(folder: Path) -> None:
    def grow(header: dict) -> None:
        name = next(k for k in header if k != "__metadata__")
        header[name]["shape"] = [2**40, 2**20]

    path = folder / UP
    path.write_bytes(damaged_header(path.read_bytes(), grow))
    reseal(folder)
    with raises(ModelError, "model-weights-unreadable", path=UP):
        Cascade.from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            lambda c: c.pop("spec"),
            {"code": "model-config-invalid", "problems": {"spec": "missing"}},
        ),
        (lambda c: c.update(library_name="diffusers"), {"code": "model-config-foreign"}),
        (
            lambda c: c.update(extra=1),
            {"code": "model-config-invalid", "problems": {"extra": "extra-forbidden"}},
        ),
        (
            lambda c: c.update(files={"../../etc/passwd": {"sha256": "0" * 64, "size": 1}}),
            {"code": "model-config-lists-strange", "name": "../../etc/passwd"},
        ),
        (
            lambda c: c.update(files={"/etc/passwd": {"sha256": "0" * 64, "size": 1}}),
            {"code": "model-config-lists-strange", "name": "/etc/passwd"},
        ),
        (lambda c: c["files"].pop(UP), {"code": "model-damaged", "faults": {UP: "unlisted"}}),
        (
            lambda c: c["spec"].update(stages=[]),
            {"code": "spec", "problems": {"stages": "too-short"}},
        ),
        (
            lambda c: c["spec"]["stages"][1].update(kind="evil.v1"),
            {"code": "spec", "problems": {"stages.1.kind": "lookup"}},
        ),
        (
            lambda c: c["spec"]["stages"][1].update(kind="os:system"),
            {"code": "spec", "problems": {"stages.1.kind": "lookup"}},
        ),
        (
            lambda c: c["spec"]["stages"][1].update(name="../up"),
            {"code": "spec", "problems": {"stages.1.name": "string-pattern-mismatch"}},
        ),
        (
            lambda c: c["spec"]["stages"][1]["config"].update(hidden=10**9),
            {"code": "model-weights-mismatch", "tensors": {"network.stem.bias": "shape"}},
        ),
    ],
)
def test_a_forged_config(folder: Path, change, error: dict[str, Any]) -> None:
    edit_config(folder, change)
    with raises(SpecError if error["code"] == "spec" else ModelError, **error):
        Cascade.from_pretrained(folder)


def test_a_symbolic_link_in_the_folder_is_refused(folder: Path) -> None:
    (folder / "samples.png").symlink_to("/etc/hostname")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with raises(ModelError, "model-symlink", name="samples.png", path="model"):
        Cascade.from_spec(TINY, seed=5).save_pretrained(folder)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_invalid_references(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for reference, code, name in (
        (tmp_path / "empty", "no-model", tmp_path / "empty"),
        (tmp_path / "file", "is-file", tmp_path / "file"),
        ("hf://org", "not-a-repo", "org"),
        ("hf://org/name@a..b", "not-a-revision", "a..b"),
        ("shapes-nothing", "not-found", "shapes-nothing"),
        (tmp_path / "nowhere", "no-folder", tmp_path / "nowhere"),
    ):
        field = {"path" if isinstance(name, Path) else "name": name}
        with raises(ModelReferenceError, f"reference-{code}", **field):
            Cascade.from_pretrained(reference)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_damaged_files_raise_only_cascadezoo_errors(
    saved: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz") / "model"
    shutil.copytree(saved, folder)
    name = data.draw(st.sampled_from(["config.json", UP, "stages/coarse/model.safetensors"]))
    content = bytearray((folder / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        # Mostly in the header, which contains lengths and offsets.
        offset = data.draw(st.integers(0, min(len(content), 600) - 1))
        content[offset] = data.draw(st.integers(0, 255))
    (folder / name).write_bytes(content)
    if name != "config.json":
        reseal(folder)
    try:
        Cascade.from_pretrained(folder)
    except CascadezooError as error:
        assert error.what


@pytest.mark.parametrize(
    ("images", "code"),
    [
        (np.zeros((2, 3, 16, 16), np.uint8), "input-images-dtype"),
        (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), "input-images-dtype"),
        (torch.zeros(3, 16, 16), "input-images-shape"),
        (torch.zeros(2, 3, 8, 8), "input-images-shape"),
        (torch.zeros(2, 1, 16, 16), "input-images-shape"),
    ],
)
def test_targets_of_other_images_are_refused(images: Any, code: str) -> None:
    cascade = Cascade.from_spec(load_spec("diffusion-pixelshuffle-vit-tiny"))
    with raises(InputError, code):
        cascade.targets(images)
    assert [tuple(t.shape) for t in cascade.targets(torch.zeros(2, 3, 16, 16))][-1] == (
        2,
        3,
        16,
        16,
    )
