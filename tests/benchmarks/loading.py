"""Compares ``Cascade.from_pretrained`` with reading its files and building it on meta."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.model_folder.verified_files import SETTLED
from cascadezoo.spec import load_spec


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--spec", default="paper-baseline")
    parser.add_argument("--pairs", type=int, default=15)
    options = parser.parse_args()
    resolved = load_spec(options.spec)
    with tempfile.TemporaryDirectory() as folder:
        Cascade.from_spec(resolved).save_pretrained(folder)
        files = sorted(Path(folder).glob("stages/*/model.safetensors"))

        def reference() -> None:
            kept = [load_file(path) for path in files]
            Cascade.from_spec(resolved, device="meta")
            # Read every value, as the first sampling does, because loading may be lazy.
            for state in kept:
                for tensor in state.values():
                    tensor.sum()

        def ours() -> None:
            for tensor in Cascade.from_pretrained(folder).state_dict().values():
                tensor.sum()

        # A file counts as verified only if it has not changed for some time.
        time.sleep(SETTLED + 0.5)
        reference()
        first = seconds(ours) * 1000
        ours()
        pairs = [(seconds(ours), seconds(reference)) for _ in range(options.pairs)]
        size = sum(path.stat().st_size for path in files) / 2**20
    mine, other = (statistics.median(column) * 1000 for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{options.spec}, {size:.1f} MiB of weights, {options.pairs} pairs")
    print(f"first load, which hashes every byte: {first:.1f} ms")
    print(f"from_pretrained {mine:.1f} ms, load_file and meta {other:.1f} ms")
    print(f"ratio, median of pairs: {ratio:.2f}")


if __name__ == "__main__":
    main()
