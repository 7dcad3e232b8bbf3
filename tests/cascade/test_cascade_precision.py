"""Sampling in half precision, and compiled cascades."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from errors_help import raises

from cascadezoo import Cascade
from cascadezoo.cascade.sampling import autocast
from cascadezoo.errors import InputError, SampleError

TINY = "diffusion-pixelshuffle-vit-tiny"


@pytest.fixture
def cascade() -> Cascade:
    cascade = Cascade.from_spec(TINY)
    torch.manual_seed(0)
    for parameter in cascade.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return cascade.eval()


def test_bf16_samples_are_close_to_fp32_and_are_float32(cascade: Cascade) -> None:
    plain, half = cascade.sample(4), cascade.sample(4, precision="bf16")
    assert half.dtype == torch.float32
    assert all(parameter.dtype == torch.float32 for parameter in cascade.parameters())
    assert 0 < (plain - half).abs().mean() < 0.02
    assert torch.equal(cascade.sample(4, precision="fp32"), plain)


def test_sample_from_in_half_precision(cascade: Cascade) -> None:
    coarse = cascade.sample(2, return_stages=True)["coarse"]
    plain = cascade.sample_from("up", coarse)
    half = cascade.sample_from("up", coarse, precision="bf16")
    assert 0 < (plain - half).abs().mean() < 0.02


@pytest.mark.parametrize(
    ("precision", "code"),
    [("fp8", "sample-precision-unknown"), ("fp16", "sample-fp16-on-cpu")],
)
def test_unsupported_precisions(cascade: Cascade, precision: Any, code: str) -> None:
    with raises(SampleError, code) as caught:
        cascade.sample(1, precision=precision)
    assert "bf16" in (caught.value.hint or "")


def test_a_compiled_cascade_samples_and_saves_like_an_uncompiled_one(
    cascade: Cascade, tmp_path: Path
) -> None:
    torch.compiler.reset()
    plain = cascade.sample(2)
    names = list(cascade.state_dict())
    assert cascade.compile("network", backend="eager") is cascade
    assert torch.allclose(cascade.sample(2), plain, rtol=0, atol=1e-5)
    assert list(cascade.state_dict()) == names
    loaded = Cascade.from_pretrained(cascade.save_pretrained(tmp_path / "model"))
    assert torch.equal(loaded.sample(2), plain)


def test_stages_are_compiled_by_name(cascade: Cascade) -> None:
    from cascadezoo.nn.compiled import is_compiled

    cascade.compile(stages=["up"], backend="eager")
    compiled = {name: is_compiled(stage) for name, stage in cascade.named_stages()}
    assert compiled == {"coarse": False, "up": True, "refine": False}
    with pytest.raises(KeyError):
        cascade.compile(stages=["no-such-stage"], backend="eager")


def test_a_device_without_a_compiler_is_refused() -> None:
    with torch.device("meta"):
        cascade = Cascade.from_spec(TINY)
    cascade.to("meta")
    with raises(InputError, "input-compile-impossible", device="meta") as caught:
        cascade.compile()
    assert caught.value.hint


def test_a_network_replaced_by_its_compiled_module_keeps_the_names_of_weights(
    cascade: Cascade, tmp_path: Path
) -> None:
    plain, names = cascade.sample(2), list(cascade.state_dict())
    stage: Any = cascade.stage("up")
    stage.network = torch.compile(stage.network, backend="eager")
    loaded = Cascade.from_pretrained(cascade.save_pretrained(tmp_path / "model"))
    assert list(loaded.state_dict()) == names
    assert torch.equal(loaded.sample(2), plain)


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_weights_in_half_precision_are_loaded_as_rounded(
    cascade: Cascade, tmp_path: Path, name: Any, dtype: torch.dtype
) -> None:
    whole = cascade.save_pretrained(tmp_path / "whole")
    half = cascade.save_pretrained(tmp_path / "half", weights=name)
    sizes = [sum(f.stat().st_size for f in p.rglob("*.safetensors")) for p in (whole, half)]
    assert 0.5 <= sizes[1] / sizes[0] < 0.56
    loaded = Cascade.from_pretrained(half).state_dict()
    for key, tensor in cascade.state_dict().items():
        assert loaded[key].dtype == tensor.dtype
        assert torch.equal(loaded[key], tensor.to(dtype).to(tensor.dtype))
    assert torch.equal(cascade.state_dict()[key], tensor)


def test_weights_too_large_for_half_precision(cascade: Cascade, tmp_path: Path) -> None:
    with torch.no_grad():
        next(cascade.parameters()).fill_(1e6)
    with raises(InputError, "input-weights-overflow"):
        cascade.save_pretrained(tmp_path / "a", weights="fp16")
    with raises(InputError, "input-weights-precision", name="int8"):
        cascade.save_pretrained(tmp_path / "b", weights="int8")  # type: ignore[arg-type]
    assert not list(tmp_path.rglob("*.safetensors"))
    cascade.save_pretrained(tmp_path / "c", weights="bf16")


FLOW = {
    "name": "flows",
    "data": {"source": "shapes", "config": {"size": 16, "count": 8, "test_count": 8}},
    "stages": [
        {"name": "coarse", "kind": "flow.v1", "config": {"size": 8, "channels": 8, "steps": 4}},
        {"name": "up", "kind": "flow-sr.v2", "config": {"channels": 8, "steps": 2}},
    ],
}


def stirred(spec: Any) -> Cascade:
    cascade = Cascade.from_spec(spec)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in cascade.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return cascade.eval()


@pytest.mark.parametrize("spec", [TINY, FLOW], ids=["diffusion", "flow"])
def test_a_cascade_moved_to_half_precision_samples_in_it(spec: Any) -> None:
    cascade = stirred(spec)
    plain, autocast = cascade.sample(4), cascade.sample(4, precision="bf16")
    buffers = {name: buffer.clone() for name, buffer in cascade.named_buffers()}
    assert cascade.dtype == torch.float32
    assert cascade.to(torch.bfloat16) is cascade
    assert cascade.dtype == torch.bfloat16
    for name, parameter in cascade.named_parameters():
        assert parameter.dtype == (torch.bfloat16 if parameter.ndim > 1 else torch.float32), name
    # A noise schedule in bfloat16 would give other levels than those of the training.
    for name, buffer in cascade.named_buffers():
        assert buffer.dtype == buffers[name].dtype
        assert torch.equal(buffer, buffers[name]), name
    half = cascade.sample(4)
    assert half.dtype == torch.float32
    assert half.isfinite().all()
    # Rounded weights differ as little from float32 as rounded products do.
    assert 0 < (half - plain).abs().mean() < 2 * (autocast - plain).abs().mean() + 1e-3
    assert torch.equal(cascade.sample(4, precision="bf16"), half)
    with raises(SampleError, "sample-weights-half", name="bf16") as caught:
        cascade.sample(1, precision="fp32")
    assert "dtype" in (caught.value.hint or "")
    assert cascade.float().dtype == torch.float32
    assert cascade.sample(1, precision="fp32").isfinite().all()


def test_half_precision_of_fp16_on_a_cpu_is_refused(cascade: Cascade) -> None:
    with raises(SampleError, "sample-fp16-on-cpu"):
        cascade.half().sample(1)


def test_a_stage_alone_is_converted_like_the_cascade(cascade: Cascade) -> None:
    cascade.stage("up").bfloat16()
    assert cascade.dtype == torch.bfloat16
    assert cascade.sample(2).isfinite().all()


@pytest.mark.parametrize("dtype", ["bf16", torch.bfloat16])
@pytest.mark.parametrize("stored", [None, "bf16"])
def test_weights_are_loaded_in_half_precision(
    cascade: Cascade, tmp_path: Path, dtype: Any, stored: Any
) -> None:
    folder = cascade.save_pretrained(tmp_path / "model", weights=stored)
    loaded = Cascade.from_pretrained(folder, dtype=dtype)
    assert loaded.dtype == torch.bfloat16
    sizes = [sum(p.nbytes for p in each.parameters()) for each in (cascade, loaded)]
    assert 0.5 <= sizes[1] / sizes[0] < 0.53
    expected = Cascade.from_pretrained(folder).to(torch.bfloat16)
    assert torch.equal(loaded.sample(2), expected.sample(2))


@pytest.mark.parametrize("dtype", [None, "fp32", torch.float32])
def test_weights_are_loaded_in_float32_by_default(
    cascade: Cascade, tmp_path: Path, dtype: Any
) -> None:
    folder = cascade.save_pretrained(tmp_path / "model")
    loaded = Cascade.from_pretrained(folder, dtype=dtype)
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded.sample(2), cascade.sample(2))


@pytest.mark.parametrize("dtype", ["int8", torch.int8, torch.float64, "float32"])
def test_weights_cannot_be_loaded_in_other_types(
    cascade: Cascade, tmp_path: Path, dtype: Any
) -> None:
    folder = cascade.save_pretrained(tmp_path / "model")
    with raises(InputError, "input-weights-precision", name=str(dtype)) as caught:
        Cascade.from_pretrained(folder, dtype=dtype)
    assert "bf16" in (caught.value.hint or "")


def test_weights_too_large_for_fp16_are_not_loaded(cascade: Cascade, tmp_path: Path) -> None:
    with torch.no_grad():
        next(p for p in cascade.parameters() if p.ndim > 1).fill_(1e6)
    folder = cascade.save_pretrained(tmp_path / "model")
    with raises(InputError, "input-weights-overflow"):
        Cascade.from_pretrained(folder, dtype="fp16")
    assert Cascade.from_pretrained(folder, dtype="bf16").dtype == torch.bfloat16


def test_bf16_on_a_device_without_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *version: False)
    with raises(SampleError, "sample-bf16-unsupported", name="mps") as caught:
        autocast(torch.device("mps"), "bf16")
    assert "fp32" in (caught.value.hint or "")
