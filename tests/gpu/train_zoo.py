"""Trains cascades of the zoo on one GPU within a time budget, measures them and packs the results.

``python tests/gpu/train_zoo.py --out DIR cifar10-flow`` builds the shipped spec, measures FID and
KID over guidance scales, trains the few-step version from it by reflow, and writes weights,
figures, samples and event logs to ``$OUT`` (or DIR/results). ``--small`` runs at a size for a CPU.
Numbers of steps are settings of the spec: ``--set training.phases.0.steps=9000``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cascadezoo import Cascade, build_cascade
from cascadezoo.build.run_folder import RunFolder
from cascadezoo.data.pixels import to_uint8
from cascadezoo.data.split import load_split
from cascadezoo.evaluate.features.base import FeatureExtractor, load_extractor
from cascadezoo.evaluate.features.moments import Statistics
from cascadezoo.evaluate.metrics.kid import kernel_inception_distance
from cascadezoo.spec import load_spec
from cascadezoo.train.checkpoint import CheckpointStore
from cascadezoo.train.engine import pick_device, tune_backends
from cascadezoo.train.progress import QuietProgress

BEGAN = time.monotonic()


class TimedProgress(QuietProgress):
    """Prints the messages of a build with the seconds since the start."""

    def say(self, text: str) -> None:
        note(text)


def note(text: str) -> None:
    print(f"[{time.monotonic() - BEGAN:6.1f} s] {text}", flush=True)


@contextmanager
def timed(what: str, seconds: dict[str, float]) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[what] = round(time.monotonic() - began, 2)
    note(f"{what}: {seconds[what]} s")


class Evaluator:
    """FID and KID of samples and training images, with cached features of the training images.

    The distance is computed on the device by symmetric eigenvalues; on a CPU this takes longer for the
    2,048 features of Inception than the network.

    Args:
        resolved: the spec of the real images.
        extractor: the feature extractor.
        limit: maximum number of real images.
    """

    def __init__(self, resolved: Any, extractor: FeatureExtractor, limit: int) -> None:
        self.extractor = extractor
        images = load_split(resolved, "train").images[:limit]
        self.real = self.features(torch.from_numpy(np.ascontiguousarray(images)))
        self.statistics = Statistics.of(self.real)
        covariance = self.statistics.covariance.to(extractor.device)
        values, vectors = torch.linalg.eigh(covariance)
        self.root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.extractor(part) for part in images.split(5000)])

    def frechet(self, features: torch.Tensor) -> float:
        generated, real, device = Statistics.of(features), self.statistics, self.root.device
        covariance = generated.covariance.to(device)
        values = torch.linalg.eigvalsh(self.root @ covariance @ self.root)
        distance = (generated.mean - real.mean).square().sum()
        traces = generated.covariance.trace() + real.covariance.trace()
        return float(distance + traces - 2 * values.clamp(min=0).sqrt().sum().cpu())

    def figures(self, images: torch.Tensor) -> dict[str, float]:
        features = self.features(images)
        size = min(1000, len(features) // 2)
        kid = kernel_inception_distance(features, self.real, subsets=50, subset_size=size)
        return {
            "n": len(images),
            "n_real": len(self.real),
            "fid": round(self.frechet(features), 4),
            "kid": round(kid.mean, 6),
            "kid_std": round(kid.std, 6),
        }


def draw(cascade: Cascade, n: int, batch: int, precision: str, **options: Any) -> torch.Tensor:
    """``n`` images as bytes on the CPU."""
    batches = []
    for first in range(0, n, batch):
        count = min(batch, n - first)
        images = cascade.sample(
            count, first=first, batch_size=batch, precision=precision, **options
        )
        batches.append(to_uint8(images).cpu())
    return torch.cat(batches)


def continue_run(source: Path, spec: Any, target: Path) -> None:
    """Start a run of ``spec`` after the finished phases of another run.

    ``spec`` starts with the phases of ``source``, so a build of ``spec`` has these weights before
    its next phase.
    """
    resolved = load_spec(spec)
    before = RunFolder(source)
    state = before.state()
    newest = CheckpointStore(before.checkpoints).newest()
    if state is None or newest is None:
        raise SystemExit(f"{source} is not a finished build")
    digest = resolved.spec.training_digest()
    target.mkdir(parents=True)
    run = RunFolder(target)
    run.write_spec(resolved.spec)
    run.write_state(
        replace(
            state,
            name=resolved.spec.name,
            training_digest=digest,
            spec_digest=resolved.spec.digest(),
            state="training",
        )
    )
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    CheckpointStore(run.checkpoints).save(
        replace(newest, training_digest=digest, optimizer={}, average={})
    )


def fast_spec(spec: dict[str, Any], pairs: int, steps: int, guidance: float) -> dict[str, Any]:
    """The spec with an additional reflow phase."""
    fast: dict[str, Any] = json.loads(json.dumps(spec))
    fast["name"] = f"{spec['name']}-fast"
    generator = fast["stages"][0]
    fast["training"]["phases"].append(
        {
            "name": "reflow",
            "train": [generator["name"]],
            "steps": steps,
            "reflow": {"pairs": pairs, "guidance": guidance},
            "optimizer": {"kind": "adamw", "lr": 5e-4, "betas": [0.9, 0.99]},
        }
    )
    return fast


def main() -> None:
    """Run the command line; see the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec", nargs="?", default="cifar10-flow")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--name", help="name of the run; default: the spec's")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--guidance", default="1.0,1.25,1.5,2.0", help="scales to compare")
    parser.add_argument(
        "--samples", type=int, default=10_000, help="number of samples per comparison"
    )
    parser.add_argument(
        "--final", type=int, default=50_000, help="number of samples for the best scale; 0: none"
    )
    parser.add_argument(
        "--until", type=float, default=1e9, help="seconds after which it only packs"
    )
    parser.add_argument(
        "--reflow", type=int, default=0, help="training steps of the few-step version"
    )
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--precision", default="bf16", help="precision of sampling")
    parser.add_argument("--extractor", default="inception")
    parser.add_argument("--keep-samples", type=int, default=10_000)
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    settings = ["evaluation.metrics=[]", *args.settings]
    if args.small:
        settings += [
            "data.source=shapes",
            "stages.0.config.channels=16",
            "stages.1.config.channels=16",
            "training.batch_size=16",
            "training.phases.0.steps=6",
            "training.phases.1.steps=4",
        ]
        args.extractor, args.samples, args.final, args.keep_samples = "small", 40, 60, 20
        args.guidance, args.batch, args.pairs, args.precision = "1.0,1.5", 20, 32, "fp32"
        args.reflow = args.reflow and 3

    resolved = load_spec(args.spec, settings=settings)
    name = args.name or resolved.spec.name
    results = Path(os.environ.get("OUT") or args.out / "results")
    results.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    report: dict[str, Any] = {
        "command": " ".join(sys.argv),
        "torch": torch.__version__,
        "seconds": seconds,
        "spec": resolved.spec.to_dict(),
    }
    device = pick_device(args.device)
    if device.type == "cuda":
        report["device"] = torch.cuda.get_device_name(device)

    def write() -> None:
        (results / f"{name}.json").write_text(json.dumps(report, indent=1))

    out = args.out / name
    with timed("build", seconds):
        build_cascade(resolved.spec, out, device=args.device, progress=TimedProgress())
    pack(out, results, name)
    write()
    tune_backends(device, "bf16")
    cascade = Cascade.from_pretrained(out, device=device)
    with timed("real features", seconds):
        extractor = load_extractor(args.extractor, device=device)
        extractor.batch_size = 20 if args.small else 500
        evaluator = Evaluator(resolved, extractor, 200 if args.small else 50_000)
    best = search(cascade, evaluator, args, report, seconds, resolved)
    write()
    options = {"guidance": {resolved.stages[0].name: best}}
    images = draw(cascade, args.keep_samples, args.batch, args.precision, **options)
    np.savez_compressed(results / f"{name}-samples.npz", images=images.numpy())
    if args.final and time.monotonic() - BEGAN < args.until:
        with timed("final samples", seconds):
            images = draw(cascade, args.final, args.batch, args.precision, **options)
        with timed("final figures", seconds):
            report["final"] = {"guidance": best, **evaluator.figures(images)}
        note(f"final: {report['final']}")
        write()
    if args.reflow and time.monotonic() - BEGAN < args.until:
        spec = fast_spec(resolved.spec.to_dict(), args.pairs, args.reflow, best)
        spec["requires"] = []
        fast = args.out / f"{name}-fast"
        continue_run(out, spec, fast)
        with timed("reflow", seconds):
            build_cascade(spec, fast, device=args.device, progress=TimedProgress())
        pack(fast, results, f"{name}-fast")
        few = Cascade.from_pretrained(fast, device=device)
        rows = report["fast"] = []
        for steps in (1, 2, 4):
            for scale in (0.0, 1.0) if steps == 4 else (1.0,):
                options = {"steps": steps, "guidance": {resolved.stages[0].name: scale}}
                if time.monotonic() - BEGAN > args.until + 60:
                    break
                images = draw(few, args.samples, args.batch, args.precision, **options)
                rows.append({**options, **evaluator.figures(images)})
                note(f"fast: {rows[-1]}")
        write()
    write()
    for file in sorted(results.iterdir()):
        note(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB")


def search(
    cascade: Cascade,
    evaluator: Evaluator,
    args: argparse.Namespace,
    report: dict[str, Any],
    seconds: dict[str, float],
    resolved: Any,
) -> float:
    """Compare guidance scales of the generator; return the one with the lowest FID."""
    first, last = resolved.stages[0].name, resolved.stages[-1].name
    rows: list[Mapping[str, Any]] = []
    report["search"] = rows
    best, lowest = 1.0, float("inf")
    for scale in map(float, args.guidance.split(",")):
        if rows and time.monotonic() - BEGAN > args.until:
            break
        with timed(f"guidance {scale}", seconds):
            images = draw(
                cascade, args.samples, args.batch, args.precision, guidance={first: scale}
            )
            row = {"guidance": scale, **evaluator.figures(images)}
        rows.append(row)
        note(f"{first} guidance {scale}, {last} unchanged: {row}")
        if row["fid"] < lowest:
            best, lowest = scale, row["fid"]
    return best


def pack(run: Path, results: Path, name: str) -> None:
    """Copy the model and the event log to the results."""
    model = RunFolder(run).model
    archive = shutil.make_archive(str(results / f"{name}-model"), "tar", model)
    note(f"packed {archive}")
    events = RunFolder(run).events
    if events.is_file():
        shutil.copy(events, results / f"{name}-events.jsonl")


if __name__ == "__main__":
    main()
