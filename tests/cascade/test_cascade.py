"""Cascades: sampled the same in any batch, saved and loaded whole, and refused when damaged."""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from errors_help import raises
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cascadezoo import Cascade
from cascadezoo.errors import (
    CascadezooError,
    ModelError,
    ModelReferenceError,
    SampleError,
    SpecError,
)
from cascadezoo.spec import load_spec

TINY = "diffusion-pixelshuffle-vit-tiny"


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    made = Cascade.from_spec(TINY)
    # Zero-initialised last layers would hide what the stages do.
    torch.manual_seed(0)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made.eval()


@pytest.fixture(scope="module")
def saved(cascade: Cascade, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cascade.save_pretrained(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def test_the_same_seed_gives_the_same_images_in_any_batch(cascade: Cascade) -> None:
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


def test_sampling_leaves_no_trace(cascade: Cascade) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    images = cascade.train().sample(2)
    assert torch.equal(torch.rand(3), expected)
    assert not images.requires_grad
    assert cascade.training
    cascade.eval()


def test_stages_are_given_on_request(cascade: Cascade) -> None:
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


def test_progress_tells_how_many_are_done(cascade: Cascade) -> None:
    done: list[int] = []
    cascade.sample(5, batch_size=2, progress=done.append)
    assert done == [2, 4, 5]


@pytest.mark.parametrize(
    "options",
    [
        {"n": 0},
        {"batch_size": 0},
        {"first": -1},
        {"labels": 8},
        {"labels": -1},
        {"labels": [0]},
        {"steps": {"up": 3}},
        {"steps": {"nobody": 3}},
        {"steps": 9},
        {"steps": 0},
        {"sampler": "euler-a"},
        {"guidance": -1.0},
        {"guidance": float("nan")},
    ],
)
def test_requests_that_cannot_be_served(cascade: Cascade, options) -> None:
    with pytest.raises(SampleError):
        cascade.sample(**{"n": 2, **options})


def test_no_labels_no_guidance() -> None:
    plain = Cascade.from_spec(load_spec(TINY, settings=["data.num_classes=0"]).spec)
    assert plain.sample(2).shape == (2, 3, 16, 16)
    for options in ({"labels": 0}, {"guidance": 1.0}):
        code = "no-labels" if "labels" in options else "option-needs-labels"
        with raises(SampleError, f"sample-{code}"):
            plain.sample(2, **options)


def test_initial_weights_follow_from_the_seed_and_the_stage() -> None:
    one, two = Cascade.from_spec(TINY), Cascade.from_spec(TINY)
    other = Cascade.from_spec(TINY, seed=9)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert any(
        not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )


def test_saved_and_loaded_is_the_same(cascade: Cascade, saved: Path) -> None:
    loaded = Cascade.from_pretrained(saved)
    assert loaded.spec == cascade.spec
    assert not loaded.training
    mine, theirs = cascade.state_dict(), loaded.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[k], theirs[k]) for k in mine)
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
    """Make sha256 and size of config.json fit the files again, as a forger would."""
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
    with raises(ModelError, "model-damaged", path="model", faults={UP: "size"}) as caught:
        Cascade.from_pretrained(folder)
    assert "again" in str(caught.value.hint)


def test_a_flipped_bit(folder: Path) -> None:
    data = bytearray((folder / UP).read_bytes())
    data[-1] ^= 1
    (folder / UP).write_bytes(data)
    with raises(ModelError, "model-damaged", path="model", faults={UP: "content"}):
        Cascade.from_pretrained(folder)


def age(folder: Path) -> None:
    """Let the clock pass the grain within which a change could go unseen."""
    from cascadezoo.model_folder import verified_files as verified

    limit = time.monotonic() + verified.SETTLED + 0.2
    while time.monotonic() < limit:
        time.sleep(0.05)


def test_a_file_that_was_verified_is_hashed_again_once_it_is_touched(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cascadezoo.model_folder import integrity

    monkeypatch.setenv("CASCADEZOO_CACHE", str(tmp_path / "cache"))
    hashed: list[str] = []
    real = integrity.sha256_of
    monkeypatch.setattr(integrity, "sha256_of", lambda p: hashed.append(p.parent.name) or real(p))
    Cascade.from_pretrained(folder)
    Cascade.from_pretrained(folder)
    assert sorted(hashed) == ["coarse", "coarse", "refine", "refine", "up", "up"]  # too fresh
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


def test_weights_of_another_shape_are_refused_before_they_are_read(folder: Path) -> None:
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


def test_tensors_too_many_and_too_few(folder: Path) -> None:
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


def test_another_number_type(folder: Path) -> None:
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


def test_a_pickle_in_the_place_of_safetensors(folder: Path) -> None:
    torch.save({"a": torch.zeros(1)}, folder / UP)
    reseal(folder)
    with raises(ModelError, "model-weights-unreadable", path="model.safetensors"):
        Cascade.from_pretrained(folder)


def test_a_header_that_claims_more_than_there_is(folder: Path) -> None:
    def grow(header: dict) -> None:
        name = next(k for k in header if k != "__metadata__")
        header[name]["shape"] = [2**40, 2**20]

    path = folder / UP
    path.write_bytes(damaged_header(path.read_bytes(), grow))
    reseal(folder)
    with pytest.raises(ModelError):
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
def test_a_config_that_was_tampered_with(folder: Path, change, error: dict[str, Any]) -> None:
    edit_config(folder, change)
    with raises(SpecError if error["code"] == "spec" else ModelError, **error):
        Cascade.from_pretrained(folder)


def test_a_link_in_the_folder_is_not_published(folder: Path) -> None:
    (folder / "samples.png").symlink_to("/etc/hostname")
    with raises(ModelError, "model-symlink", name="samples.png", path="model"):
        Cascade.from_spec(TINY).save_pretrained(folder)


def test_references_that_lead_nowhere(tmp_path: Path) -> None:
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
def test_whatever_is_in_the_files_only_our_errors_come_out(
    saved: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz") / "model"
    shutil.copytree(saved, folder)
    name = data.draw(st.sampled_from(["config.json", UP, "stages/coarse/model.safetensors"]))
    content = bytearray((folder / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        # Mostly in the header, where lengths and offsets are.
        place = data.draw(st.integers(0, min(len(content), 600) - 1))
        content[place] = data.draw(st.integers(0, 255))
    (folder / name).write_bytes(content)
    if name != "config.json":
        reseal(folder)
    try:
        Cascade.from_pretrained(folder)
    except CascadezooError as error:
        assert error.what
