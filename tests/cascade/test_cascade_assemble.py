"""Building stages: on the CPU, and without weights on the meta device."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from cascadezoo import Cascade

SPEC = {
    "name": "flow",
    "data": {"source": "shapes", "config": {"size": 16}},
    "stages": [
        {"name": "coarse", "kind": "flow.v1", "config": {"size": 8, "channels": 8}},
        {"name": "up", "kind": "flow-sr.v2", "config": {"factor": 2, "channels": 8}},
    ],
}


@pytest.mark.slow
def test_loading_a_model_imports_no_compiler() -> None:
    """Importing torch._dynamo takes longer than loading and sampling a small model."""
    code = f"""
import sys
from cascadezoo import Cascade
cascade = Cascade.from_spec({SPEC!r}, device="meta")
assert "labels" in " ".join(dict(cascade.stage("coarse").named_parameters()))
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_the_meta_device_leaves_the_generator_and_later_weights_alone() -> None:
    before = torch.random.get_rng_state()
    first = Cascade.from_spec(SPEC)
    meta = Cascade.from_spec(SPEC, device="meta")
    second = Cascade.from_spec(SPEC)
    assert torch.equal(torch.random.get_rng_state(), before)
    for (name, stage), (_, again), (_, empty) in zip(
        first.named_stages(), second.named_stages(), meta.named_stages(), strict=True
    ):
        weights, repeated, shapes = stage.state_dict(), again.state_dict(), empty.state_dict()
        assert weights.keys() == shapes.keys(), name
        for key, value in weights.items():
            assert torch.equal(value, repeated[key])
            assert shapes[key].is_meta
            assert shapes[key].shape == value.shape
        # Outside of the meta device layers are initialised as ever.
        assert any(value.std() > 0 for value in weights.values())
