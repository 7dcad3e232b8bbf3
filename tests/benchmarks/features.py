"""Compares feature extraction with the bare network, and measures the memory of an evaluation.

python tests/benchmarks/features.py --extractor small --images 2000
python tests/benchmarks/features.py --extractor inception --images 50 --precision bf16
python tests/benchmarks/features.py --extractor wide --memory 50000
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.base import ImageData
from cascadezoo.data.pixels import to_float
from cascadezoo.evaluate.evaluate_metrics import Subject, evaluate_metrics
from cascadezoo.evaluate.evaluate_sampler import evaluate_kid
from cascadezoo.evaluate.features.base import FeatureExtractor, load_extractor
from cascadezoo.evaluate.options import EvaluationOptions
from cascadezoo.train.memory import peak_memory


class Wide(FeatureExtractor):
    """As many features as Inception at no cost, to measure the memory of the rest."""

    name = "wide"
    version = "v1"
    sha256 = "0" * 64
    num_features = 2048
    input_size = 32
    batch_size = 256

    def features(self, images: Tensor) -> Tensor:
        return images.contiguous().flatten(1)[:, : self.num_features].float() / 255


def extractor_of(name: str) -> FeatureExtractor:
    return Wide() if name == "wide" else load_extractor(name)


def bare(extractor: FeatureExtractor, batches: list[Tensor], precision: str) -> Callable[[], None]:
    """The bare network on prepared batches."""
    network = extractor.network  # type: ignore[attr-defined]
    run = network.features if extractor.name == "small" else network
    ready = [to_float(batch) for batch in batches] if extractor.name == "small" else batches

    def once() -> None:
        with (
            torch.inference_mode(),
            torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
        ):
            for batch in ready:
                run(batch)

    return once


def seconds(run: Callable[[], object]) -> float:
    """Processor time, which depends less on other processes."""
    began = time.process_time()
    run()
    return time.process_time() - began


def throughput(name: str, count: int, precision: str, pairs: int) -> None:
    extractor = extractor_of(name)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    batches = [
        batch.contiguous(memory_format=torch.channels_last)
        for batch in images.split(extractor.batch_size)
    ]
    alone = bare(extractor, batches, precision)
    ours = lambda: extractor(images, precision=precision)  # noqa: E731
    alone(), ours()
    rows = [(seconds(alone), seconds(ours)) for _ in range(pairs)]
    ratio = statistics.median(a / b for a, b in rows)
    mine, other = (count / statistics.median(column) for column in zip(*rows, strict=True))
    print(f"{name} {precision}: {count} images, {pairs} pairs, {torch.get_num_threads()} threads")
    print(f"bare network {mine:.1f} images per processor second, extractor {other:.1f}")
    print(f"throughput, median of pairs: {100 * ratio:.1f} % of the bare network's")


def memory(name: str, count: int, precision: str, metrics: list[str]) -> None:
    """Peak memory of this process, which runs only the evaluation."""
    rng = np.random.default_rng(0)
    real = ImageData(rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), None, "train")
    subject = Subject(
        cascade=Cascade.from_pretrained("shapes-tiny"),
        real=real,
        split=lambda split: real,
        sample=lambda first, number: to_float(
            torch.from_numpy(real.images[first : first + number]) // 2
        ),
    )
    extractor = extractor_of(name)
    before = peak()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        figures = evaluate_metrics(
            metrics,
            subject,
            EvaluationOptions(
                n=count,
                subsets=2,
                subset_size=min(1000, count // 2),
                batch_size=250,
                precision=precision,
                cache=Path(cache),
            ),
            extractor=extractor,
        )
    result = {
        "extractor": name,
        "images": count,
        "metrics": {figure.name: figure.value for figure in figures},
        "before_mib": round(before),
        "peak_mib": round(peak()),
        "seconds": round(time.perf_counter() - began, 1),
        "processor_seconds": round(time.process_time(), 1),
    }
    print(json.dumps(result))


def peak() -> float:
    """Peak memory of this process so far, in MiB."""
    return peak_memory(torch.device("cpu"))["process_peak_bytes"] / 2**20


def in_loop(count: int) -> None:
    """Time of an evaluation during training without sampling, with and without cached features."""
    rng = np.random.default_rng(0)
    real = ImageData(rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), None, "train")
    extractor = load_extractor("small")
    with tempfile.TemporaryDirectory() as cache:
        for when in ("with imports and real features", "afterwards"):
            wall, work = time.perf_counter(), time.process_time()
            evaluate_kid(
                lambda first, number: torch.zeros(number, 3, 32, 32),
                real,
                EvaluationOptions(n=count, cache=Path(cache)),
                extractor=extractor,
            )
            wall, work = time.perf_counter() - wall, time.process_time() - work
            print(f"{count} samples, {when}: {wall:.2f} s, {work:.2f} s of processor time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extractor", default="small", help="wide: 2,048 features at no cost")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument(
        "--memory", type=int, metavar="N", help="peak memory of an evaluation of N images"
    )
    parser.add_argument("--metrics", nargs="+", default=["kid", "fid"])
    parser.add_argument("--in-loop", type=int, metavar="N", help="seconds of a KID of N samples")
    options = parser.parse_args()
    if options.in_loop:
        in_loop(options.in_loop)
    elif options.memory:
        memory(options.extractor, options.memory, options.precision, options.metrics)
    else:
        throughput(options.extractor, options.images, options.precision, options.pairs)


if __name__ == "__main__":
    main()
