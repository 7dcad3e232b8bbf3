"""Conditioning augmentation on real CIFAR-10, 16x16 -> 32x32: tables 2b and 3 of CDM, in small.

    python tests/benchmarks/conditioning.py cifar10.npz -o runs/conditioning

builds a cascade of diffusions with gaussian conditioning augmentation and one without, which share
the base model, and measures KID for each noise level s, conditioned on generated images (not
truncated and truncated) and on true ones. Writes ``conditioning.json`` and ``conditioning.md``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cascadezoo.build import build_cascade
from cascadezoo.cascade import Cascade
from cascadezoo.data.base import ImageData
from cascadezoo.evaluate.evaluate import evaluate_kid
from cascadezoo.evaluate.features import load_extractor
from cascadezoo.evaluate.pixels import to_float
from cascadezoo.plugins import get_registry
from cascadezoo.spec import read_spec
from cascadezoo.train.engine import describe_device

LEVELS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
STEPS = 30
NET = {
    "channels": 32,
    "multipliers": [1, 2, 2],
    "blocks": 1,
    "attention": [],
    "middle_attention": False,
    "heads": None,
    "dense_skips": False,
    "dropout": 0.0,
    "zero_terminal_snr": True,
    "prediction": "v",
    "steps": STEPS,
    "sampler": "ddim",
}


def spec_of(path: Path, augmentation: str, base_steps: int, steps: int) -> dict[str, Any]:
    """``cifar10-cdm``, narrower and shorter."""
    spec, _ = read_spec("cifar10-cdm")
    spec["name"] = f"cdm-{augmentation}"
    spec["data"] = {"source": "npz", "config": {"path": str(path)}, "flip": True}
    for stage in spec["stages"]:
        stage["config"] |= NET
    spec["stages"][1]["config"] |= {"channels": 16, "augmentation": augmentation, "s": 0.0}
    spec["training"] |= {
        "batch_size": 64,
        "ema": {"decay": 0.995},
        "optimizer": {"lr": 0.002},
        "schedule": {"kind": "cosine", "warmup_steps": 100},
        "phases": [
            {"name": "base", "train": ["base"], "steps": base_steps},
            {"name": "up", "train": ["up"], "steps": steps},
        ],
    }
    spec["evaluation"] = {"metrics": []}
    return spec


def real_images(path: Path) -> ImageData:
    entry = get_registry().datasets.get("npz").entry
    return entry.load()(entry.load_config().model_validate({"path": str(path)}), "train")


class Bench:
    def __init__(self, path: Path, n: int, extractor: str) -> None:
        self.real = real_images(path)
        self.n = n
        self.extractor = load_extractor(extractor, device=torch.device("cpu"))
        # Conditions come from images that the figure is not taken against.
        self.conditions = torch.from_numpy(self.real.images[-n:])
        self.labels = torch.from_numpy(self.real.labels[-n:])
        self.rows: list[dict[str, Any]] = []

    def measure(self, cascade: Cascade, augmentation: str, upstream: str, s: float | None) -> None:
        options: dict[str, Any] = {} if s is None else {"s": s}
        if upstream == "truncated":
            options["truncated"] = True

        def sample(first: int, count: int) -> Tensor:
            if upstream != "true":
                return cascade.sample(count, first=first, batch_size=count, options=options)
            images = to_float(self.conditions[first : first + count])
            return cascade.sample_from(
                "up",
                cascade.targets(images)[0],
                first=first,
                batch_size=count,
                labels=self.labels[first : first + count].long(),
                options=options,
            )

        began = time.perf_counter()
        figure = evaluate_kid(sample, self.real, extractor=self.extractor, n=self.n, batch_size=100)
        row = {
            "augmentation": augmentation,
            "upstream": upstream,
            "s": s,
            "kid": figure.value,
            "std": figure.std,
            "seconds": time.perf_counter() - began,
        }
        self.rows.append(row)
        print(json.dumps(row), flush=True)


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| trained with | s | generated | generated, truncated | true images |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    found = {(r["augmentation"], r["s"], r["upstream"]): r for r in rows}
    for augmentation, s in dict.fromkeys((r["augmentation"], r["s"]) for r in rows):
        cells = []
        for upstream in ("generated", "truncated", "true"):
            row = found.get((augmentation, s, upstream))
            cells.append(f"{1000 * row['kid']:.1f} +- {1000 * row['std']:.1f}" if row else "")
        shown = "" if s is None else f"{s:g}"
        lines.append(f"| {augmentation} | {shown} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("npz", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/conditioning"))
    parser.add_argument("-n", type=int, default=1000, help="images of a figure")
    parser.add_argument("--extractor", default="small")
    parser.add_argument("--base-steps", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=2500)
    arguments = parser.parse_args()
    cascades = {}
    for augmentation in ("gaussian", "none"):
        spec = spec_of(arguments.npz, augmentation, arguments.base_steps, arguments.steps)
        built = build_cascade(spec, arguments.out / spec["name"], device="cpu")
        cascades[augmentation] = Cascade.from_pretrained(built.model)
    bench = Bench(arguments.npz, arguments.n, arguments.extractor)
    for upstream in ("generated", "true"):
        bench.measure(cascades["none"], "none", upstream, None)
    for s in LEVELS:
        for upstream in ("generated", "truncated", "true"):
            if s or upstream != "truncated":
                bench.measure(cascades["gaussian"], "gaussian", upstream, s)
    result = {
        "rows": bench.rows,
        "n": arguments.n,
        "extractor": arguments.extractor,
        "threads": torch.get_num_threads(),
        "device": describe_device(torch.device("cpu")),
    }
    (arguments.out / "conditioning.json").write_text(json.dumps(result, indent=2) + "\n")
    (arguments.out / "conditioning.md").write_text(table(bench.rows))
    print(table(bench.rows))


if __name__ == "__main__":
    main()
