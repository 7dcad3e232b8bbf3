"""Plans: their warnings, and costs against what really happens."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from cascadezoo.build.plan import Plan, make_plan
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.cascade.stage_costs import StagePlan
from cascadezoo.spec import apply_settings, load_spec, resolve
from cascadezoo.stages.base import TrainContext
from cascadezoo.util.rng import Draw

LATENT: dict[str, Any] = {
    "name": "latent",
    "data": {"source": "shapes", "config": {"size": 16}},
    "stages": [
        {
            "name": "draw",
            "kind": "flow.v1",
            "config": {"channels": 16, "multipliers": [1], "attention": [], "steps": 5},
        },
        {
            "name": "decode",
            "kind": "autoencoder.v1",
            "config": {"latent_channels": 2, "channels": 8, "multipliers": [1, 2]},
        },
    ],
    "training": {"batch_size": 16, "losses": []},
}


def plan(*settings: str, spec: dict[str, Any] = LATENT) -> Plan:
    return make_plan(resolve(apply_settings(spec, settings)), "cpu")


def test_a_decoder_samples_without_its_encoder() -> None:
    draw, decode = plan().stages
    assert (draw.output, decode.input) == ("2x8x8 latents", "2x8x8 latents")
    # Decoder and encoder are of about one size.
    assert 0.4 < decode.flops_sample / decode.flops_forward < 0.7
    # Five steps, guided: each evaluates the network twice.
    assert draw.flops_sample == 10 * draw.flops_forward


def test_default_phases_of_a_latent_cascade_give_no_warning() -> None:
    result = plan()
    assert [p["name"] for p in result.phases] == ["autoencoder", "coarse"]
    assert result.warnings == []


def test_memory_of_pairs_and_averages() -> None:
    phases = [
        {"name": "a", "train": ["decode"], "steps": 1},
        {"name": "b", "train": ["draw"], "steps": 1},
        {"name": "c", "train": ["draw"], "steps": 1, "reflow": {"pairs": 1000}},
    ]
    data = apply_settings(LATENT, [])
    data["training"]["phases"] = phases
    result = plan(spec=data)
    a, b, c = result.phases
    assert (a["pairs_bytes"], b["pairs_bytes"]) == (0, 0)
    # Noise and latents, 2x8x8 floats each.
    assert c["pairs_bytes"] == 1000 * 2 * (2 * 8 * 8) * 4
    assert c["bytes"] == b["bytes"] + c["pairs_bytes"]
    draw = result.stages[0].parameters * 4
    without = plan("training.ema=null", spec=data)
    assert b["bytes"] - without.phases[1]["bytes"] == draw
    own = 'training.phases.b.stages={"draw": {"ema_decay": 0.9}}'
    assert plan("training.ema=null", own, spec=data).phases[1]["bytes"] == b["bytes"]


def test_training_a_decoder_after_its_latents_were_learned_gives_a_warning() -> None:
    rows = [("a", ["decode"]), ("b", ["draw"]), ("c", ["decode"])]
    data = apply_settings(LATENT, [])
    data["training"]["phases"] = [{"name": n, "train": t, "steps": 1} for n, t in rows]
    (warning,) = plan(spec=data).warnings
    assert warning.startswith("phase c: ")
    assert "decoder decode " in warning
    assert "draw learned" in warning


def test_conditioning_augmentation_replaces_teacher_forcing() -> None:
    def last(augmentation: str) -> list[str]:
        config = {"channels": 32, "multipliers": [1], "augmentation": augmentation}
        data = apply_settings(LATENT, [])
        data["stages"][1] = {"name": "up", "kind": "diffusion-sr.v1", "config": config}
        data["training"]["phases"] = [{"name": "all", "train": ["draw", "up"], "steps": 1}]
        result = plan(spec=data)
        assert all(row.flops_sample for row in result.stages)
        assert result.stages[1].input == "3x8x8"
        return [w for w in result.warnings if "teacher forcing" in w]

    assert last("gaussian") == []
    (warning,) = last("none")
    assert warning.startswith("phase all: teacher forcing ends at 1")


@pytest.mark.parametrize("kind", ["diffusion-sr.v1", "flow-sr.v1", "flow-sr.v2"])
def test_super_resolution_is_traced(kind: str) -> None:
    data = apply_settings(LATENT, [])
    config = {"channels": 32, "multipliers": [1], "steps": 3}
    data["stages"][1] = {"name": "up", "kind": kind, "config": config}
    up = plan(spec=data).stages[1]
    assert up.flops_forward is not None
    assert up.flops_sample == up.evaluations * up.flops_forward
    assert up.activation_bytes > 0


def test_passes_without_gradients_have_no_backward_pass() -> None:
    """A quarter of the images of a MeanFlow needs a pass in forward mode.

    It costs three forward passes: PyTorch also convolves with the tangents of the weights, zero.
    """

    def draw(**config: Any) -> StagePlan:
        data = apply_settings(LATENT, [])
        shape = {"channels": 16, "multipliers": [1], **config}
        data["stages"][0] = {"name": "draw", "kind": "mean-flow.v1", "config": shape}
        result = plan(spec=data)
        row = result.stages[0]
        phases = [{"train": ["draw"], "steps": 3, "epochs": None, "batch_size": 4}]
        result = dataclasses.replace(result, phases=phases)
        assert row.flops_forward is not None
        assert row.flops_backward is not None
        assert result.training_flops(16, 1) == 12 * (row.flops_forward + row.flops_backward)
        return row

    flow, quarter = draw(flow_ratio=1.0, steps=4), draw(flow_ratio=0.75, steps=4)
    each = flow.flops_forward
    assert each is not None
    assert flow.flops_backward == quarter.flops_backward == 2 * each
    assert quarter.flops_forward == pytest.approx(1.75 * each, rel=0.01)
    assert flow.flops_sample == quarter.flops_sample == 4 * each
    assert flow.activation_bytes == pytest.approx(quarter.activation_bytes, rel=0.01)
    guided = draw(flow_ratio=1.0, steps=1, omega=1.5, kappa=0.25)
    assert guided.flops_forward == 3 * each
    assert guided.flops_sample == each


@pytest.mark.parametrize("name", ["shapes-demo", "diffusion-pixelshuffle-vit-tiny"])
def test_activations_equal_those_of_a_real_step(name: str) -> None:
    resolved = load_spec(name)
    result = make_plan(resolved, "cpu")
    cascade = Cascade.from_spec(resolved).train()
    for row, place in zip(result.stages, resolved.stages, strict=True):
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
    coarse = make_plan(load_spec("paper-baseline"), "cpu").stages[0]
    # Six layers of a 3x3 convolution 128 -> 256 and a 1x1 back, at 16x16, two FLOPs per product.
    layers = 6 * 2 * 16 * 16 * (9 * 128 * 256 + 256 * 128)
    assert coarse.flops_forward == pytest.approx(layers, rel=0.03)
    assert coarse.evaluations == 25
    assert coarse.flops_sample == 25 * coarse.flops_forward


def test_the_fixed_spec_removes_the_warning_of_the_paper_spec() -> None:
    (warning,) = make_plan(load_spec("paper-baseline"), "cpu").warnings
    assert "78 %" in warning
    assert make_plan(load_spec("paper-baseline-fixed"), "cpu").warnings == []
