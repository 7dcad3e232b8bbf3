"""Sampling estimates its memory first: batches shrink, and what cannot fit is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cascadezoo import Cascade
from cascadezoo.cascade import free_memory as free
from cascadezoo.cascade.sampling_memory import _LiveBytes, _upper_bound, sampling_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and ulimit -v")

DRAW = {"name": "draw", "kind": "flow.v1", "config": {"channels": 8, "multipliers": [1, 1], "steps": 2}}  # fmt: skip
KINDS: dict[str, list[dict[str, Any]]] = {
    "flow": [],
    "diffusion": [{"name": "up", "kind": "diffusion-sr.v1", "config": {"channels": 8, "multipliers": [1, 1], "steps": 3}}],
    "flow-sr": [{"name": "up", "kind": "flow-sr.v1", "config": {"channels": 8, "multipliers": [1, 1], "steps": 3}}],
    "pixelshuffle": [{"name": "up", "kind": "pixelshuffle.v1", "config": {"hidden": 8}}],
    "interpolate": [{"name": "up", "kind": "interpolate.v1", "config": {}}],
    "transposed": [{"name": "up", "kind": "transposed.v1", "config": {}}],
    "vit": [{"name": "refine", "kind": "vit.v1", "config": {"features": 16, "blocks": 2, "heads": 2}}],
    "conv-refiner": [{"name": "refine", "kind": "conv-refiner.v1", "config": {}}],
    "resnet-refiner": [{"name": "refine", "kind": "resnet-refiner.v1", "config": {}}],
    "autoencoder": [{"name": "decode", "kind": "autoencoder.v1", "config": {"channels": 8}}],
}  # fmt: skip

CHILD = """
import json, resource, sys, time
import torch, torch._dynamo  # imported when a stage is traced; not part of the room
from cascadezoo import Cascade, CascadezooError
from cascadezoo.cascade.free_memory import free_memory

def status(name):
    rows = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(rows[name].split()[0]) * 1024

folder, request = sys.argv[1], json.loads(sys.argv[2])
torch.set_num_threads(1)
cascade = Cascade.from_pretrained(folder)
room = request.pop("room")
soft = status("VmSize") + room
resource.setrlimit(resource.RLIMIT_AS, (soft, soft))
began, before = time.process_time(), status("VmHWM")
row = {"free": free_memory(torch.device("cpu"))}
try:
    images = cascade.sample(**request)
    row |= {"shape": list(images.shape), "sum": float(images.double().sum())}
except CascadezooError as error:
    row |= {"code": error.code, "hint": error.hint, "fields": error.to_dict()["fields"]}
row |= {"seconds": time.process_time() - began, "grown": status("VmHWM") - before}
print(json.dumps(row))
"""


def spec(stages: list[dict[str, Any]], size: int = 16) -> dict[str, Any]:
    return {
        "name": "sized",
        "data": {"source": "shapes", "config": {"size": size, "classes": 4}, "num_classes": 4},
        "stages": [DRAW, *stages],
        "training": {"losses": []},
    }


def sampled(folder: Path, room: int, **request: Any) -> dict[str, Any]:
    """Sample in a process whose address space is limited to ``room`` further bytes."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), json.dumps({"room": room, **request})],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return {**result, "stderr": done.stderr}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small models whose weights allow any size."""
    home = tmp_path_factory.mktemp("models")
    kinds = ("flow", "interpolate", "conv-refiner")
    return {k: Cascade.from_spec(spec(KINDS[k])).save_pretrained(home / k) for k in kinds}


def claim(folder: Path, size: int, factor: int | None = None) -> None:
    """Change the sizes in config.json, as a stranger could."""
    config = json.loads((folder / "config.json").read_text())
    stages = config["spec"]["stages"]
    config["spec"]["data"]["size"] = size
    if factor is not None:
        stages[-1]["config"]["factor"] = factor
    stages[0]["config"]["size"] = size // (factor or 1)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "size", "factor"),
    [
        ("flow", 8192, None),
        ("flow", 65536, None),
        ("conv-refiner", 16384, None),
        ("interpolate", 16384, 64),
        ("interpolate", 65536, 64),
    ],
)
def test_claimed_sizes_are_refused_before_anything_is_allocated(
    kind: str, size: int, factor: int | None, folders: dict[str, Path]
) -> None:
    claim(folders[kind], size, factor)
    result = sampled(folders[kind], 2 << 30, n=1)
    assert result["code"] == "resources-sampling", result
    fields = result["fields"]
    assert fields["needed"] >= 3 * 3 * size**2 * 4
    assert fields["available"] <= 2 << 30
    assert fields["n"] == 1
    assert result["hint"]
    assert result["seconds"] < 10
    assert result["grown"] < 512 << 20


