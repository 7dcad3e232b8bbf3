"""Plans against what really happens."""

from __future__ import annotations

import pytest
import torch

from cascadezoo.build.plan import make_plan
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.spec import load_spec
from cascadezoo.stages.base import TrainContext
from cascadezoo.util.rng import Draw


@pytest.mark.parametrize("name", ["shapes-demo", "diffusion-pixelshuffle-vit-tiny"])
def test_activations_are_what_a_real_step_keeps(name: str) -> None:
    resolved = load_spec(name)
    plan = make_plan(resolved, "cpu")
    cascade = Cascade.from_spec(resolved).train()
    for row, place in zip(plan.stages, resolved.stages, strict=True):
        stage = cascade.stage(place.name)
        own = {t.untyped_storage().data_ptr() for t in (*stage.parameters(), *stage.buffers())}
        kept: dict[int, int] = {}

        def pack(t: torch.Tensor, own: set[int] = own, kept: dict[int, int] = kept) -> torch.Tensor:
            storage = t.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return t

        shapes = (place.output, place.input)
        target, upstream = (s and torch.zeros(1, s.channels, s.size, s.size) for s in shapes)
        context = TrainContext(Draw(0), torch.zeros(1, dtype=torch.int64))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            output = stage(stage.preprocess(target, upstream, context))
        assert output.losses
        assert row.activation_bytes == pytest.approx(sum(kept.values()), rel=0.1), place.name


def test_flops_of_a_convolution_and_of_sampling() -> None:
    plan = make_plan(load_spec("paper-baseline"), "cpu")
    coarse = plan.stages[0]
    # Six layers of a 3x3 convolution 128 -> 256 and a 1x1 back, at 16x16, two FLOPs a product.
    layers = 6 * 2 * 16 * 16 * (9 * 128 * 256 + 256 * 128)
    assert coarse.flops_forward == pytest.approx(layers, rel=0.03)
    assert coarse.evaluations == 25
    assert coarse.flops_sample == 25 * coarse.flops_forward


def test_the_plan_warns_of_exactly_what_the_fixed_spec_mends() -> None:
    (warning,) = make_plan(load_spec("paper-baseline"), "cpu").warnings
    assert "78 %" in warning
    assert make_plan(load_spec("paper-baseline-fixed"), "cpu").warnings == []
