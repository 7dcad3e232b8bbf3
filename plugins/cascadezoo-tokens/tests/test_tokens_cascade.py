"""Both stages together: specs, trainings, stops, processes, saved models."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from token_cases import spec

from cascadezoo import Cascade, CascadezooError, build_cascade, load_spec
from cascadezoo.testing import assert_survives_kill

State = dict[str, torch.Tensor]


def weights(model: Path) -> State:
    return {
        f"{name}.{key}": value
        for name in ("prior", "decode")
        for key, value in load_file(model / "stages" / name / "model.safetensors").items()
    }


def build(folder: Path, data: dict[str, Any], **options: Any) -> Path:
    return build_cascade(data, folder, device="cpu", precision="fp32", **options).model


def test_the_specs_resolve() -> None:
    resolved = load_spec("mnist-tokens")
    assert [str(s.output) for s in resolved.stages] == ["1x7x7 tokens of 128", "1x28x28"]
    resolved = load_spec("shapes-tokens")
    assert [str(s.output) for s in resolved.stages] == ["1x4x4 tokens of 32", "3x16x16"]
    assert "cascadezoo-tokens>=0.1.0" in resolved.spec.requires


def test_the_plan_knows_the_training_although_sampling_is_long() -> None:
    """Drawing 49 tokens one by one takes more operations than a plan traces."""
    command = [
        sys.executable,
        "-m",
        "cascadezoo",
        "plan",
        "mnist-tokens",
        "--device",
        "cpu",
        "--json",
    ]
    plan = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    prior, decode = plan["stages"]
    # 12 width^2 weights a block and two operations for each, 49 tokens; the rest is attention.
    assert prior["flops_forward"] == pytest.approx(2 * 49 * 4 * 12 * 128**2, rel=0.2)
    assert prior["flops_sample"] is None
    assert decode["flops_sample"] > 0
    assert min(row["activation_bytes"] for row in plan["stages"]) > 0


@pytest.mark.parametrize(
    ("index", "stage"),
    [
        # A prior of tokens before a continuous autoencoder, and the reverse.
        (1, {"name": "decode", "kind": "autoencoder.v1", "config": {"channels": 8}}),
        (0, {"name": "prior", "kind": "flow.v1", "config": {"channels": 8}}),
    ],
)
def test_tokens_and_continuous_latents_do_not_mix(index: int, stage: dict[str, Any]) -> None:
    data = spec()
    data["stages"][index] = stage
    with pytest.raises(CascadezooError) as caught:
        load_spec(data)
    assert [(p.path, p.code) for p in caught.value.problems] == [("stages.0.kind", "tokens")]


def test_tokens_are_no_images() -> None:
    data = spec(training={})
    data["stages"] = data["stages"][:1]
    data["training"] = {"losses": []}
    with pytest.raises(CascadezooError) as caught:
        load_spec(data)
    assert ("stages.0.kind", "tokens") in [(p.path, p.code) for p in caught.value.problems]


def test_it_trains_saves_loads_and_samples(tmp_path: Path) -> None:
    model = build(tmp_path / "run", spec(6))
    cascade = Cascade.from_pretrained(model)
    stages = cascade.sample(3, seed=0, return_stages=True)
    assert stages["prior"].shape == (3, 1, 4, 4)
    assert stages["decode"].shape == (3, 3, 8, 8)
    again = Cascade.from_pretrained(model).sample(3, seed=0, batch_size=2)
    torch.testing.assert_close(again, stages["decode"])
    state = weights(model)
    assert state["decode.started"]
    before = Cascade.from_spec(spec(6)).stage("decode").codes
    assert (state["decode.codes"] - before).abs().max() > 0.01


@pytest.mark.slow
def test_a_killed_build_ends_with_the_same_model(tmp_path: Path) -> None:
    data = spec(20)
    data["training"]["checkpoint_seconds"] = 0
    assert_survives_kill(data, tmp_path)


@pytest.mark.slow
def test_two_processes_train_the_codebook_of_one(tmp_path: Path) -> None:
    data = spec(4)
    one = weights(build(tmp_path / "one", data))
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
    assert [worker.wait(timeout=240) for worker in workers] == [0, 0]
    two = weights(tmp_path / "two" / "model")
    assert one.keys() == two.keys()
    for name in ("decode.codes", "decode.usage", "decode.sums"):
        torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_small_spec_learns_in_seconds(tmp_path: Path) -> None:
    result = build(tmp_path / "run", load_spec("shapes-tokens").spec.to_dict())
    rows = [json.loads(x) for x in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    epochs = [r for r in rows if r.get("event") == "epoch"]
    by_phase = {p: [r for r in epochs if r["phase"] == p] for p in ("autoencoder", "prior")}
    first, last = (by_phase["autoencoder"][i]["losses"]["decode.mse"] for i in (0, -1))
    assert last < 0.6 * first
    first, last = (by_phase["prior"][i]["losses"]["prior.nll"] for i in (0, -1))
    assert last < 0.8 * first
    images = Cascade.from_pretrained(result).sample(4, seed=0)
    assert images.std() > 0.1