@pytest.mark.slow
def test_batches_shrink_and_the_images_stay_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    cascade = Cascade.from_spec(spec([], 256))
    with torch.no_grad():
        for weight in cascade.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    folder = cascade.save_pretrained(tmp_path / "model")
    each = sampling_bytes(cascade.resolved.stages[0], cascade.stage("draw"), 4)
    expected = float(cascade.sample(10, seed=3).double().sum())
    result = sampled(folder, 7 * each, n=10, seed=3, batch_size=10)
    assert result["shape"] == [10, 3, 256, 256], result
    assert result["sum"] == pytest.approx(expected, rel=1e-4)
    assert "sized: sampling in batches of" in result["stderr"]
    plain = sampled(folder, 8 << 30, n=10, seed=3, batch_size=10)
    assert plain["sum"] == pytest.approx(expected, rel=1e-4)
    assert "batches" not in plain["stderr"]


def test_more_images_than_fit_at_once_are_refused(folders: dict[str, Path]) -> None:
    claim(folders["interpolate"], 32, 2)
    result = sampled(folders["interpolate"], 1 << 30, n=1_000_000)
    assert (result["code"], result["fields"]["n"]) == ("resources-sampling", 1_000_000)
    assert "first=" in result["hint"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_estimate_covers_the_tensors_of_all_steps(kind: str) -> None:
    cascade = Cascade.from_spec(spec(KINDS[kind])).eval()
    places = cascade.resolved.stages
    estimates = [sampling_bytes(p, cascade.stage(p.name), 4) for p in places]
    tracker = _LiveBytes()
    with tracker:
        images = cascade.sample(1)
    assert images.shape == (1, 3, 16, 16)
    # The input of a stage and the noise of the whole call live a little longer than in the trace.
    slack = 4 * images.nbytes + (64 << 10)
    assert tracker.peak <= max(estimates) + slack
    assert max(estimates) <= 3 * tracker.peak + slack
    for place, estimate in zip(places, estimates, strict=True):
        assert estimate <= _upper_bound(place, cascade.stage(place.name))


def test_sampling_leaves_the_global_random_state_alone() -> None:
    cascade = Cascade.from_spec(spec([])).eval()
    state = torch.random.get_rng_state()
    sampling_bytes(cascade.resolved.stages[0], cascade.stage("draw"), 4)
    assert torch.equal(state, torch.random.get_rng_state())


# --- the free memory


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of control groups as the kernel shows it, without other limits."""
    monkeypatch.setattr(free, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(free, "_PROC", tmp_path / "proc")
    (tmp_path / "proc" / "self").mkdir(parents=True)
    return tmp_path


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_the_narrowest_control_group_counts(groups: Path) -> None:
    (groups / "proc" / "self" / "cgroup").write_text("0::/outer/inner\n")
    stat = "anon 1\ninactive_file 1000\n"
    outer, inner = groups / "cgroup" / "outer", groups / "cgroup" / "outer" / "inner"
    write(outer, memory__max="9000\n", memory__current="5000\n", memory__stat=stat)
    write(inner, memory__max="max\n", memory__current="100\n", memory__stat=stat)
    assert free.free_memory(torch.device("cpu")) == 5000
    write(inner, memory__max="2000\n", memory__current="100\n")
    assert free.free_memory(torch.device("cpu")) == 2900
    write(inner, memory__max="2000\n", memory__current="9999\n", memory__stat="")
    assert free.free_memory(torch.device("cpu")) == 0


def test_control_groups_of_version_1_and_of_a_container(groups: Path) -> None:
    (groups / "proc" / "self" / "cgroup").write_text("5:cpu:/x\n4:memory:/docker/abc\n")
    root = groups / "cgroup" / "memory"
    write(root, memory__limit_in_bytes="7000\n", memory__usage_in_bytes="3000\n")
    assert free.free_memory(torch.device("cpu")) == 4000
    write(root, memory__limit_in_bytes="9223372036854771712\n")
    (groups / "proc" / "meminfo").write_text("MemTotal:  9 kB\nMemAvailable:   3 kB\n")
    assert free.free_memory(torch.device("cpu")) == 3072


def test_the_free_memory_of_other_devices_is_unknown() -> None:
    assert free.free_memory(torch.device("meta")) is None
