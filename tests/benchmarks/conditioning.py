"""Conditioning augmentation on real CIFAR-10, 16x16 -> 32x32: tables 2b and 3 of CDM at small scale.

    python tests/benchmarks/conditioning.py cifar10.npz -o runs/conditioning

builds a diffusion cascade with gaussian conditioning augmentation and one without, which share the
base model, and measures KID for each noise level s, conditioned on generated images (not truncated
and truncated) and on true ones. Writes ``conditioning.json`` and ``conditioning.md``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from cascadezoo.build.build import build_cascade
from cascadezoo.model_folder.figures import Figure
from cascadezoo.spec import read_spec
from cascadezoo.train.engine import describe_device
from cascadezoo.tune.tune_model import tune_model

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
    """A narrower ``cifar10-cdm`` with fewer steps."""
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


def measure(models: dict[str, Path], out: Path, n: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []

    def add(augmentation: str, upstream: str, s: float | None, figure: Figure) -> None:
        row = {"augmentation": augmentation, "upstream": upstream, "s": s}
        rows.append(row | {"kid": figure.value, "std": figure.std})
        print(json.dumps(rows[-1]), flush=True)

    levels = [str(level) for level in LEVELS]
    for upstream, upstream_name in (("generated", "generated"), ("real", "true")):
        folder = out / f"tune-{upstream_name}"
        steps = [str(STEPS)]
        for _, figure in _tuned(models["none"], upstream, n, folder / "none", {"up.steps": steps}):
            add("none", upstream_name, None, figure)
        tuned = _tuned(models["gaussian"], upstream, n, folder / "gaussian", {"s": levels})
        for setting, figure in tuned:
            add("gaussian", upstream_name, setting["s"], figure)
    values = {"truncated": ["true"], "s": levels[1:]}
    for setting, figure in _tuned(
        models["gaussian"], "generated", n, out / "tune-truncated", values
    ):
        add("gaussian", "truncated", setting["s"], figure)
    return rows


def _tuned(
    model: Path, upstream: Any, n: int, out: Path, values: dict[str, list[str]]
) -> list[tuple[Any, Figure]]:
    result = tune_model(
        model, list(values), values=values, n=n, upstream=upstream, out=out, device="cpu"
    )
    return [(row.setting, row.figure) for row in result.table.rows]


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| trained with | s | generated | generated, truncated | true images |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    by_key = {(r["augmentation"], r["s"], r["upstream"]): r for r in rows}
    for augmentation, s in dict.fromkeys((r["augmentation"], r["s"]) for r in rows):
        cells = []
        for upstream in ("generated", "truncated", "true"):
            row = by_key.get((augmentation, s, upstream))
            cells.append(f"{1000 * row['kid']:.1f} +- {1000 * row['std']:.1f}" if row else "")
        shown = "" if s is None else f"{s:g}"
        lines.append(f"| {augmentation} | {shown} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("npz", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/conditioning"))
    parser.add_argument("-n", type=int, default=1000, help="number of images per figure")
    parser.add_argument("--base-steps", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=3000)
    arguments = parser.parse_args()
    models = {}
    for augmentation in ("gaussian", "none"):
        spec = spec_of(arguments.npz, augmentation, arguments.base_steps, arguments.steps)
        built = build_cascade(spec, arguments.out / spec["name"], device="cpu")
        models[augmentation] = built.model
    rows = measure(models, arguments.out, arguments.n)
    result = {
        "rows": rows,
        "n": arguments.n,
        "threads": torch.get_num_threads(),
        "device": describe_device(torch.device("cpu")),
    }
    (arguments.out / "conditioning.json").write_text(json.dumps(result, indent=2) + "\n")
    (arguments.out / "conditioning.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
