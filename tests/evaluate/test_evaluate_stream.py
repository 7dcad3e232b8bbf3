"""The cost of an evaluation: memory, and time without sampling."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from cascadezoo.data.base import ImageData
from cascadezoo.evaluate.evaluate_sampler import evaluate_kid
from cascadezoo.evaluate.features.base import load_extractor
from cascadezoo.evaluate.options import EvaluationOptions
from cascadezoo.evaluate.real_features import real_features, real_statistics

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "features.py"

INCEPTION_MIB = 780
"""Memory of Inception's weights and activations, as measured by the benchmark."""


def peak_of(count):
    """Peak memory in MiB of KID and FID with 2,048 features, in another process."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--extractor", "wide", "--memory", str(count)],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_fifty_thousand_images_stay_under_three_gib():
    result = peak_of(50_000)
    assert set(result["metrics"]) >= {"kid.wide.n50000", "fid.wide.n50000"}
    assert result["peak_mib"] + INCEPTION_MIB < 3072


@pytest.mark.slow
def test_two_thousand_samples_in_the_loop_cost_under_five_seconds(tmp_path):
    rng = np.random.default_rng(0)
    real = ImageData(rng.integers(0, 256, (2000, 3, 32, 32), dtype=np.uint8), None, "train")
    extractor = load_extractor("small")
    images = torch.rand(2000, 3, 32, 32) * 2 - 1

    def measure():
        began = time.process_time()
        evaluate_kid(
            lambda first, count: images[first : first + count],
            real,
            EvaluationOptions(n=2000, cache=tmp_path),
            extractor=extractor,
        )
        return time.process_time() - began

    measure()  # imports torchmetrics and caches the features of the real images
    # Processor time does not depend on the load; two cores have twice the time.
    assert measure() < 5


class Biggest:
    """Records the largest batch that an extractor receives."""

    def __init__(self, extractor):
        self.__dict__.update(inner=extractor, most=0)

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __call__(self, images, **options):
        self.__dict__["most"] = max(self.most, len(images))
        return self.inner(images, **options)


def test_real_images_are_extracted_in_batches(means, tmp_path):
    rng = np.random.default_rng(0)
    real = ImageData(rng.integers(0, 256, (2345, 3, 8, 8), dtype=np.uint8), None, "train")
    watched = Biggest(means)
    real_features(real, watched, cache=tmp_path / "one")
    real_statistics(real, watched, cache=tmp_path / "two")
    assert watched.most == means.batch_size
