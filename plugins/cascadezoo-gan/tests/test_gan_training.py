"""Trainings: results, gradients of losses, stops, processes, a complete cascade."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gan_cases import StopAt, settings, spec
from safetensors.torch import load_file

from cascadezoo import Cascade, CascadezooError, build_cascade, load_spec

State = dict[str, torch.Tensor]
BOTH = ["coarse", "up"]
JOINT = {"train": BOTH, "joint": True, "teacher_forcing": {"start": 0.5, "end": 0.5}}


def weights(model: Path) -> State:
    """Every weight of a model, by stage and name."""
    return {
        f"{name}.{key}": value
        for name in BOTH
        for key, value in load_file(model / "stages" / name / "model.safetensors").items()
    }


def build(folder: Path, data: dict[str, Any], **options: Any) -> State:
    return weights(build_cascade(data, folder, device="cpu", precision="fp32", **options).model)


def judges(state: State, judge: bool = True) -> State:
    return {k: v for k, v in state.items() if ("discriminator." in k) is judge}


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("group", ["generator", "discriminator"])
def test_no_loss_trains_the_other_group(tmp_path: Path, group: str) -> None:
    """A group learns the same weights, bit for bit, with and without gradients of the other group.

    This is a joint phase, in which losses of one stage pass through the other; the other group has
    a learning rate of 0 or is never updated.
    """
    ends = []
    for still in ({"lr": 0.0}, {"every": 1000}):
        rest = {name: {"groups": {group: still}} for name in BOTH}
        data = spec([{**JOINT, "steps": 6, "stages": rest}], ema=None, clip_norm=None)
        ends.append(build(tmp_path / str(len(ends)), data))
    assert same(*ends)
    begun = {k: v for n, s in Cascade.from_spec(data).named_stages() for k, v in prefixed(n, s)}
    assert same(judges(ends[0], group == "discriminator"), judges(begun, group == "discriminator"))
    learned, before = (judges(s, group != "discriminator") for s in (ends[0], begun))
    assert not any(torch.equal(learned[k], before[k]) for k in learned if "weight" in k)


def prefixed(name: str, stage: Any) -> list[tuple[str, torch.Tensor]]:
    return [(f"{name}.{key}", value) for key, value in stage.state_dict().items()]


def test_gradients_go_upstream_in_joint_phases_only(tmp_path: Path) -> None:
    """In a joint phase the upsampler's adversary also trains the generator."""
    estimate = {"start": 0.0, "end": 0.0}
    ends = {}
    for joint in (False, True):
        phase = {**JOINT, "steps": 3, "joint": joint, "teacher_forcing": estimate}
        ends[joint] = build(tmp_path / str(joint), spec([phase], ema=None, clip_norm=None))
    key = "coarse.painter.start.weight"
    assert not torch.equal(ends[True][key], ends[False][key])
    alone = {"train": ["coarse"], "steps": 3}
    data = spec([alone], ema=None, clip_norm=None)
    assert torch.equal(build(tmp_path / "alone", data)[key], ends[False][key])


@pytest.mark.slow
@pytest.mark.parametrize("stop", [("p0", 3), ("p1", 5)])
def test_a_stopped_training_ends_on_the_same_weights(tmp_path: Path, stop: tuple[str, int]) -> None:
    turns = {"coarse": {"groups": {"discriminator": {"every": 2}}}}
    phases = [{"train": ["coarse"], "steps": 5}, {**JOINT, "steps": 7, "stages": turns}]
    whole = build(tmp_path / "whole", spec(phases))
    with pytest.raises(CascadezooError) as caught:
        build(tmp_path / "run", spec(phases), progress=StopAt(*stop))
    assert caught.value.code == "interrupted-training"
    assert same(build(tmp_path / "run", spec(phases)), whole)


