"""Measures how long a training waits for streamed images, on shards of demo size."""

from __future__ import annotations

import argparse
import io
import statistics
import tarfile
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.shapes import ShapesConfig, load
from cascadezoo.data.split import load_split
from cascadezoo.data.stream_loader import StreamLoader, make_loader
from cascadezoo.spec import ResolvedSpec, load_spec
from cascadezoo.train.engine import make_accelerator
from cascadezoo.train.trainer import Trainer


def write_shards(root: Path, count: int, size: int) -> None:
    data = load(ShapesConfig(size=size, count=count), "train")
    assert data.labels is not None
    for first in range(0, count, 1000):
        with tarfile.open(root / f"train-{first // 1000:03d}.tar", "w") as tar:
            for row in range(first, min(first + 1000, count)):
                image = io.BytesIO()
                Image.fromarray(data.images[row].transpose(1, 2, 0)).save(image, "PNG")
                for end, content in (("png", image.getvalue()), ("cls", b"%d" % data.labels[row])):
                    member = tarfile.TarInfo(f"{row:06d}.{end}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def trained(resolved: ResolvedSpec) -> tuple[float, float, float]:
    """Seconds and CPU seconds of the process in the training, and seconds that it waited."""
    data = load_split(resolved, "train")
    spec = resolved.spec
    loader = make_loader(
        data, batch_size=spec.training.batch_size, seed=spec.seed, flip=spec.data.flip
    )
    cascade = Cascade.from_spec(resolved)
    trainer = Trainer(cascade, loader, make_accelerator(torch.device("cpu"), "fp32"), data=data)
    cpu = time.process_time()
    trainer.run()
    cpu = time.process_time() - cpu
    waited = 0.0
    if isinstance(loader, StreamLoader):
        waited = loader.waited
        loader.close()
    return trainer.position.seconds, cpu, waited


def rate(resolved: ResolvedSpec, batches: int = 60) -> float:
    """Images per second that the workers decode, if nothing else runs."""
    loader = make_loader(load_split(resolved, "train"), batch_size=64, seed=0)
    loader.batch(0, 0)
    began = time.perf_counter()
    for step in range(1, batches + 1):
        loader.batch(*divmod(step, loader.steps_per_epoch))
    return 64 * batches / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--size", type=int, default=32, help="pixels of the stored images")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), options.images, options.size)
        spec = {
            "name": "streaming",
            "data": {
                "source": "webdataset",
                "config": {"path": folder},
                "size": 16,
                "stream": {"workers": options.workers},
            },
            "stages": [{"name": "coarse", "kind": "flow", "config": {"channels": 32}}],
            "training": {
                "batch_size": 64,
                "precision": "fp32",
                "log_steps": 10,
                "phases": [{"name": "coarse", "train": ["coarse"], "steps": options.steps}],
            },
        }
        pair = [load_spec(spec, settings=[f"data.streaming={v}"]) for v in ("true", "false")]
        rows = [[trained(resolved) for resolved in pair] for _ in range(options.pairs)]
        decoded = rate(pair[0])
    idle = [row[0][2] / row[0][0] for row in rows]
    print(
        f"{options.images} images of {options.size}x{options.size} in shards, {options.steps} steps of 64 at "
        f"16x16, {options.workers} workers, {options.pairs} pairs"
    )
    print("idle share of each streamed training: " + ", ".join(f"{x:.2%}" for x in idle))
    steps = [1000 * row[0][0] / options.steps for row in rows]
    ratio = statistics.median(row[0][0] / row[1][0] for row in rows)
    cpu = statistics.median(row[0][1] / row[1][1] for row in rows)
    print(f"a streamed step: {statistics.median(steps):.1f} ms")
    print(f"streamed against resident, median of pairs: {ratio:.3f} in time, {cpu:.3f} in CPU time")
    print(f"workers alone decode {decoded:,.0f} images/s")


if __name__ == "__main__":
    main()
