"""Several processes train the same as one: draws, gradients, pairs, measurements at the end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toys import toy_spec

WORKER = """
import json, sys
sys.path.insert(0, sys.argv[1])
import numpy as np, torch
from pathlib import Path
from cascadezoo.data.base import ImageData
from cascadezoo.data.loader import DeviceLoader
from cascadezoo.train.checkpoint import CheckpointStore
from cascadezoo.train.engine import make_accelerator
from cascadezoo.train.trainer import Trainer
from toys import toys

torch.set_num_threads(1)
accelerator = make_accelerator(torch.device("cpu"), "fp32")
images = np.random.default_rng(0).integers(0, 256, (64, 3, 8, 8), dtype=np.uint8)
data = ImageData(images, np.arange(64) % 8, "train")
loader = DeviceLoader(
    data, batch_size=8, seed=0, flip=False, device="cpu",
    rank=accelerator.process_index, world=accelerator.num_processes,
)
cascade = toys(json.loads(sys.argv[2]))
Trainer(
    cascade, loader, accelerator, data=data, store=CheckpointStore(Path(sys.argv[3]))
).run()
print(json.dumps({k: v.item() for k, v in cascade.stages.state_dict().items()}))
"""


def run(spec: dict[str, Any], world: int, folder: Path) -> list[dict[str, float]]:
    """The final state of each process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    workers = []
    for rank in range(world):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
        env = {**os.environ, **{k: str(v) for k, v in names.items()}, "MASTER_ADDR": "127.0.0.1"}
        arguments = [str(Path(__file__).parent), json.dumps(spec), str(folder)]
        workers.append(
            subprocess.Popen(
                [sys.executable, "-c", WORKER, *arguments],
                env=env,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def adversaries() -> dict[str, Any]:
    kinds = {"coarse": "generator", "up": "upsampler", "refine": "refiner"}
    forcing = {"start": 0.5, "end": 0.5}
    phase = {"name": "p", "train": list(kinds), "steps": 10, "joint": True}
    spec = toy_spec(kinds, [{**phase, "teacher_forcing": forcing}])
    spec["stages"][2]["config"] = {"adversary": True}
    return spec


def latents() -> dict[str, Any]:
    phases = [
        {"name": "autoencoder", "train": ["decode"], "steps": 4},
        {"name": "draw", "train": ["draw"], "steps": 4},
        # 27 pairs do not divide into two equal halves.
        {"name": "straight", "train": ["draw"], "epochs": 2, "reflow": {"pairs": 27}},
    ]
    spec = toy_spec({"draw": "reflow", "decode": "decoder"}, phases)
    spec["training"]["optimizer"] = {"lr": 0.05}
    return spec


@pytest.mark.slow
@pytest.mark.parametrize("spec", [adversaries(), latents()], ids=["adversaries", "latents"])
def test_two_processes_train_the_same_as_one(tmp_path: Path, spec: dict[str, Any]) -> None:
    (one,) = run(spec, 1, tmp_path / "one")
    two, other = run(spec, 2, tmp_path / "two")
    assert two == other
    assert one.keys() == two.keys()
    assert all(abs(one[k] - two[k]) < 1e-5 * max(1, abs(one[k])) for k in one)
    assert any(abs(v - 0.5) > 1e-4 for k, v in one.items() if k.endswith("scale"))