@pytest.mark.slow
def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    data = spec([{**JOINT, "steps": 4}])
    # Only rounding may differ; a larger eps keeps Adam from amplifying it.
    data["training"]["optimizer"] = {"lr": 0.002, "eps": 1e-4}
    one = build(tmp_path / "one", data)
    (tmp_path / "spec.json").write_text(json.dumps(data))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "cascadezoo", "build", "spec.json", "-o", "two", "--quiet"]
    workers = []
    for rank in range(2):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "OMP_NUM_THREADS": 1}
        env = {**os.environ, **{k: str(v) for k, v in names.items()}}
        env |= {"MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
        arguments = [*command, "--device", "cpu", "--precision", "fp32"]
        workers.append(subprocess.Popen(arguments, env=env, cwd=tmp_path))
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    two = weights(tmp_path / "two" / "model")
    assert one.keys() == two.keys()
    assert max((one[k] - two[k]).abs().max().item() for k in one) < 1e-4


def test_bfloat16_builds(tmp_path: Path) -> None:
    data = spec([{**JOINT, "steps": 4}])
    model = build_cascade(data, tmp_path / "run", device="cpu", precision="bf16").model
    assert all(value.isfinite().all() for value in weights(model).values())


@pytest.mark.slow
def test_a_small_gan_learns_four_patterns(tmp_path: Path) -> None:
    """19 of 20 images within 0.1 mean squared error of a pattern, no pattern below a tenth."""
    rng = np.random.default_rng(0)
    patterns = np.zeros((4, 1, 8, 8), np.uint8)
    for number, (y, x) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
        patterns[number, :, y : y + 4, x : x + 4] = 255
    truth = patterns[rng.integers(0, 4, 512)]
    np.savez(tmp_path / "four.npz", train_images=truth[:, 0])
    data = {
        "name": "four",
        "data": {"source": "npz", "config": {"path": str(tmp_path / "four.npz")}},
        "stages": [
            {
                "name": "draw",
                "kind": "gan.v1",
                "config": settings("gan.v1", channels=8, noise=2, discriminator={"channels": 8}),
            }
        ],
        "training": {
            "batch_size": 32,
            "losses": [],
            "optimizer": {"lr": 0.003},
            "ema": {"decay": 0.98},
            "phases": [{"name": "draw", "train": ["draw"], "steps": 800}],
        },
        "evaluation": {"metrics": [], "extractor": "small"},
    }
    model = build_cascade(data, tmp_path / "run", device="cpu", precision="fp32").model
    made = Cascade.from_pretrained(model).sample(400, seed=1, batch_size=100)
    wanted = torch.from_numpy(patterns).float() / 127.5 - 1
    off = (made[:, None] - wanted[None]).square().mean((2, 3, 4))
    nearest, which = off.min(1)
    shares = torch.bincount(which, minlength=4) / len(made)
    assert (nearest < 0.1).float().mean() > 0.95
    assert shares.min() > 0.1


def test_a_cascade_of_both_is_built_loaded_and_sampled(tmp_path: Path) -> None:
    data = spec(
        [{"train": ["coarse"], "steps": 3}, {"train": ["up"], "steps": 3}, {**JOINT, "steps": 2}]
    )
    for stage in data["stages"]:
        stage["config"]["discriminator"]["keep"] = False
    result = build_cascade(data, tmp_path / "run", device="cpu", precision="fp32")
    state = weights(result.model)
    assert state
    assert not judges(state)
    config = json.loads((result.model / "config.json").read_text())
    assert "cascadezoo-gan>=0.1.0" in config["spec"]["requires"]
    cascade = Cascade.from_pretrained(result.model)
    made = cascade.sample(6, seed=3, return_stages=True)
    assert made["coarse"].shape == (6, 3, 8, 8)
    assert made["up"].shape == (6, 3, 16, 16)
    again = cascade.sample(6, seed=3, batch_size=2)
    assert (again - made["up"]).abs().max() < 1e-5
    cascade.save_pretrained(tmp_path / "copy")
    assert same(weights(tmp_path / "copy"), state)
    assert torch.equal(Cascade.from_pretrained(tmp_path / "copy").sample(6, seed=3), made["up"])


def test_the_example_resolves() -> None:
    example = Path(__file__).parents[1] / "examples" / "gan-shapes.json"
    resolved = load_spec(example)
    assert [stage.kind for stage in resolved.stages] == ["gan.v1", "srgan.v1"]
    assert [str(stage.output) for stage in resolved.stages] == ["3x16x16", "3x32x32"]
