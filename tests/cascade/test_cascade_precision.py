"""Sampling in half precision, and compiled cascades."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from errors_help import raises

from cascadezoo import Cascade
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
