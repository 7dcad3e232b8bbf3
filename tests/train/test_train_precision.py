"""The precision of a training: ``auto`` by the hardware, kept when a build goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from errors_help import raises

from cascadezoo.build.build import build_cascade
from cascadezoo.build.run_folder import RunFolder
from cascadezoo.errors import InputError
from cascadezoo.nn.precision import accelerates_bf16
from cascadezoo.train.engine import pick_precision

TINY = "diffusion-pixelshuffle-vit-tiny"
CPU = torch.device("cpu")
PHASES = '[{"name":"one","train":["coarse"],"steps":2},{"name":"two","train":["coarse"],"steps":2}]'
SHORT = [f"training.phases={PHASES}", "evaluation.metrics=[]"]
CHECKS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


def set_cpu(monkeypatch: pytest.MonkeyPatch, bf16: bool) -> None:
    """Let PyTorch report a CPU with or without instructions for bf16."""
    for name in CHECKS:
        monkeypatch.setattr(torch.cpu, name, lambda: bf16, raising=False)


def recorded(run: Path) -> tuple[str, str]:
    """The precision in run.json and in metrics.json."""
    metrics = json.loads((run / "model" / "metrics.json").read_text())
    state = RunFolder(run).state()
    assert state is not None
    return state.precision, metrics["training"]["precision"]


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        ({CHECKS[0]: True, CHECKS[1]: False}, "bf16"),
        ({CHECKS[0]: False, CHECKS[1]: True}, "bf16"),
        ({CHECKS[0]: False, CHECKS[1]: False}, "fp32"),
        ({CHECKS[0]: True}, "bf16"),
        ({}, "fp32"),
    ],
)
def test_auto_follows_what_pytorch_reports(
    monkeypatch: pytest.MonkeyPatch, checks: dict[str, bool], expected: str
) -> None:
    for name in CHECKS:
        monkeypatch.delattr(torch.cpu, name, raising=False)
    for name, value in checks.items():
        monkeypatch.setattr(torch.cpu, name, lambda value=value: value, raising=False)
    assert pick_precision("auto", CPU) == expected
    assert pick_precision("fp32", CPU) == "fp32"
    assert pick_precision("bf16", CPU) == "bf16"


def test_auto_agrees_with_the_flags_of_this_cpu() -> None:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        pytest.skip("this system has no /proc/cpuinfo")
    if "x86" not in torch.backends.cpu.get_cpu_capability().lower() and "flags" not in flags:
        pytest.skip("not an x86 CPU")
    assert accelerates_bf16(CPU) == ("avx512_bf16" in flags or "amx_tile" in flags)


def test_auto_without_onednn_is_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    set_cpu(monkeypatch, True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert pick_precision("auto", CPU) == "fp32"


@pytest.mark.parametrize(
    ("name", "device", "code"),
    [
        ("fp16", "cpu", "input-fp16-needs-cuda"),
        ("fp8", "cpu", "input-precision-unknown"),
        ("bf16", "mps", "input-bf16-unsupported"),
    ],
)
def test_a_precision_that_a_device_lacks(
    monkeypatch: pytest.MonkeyPatch, name: str, device: str, code: str
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *version: False)
    with raises(InputError, code) as caught:
        pick_precision(name, torch.device(device))
    assert "fp32" in (caught.value.hint or "")


@pytest.mark.slow
@pytest.mark.parametrize("bf16", [True, False])
def test_a_build_records_the_precision_of_auto(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bf16: bool
) -> None:
    set_cpu(monkeypatch, bf16)
    build_cascade(TINY, tmp_path / "run", device="cpu", settings=SHORT)
    expected = "bf16" if bf16 else "fp32"
    assert recorded(tmp_path / "run") == (expected, expected)
    assert f"in {expected}" in (tmp_path / "run" / "model" / "README.md").read_text()


def weights(run: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(run / "model" / "stages" / "coarse" / "model.safetensors")


@pytest.mark.slow
def test_a_build_goes_on_in_its_own_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it was begun where ``auto`` gave another one; the end is that of fp32."""
    set_cpu(monkeypatch, False)
    whole, run = tmp_path / "whole", tmp_path / "run"
    build_cascade(TINY, whole, device="cpu", settings=SHORT)
    shutil.copytree(whole, run)
    # Back to the checkpoint before the last: a training that was stopped.
    text = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(text | {"state": "training"}))
    shutil.rmtree(run / "model")
    before, newest = sorted((run / "checkpoints").iterdir())
    shutil.rmtree(newest)

    set_cpu(monkeypatch, True)
    build_cascade(TINY, run, device="cpu", settings=SHORT)
    assert recorded(run) == ("fp32", "fp32")
    assert before.is_dir()
    one, two = weights(whole), weights(run)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_a_build_that_starts_over_follows_the_hardware(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_cpu(monkeypatch, False)
    build_cascade(TINY, tmp_path / "run", device="cpu", settings=SHORT)
    set_cpu(monkeypatch, True)
    build_cascade(TINY, tmp_path / "run", device="cpu", settings=SHORT)
    assert recorded(tmp_path / "run") == ("fp32", "fp32")
    build_cascade(TINY, tmp_path / "run", device="cpu", settings=SHORT, resume=False)
    assert recorded(tmp_path / "run") == ("bf16", "bf16")
