"""The diffusion family on real MNIST: speed, KID, and the effect of guidance on labels.

    python tests/benchmarks/mnist_family.py mnist.npz -o runs/mnist-family

builds narrower variants of the shipped MNIST specs (some minutes each on two CPU cores; existing
builds are not repeated), measures them and writes ``family.json`` and ``family.md``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cascadezoo.build.build import build_cascade
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.base import ImageData
from cascadezoo.evaluate.evaluate_sampler import evaluate_kid
from cascadezoo.evaluate.features.base import load_extractor
from cascadezoo.evaluate.options import EvaluationOptions
from cascadezoo.plugins.manager import get_registry
from cascadezoo.train.engine import describe_device

NARROW = {"channels": 16, "dense_skips": False, "middle_attention": False}
SHORT = [
    "training.batch_size=64",
    "training.optimizer.lr=0.002",
    "training.schedule.warmup_steps=100",
    "training.ema.decay=0.995",
    "evaluation.metrics=[]",
]
PIXEL_STEPS, CODER_STEPS, LATENT_STEPS = 2500, 1500, 6000
PIXEL = ["mnist-ddpm", "mnist-flow"]
LATENT = ["mnist-latent-cfg-concat", "mnist-latent-cfg-crossattn", "mnist-latent-flow"]


def settings(name: str, path: Path) -> list[str]:
    """Changes of the shipped spec for ``--set``."""
    data = {"source": "npz", "config": {"path": str(path)}}
    rows = [f"data={json.dumps(data)}", *SHORT]
    if name in PIXEL:
        rows += [f"stages.draw.config.{key}={json.dumps(value)}" for key, value in NARROW.items()]
        phases = [{"name": "draw", "train": ["draw"], "steps": PIXEL_STEPS}]
    else:
        rows.append("stages.draw.config.blocks=1")
        phases = [
            {"name": "autoencoder", "train": ["decode"], "steps": CODER_STEPS},
            {"name": "draw", "train": ["draw"], "steps": LATENT_STEPS},
        ]
    return [*rows, f"training.phases={json.dumps(phases)}"]


def real_images(path: Path, split: str) -> ImageData:
    entry = get_registry().datasets.get("npz").entry
    return entry.load()(entry.load_config().model_validate({"path": str(path)}), split)


# --- the classifier of digits


def classifier(path: Path, seed: int = 0) -> tuple[nn.Module, float]:
    """A small network trained on the real training images, and its accuracy on the test images."""
    with np.load(path) as arrays:
        rows = {
            split: (
                torch.from_numpy(arrays[f"{split}_images"]).float()[:, None] / 127.5 - 1,
                torch.from_numpy(arrays[f"{split}_labels"].astype(np.int64)),
            )
            for split in ("train", "test")
        }
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 9, 10))
    images, labels = rows["train"]
    steps = len(images) // 128
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=2 * steps)
    for _ in range(2):
        for batch in torch.randperm(len(images)).split(128)[:steps]:
            optimizer.zero_grad()
            F.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimizer.step()
            rate.step()
    net.eval()
    images, labels = rows["test"]
    return net, agreement(net, images, labels)


@torch.no_grad()
def agreement(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of images that the network classifies as their label."""
    predicted = torch.cat([net(batch).argmax(1) for batch in images.split(500)])
    return (predicted == labels).double().mean().item()


# --- measurements


