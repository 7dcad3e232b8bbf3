"""Plans of latent cascades, of super-resolution and of reflow."""

from __future__ import annotations

from typing import Any

import pytest

from cascadezoo.build.plan import Plan, make_plan
from cascadezoo.spec import apply_settings, resolve

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


def test_default_phases_of_a_latent_cascade_ask_for_no_warning() -> None:
    found = plan()
    assert [p["name"] for p in found.phases] == ["autoencoder", "coarse"]
    assert found.warnings == []


def test_memory_of_pairs_and_averages() -> None:
    phases = [
        {"name": "a", "train": ["decode"], "steps": 1},
        {"name": "b", "train": ["draw"], "steps": 1},
        {"name": "c", "train": ["draw"], "steps": 1, "reflow": {"pairs": 1000}},
    ]
    data = apply_settings(LATENT, [])
    data["training"]["phases"] = phases
    found = plan(spec=data)
    a, b, c = found.phases
    assert (a["pairs_bytes"], b["pairs_bytes"]) == (0, 0)
    # Noise and latents, 2x8x8 floats each.
    assert c["pairs_bytes"] == 1000 * 2 * (2 * 8 * 8) * 4
    assert c["bytes"] == b["bytes"] + c["pairs_bytes"]
    draw = found.stages[0].parameters * 4
    without = plan("training.ema=null", spec=data)
    assert b["bytes"] - without.phases[1]["bytes"] == draw
    own = 'training.phases.b.stages={"draw": {"ema_decay": 0.9}}'
    assert plan("training.ema=null", own, spec=data).phases[1]["bytes"] == b["bytes"]


def test_a_decoder_trained_after_its_latents_were_learned_is_warned_of() -> None:
    rows = [("a", ["decode"]), ("b", ["draw"]), ("c", ["decode"])]
    data = apply_settings(LATENT, [])
    data["training"]["phases"] = [{"name": n, "train": t, "steps": 1} for n, t in rows]
    (warning,) = plan(spec=data).warnings
    assert warning == (
        "phase c: trains the decoder decode after draw learned its latents, which move away from "
        "that"
    )


def test_conditioning_augmentation_takes_the_place_of_teacher_forcing() -> None:
    def last(augmentation: str) -> list[str]:
        config = {"channels": 32, "multipliers": [1], "augmentation": augmentation}
        data = apply_settings(LATENT, [])
        data["stages"][1] = {"name": "up", "kind": "diffusion-sr.v1", "config": config}
        data["training"]["phases"] = [{"name": "all", "train": ["draw", "up"], "steps": 1}]
        found = plan(spec=data)
        assert all(row.flops_sample for row in found.stages)
        assert found.stages[1].input == "3x8x8"
        return [w for w in found.warnings if "teacher forcing" in w]

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