class Bench:
    def __init__(self, path: Path, out: Path, n: int) -> None:
        self.path, self.out, self.n = path, out, n
        self.real = real_images(path, "train")
        self.extractor = load_extractor("small", device=torch.device("cpu"))
        self.rows: list[dict[str, Any]] = []

    def cascade(self, name: str) -> Cascade:
        built = build_cascade(
            name, self.out / name, settings=settings(name, self.path), device="cpu"
        )
        return Cascade.from_pretrained(built.model)

    def measure(
        self, name: str, cascade: Cascade, net: nn.Module | None = None, **how: Any
    ) -> None:
        """Measure KID, time per image and, with a network, the share of images of their label."""
        kept: list[Tensor] = []
        labels = torch.arange(self.n) % 10

        def sample(first: int, count: int) -> Tensor:
            images = cascade.sample(count, first=first, batch_size=count, **how)
            kept.append(images)
            return images

        figure = evaluate_kid(
            sample, self.real, EvaluationOptions(n=self.n, batch_size=100), extractor=self.extractor
        )
        row = {
            "model": name,
            **how,
            "kid": figure.value,
            "std": figure.std,
            "ms_per_image": 1000 * (figure.sampling_seconds or 0) / self.n,
        }
        if net is not None:
            row["agreement"] = agreement(net, torch.cat(kept), labels)
        self.rows.append(row)
        print(json.dumps(row), flush=True)


def guided_cost(cascade: Cascade, batch: int = 64, rounds: int = 9) -> float:
    """Ratio of guided sampling to as many forward passes of twice the batch; median of rounds."""
    stage: Any = cascade.stage("draw")
    shape = stage.geometry.output
    x = torch.randn(2 * batch, shape.channels, shape.size, shape.size)
    times, labels = torch.full((2 * batch,), 500.0), torch.arange(2 * batch) % 10
    steps = 10

    @torch.no_grad()
    def bare() -> None:
        for _ in range(steps):
            stage.network(x, times, labels)

    def guided() -> None:
        cascade.sample(batch, batch_size=batch, steps=steps, guidance=3.0)

    ratios = []
    for _ in range(rounds):
        ratios.append(_seconds(guided) / _seconds(bare))
    return float(np.median(ratios))


def _seconds(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| model | sampler | steps | guidance | ms/image | KID x 1000 | label accuracy |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        shown = f"{100 * row['agreement']:.1f} %" if "agreement" in row else ""
        lines.append(
            f"| `{row['model']}` | {row.get('sampler', '')} | {row['steps']} "
            f"| {row.get('guidance', '')} | {row['ms_per_image']:.1f} "
            f"| {1000 * row['kid']:.1f} +- {1000 * row['std']:.1f} | {shown} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("npz", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/mnist-family"))
    parser.add_argument("-n", type=int, default=500, help="number of images per figure")
    arguments = parser.parse_args()
    bench = Bench(arguments.npz, arguments.out, arguments.n)
    net, accuracy = classifier(arguments.npz)
    print(f"classifier: {100 * accuracy:.2f} % of the test images", flush=True)
    ddpm = bench.cascade("mnist-ddpm")
    bench.measure("mnist-ddpm", ddpm, sampler="ddim", steps=100, guidance=1.0)
    for scale in (0.0, 1.0, 3.0):
        bench.measure("mnist-ddpm", ddpm, net, sampler="dpmpp-2m", steps=20, guidance=scale)
    for name in LATENT[:2]:
        latent = bench.cascade(name)
        bench.measure(name, latent, sampler="ddim", steps=100, guidance=1.0)
        for scale in (1.0, 3.0):
            bench.measure(name, latent, net, sampler="dpmpp-2m", steps=20, guidance=scale)
    for name in ("mnist-flow", "mnist-latent-flow"):
        flow = bench.cascade(name)
        for scale in (1.0, 3.0):
            bench.measure(name, flow, net, sampler="euler", steps=50, guidance=scale)
    ratio = guided_cost(ddpm)
    print(f"guided sampling: {ratio:.3f} times the forward passes of twice the batch", flush=True)
    bench.measure("mnist-ddpm", ddpm, sampler="ddpm", steps=1000, guidance=1.0)
    result = {
        "rows": bench.rows,
        "classifier_accuracy": accuracy,
        "guided_cost": ratio,
        "n": arguments.n,
        "threads": torch.get_num_threads(),
        "device": describe_device(torch.device("cpu")),
    }
    (arguments.out / "family.json").write_text(json.dumps(result, indent=2) + "\n")
    (arguments.out / "family.md").write_text(table(bench.rows))
    print(table(bench.rows))


if __name__ == "__main__":
    main()
