"""Phases: the order of decoders, frozen stages, and pairs of estimates and targets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from cascadezoo.errors import Problem, SpecError
from cascadezoo.spec import CascadeSpec, load_spec, resolve

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))

from toys import toy_registry, toy_spec

REGISTRY = toy_registry()


def phases_of(kinds: dict[str, str]) -> list[tuple[str, list[str], int | None, bool]]:
    spec = resolve(toy_spec(kinds), registry=REGISTRY).spec
    return [(p.name, p.train, p.epochs, p.joint) for p in spec.training.phases or []]


def problems(data: dict[str, Any]) -> dict[str, Problem]:
    with pytest.raises(SpecError) as caught:
        resolve(data, registry=REGISTRY)
    return {p.path: p for p in caught.value.problems}


def codes(data: dict[str, Any]) -> dict[str, str]:
    return {path: problem.code for path, problem in problems(data).items()}


LATENT = {"draw": "generator", "decode": "decoder"}


@pytest.mark.parametrize(
    ("kinds", "want"),
    [
        (LATENT, [("autoencoder", ["decode"], 35, False), ("coarse", ["draw"], 35, False)]),
        ({"draw": "generator", "decode": "frozen"}, [("coarse", ["draw"], 35, False)]),
        (
            {"draw": "generator", "up": "upsampler", "decode": "decoder", "sharpen": "refiner"},
            [
                ("autoencoder", ["decode"], 35, False),
                ("coarse", ["draw"], 35, False),
                ("cascade", ["up", "sharpen"], 35, False),
                ("joint", ["draw", "up", "sharpen"], 30, True),
            ],
        ),
        (
            {"draw": "generator", "inner": "decoder", "outer": "decoder"},
            [
                ("autoencoder", ["outer"], 35, False),
                ("autoencoder-2", ["inner"], 35, False),
                ("coarse", ["draw"], 35, False),
            ],
        ),
    ],
)
def test_default_phases_train_decoders_first(kinds, want) -> None:
    assert phases_of(kinds) == want


def latent(*phases: dict[str, Any], decoder: str = "decoder") -> dict[str, Any]:
    rows = [{"name": f"p{i}", "steps": 1, **phase} for i, phase in enumerate(phases)]
    return toy_spec({"draw": "generator", "decode": decoder}, rows)


def test_a_frozen_stage_is_not_trained() -> None:
    (problem,) = problems(
        latent({"train": ["draw", "decode"], "joint": True}, decoder="frozen")
    ).values()
    assert (problem.path, problem.code) == ("training.phases.0.train.1", "never-trained")
    assert "'decode'" in problem.message


def test_a_decoder_is_trained_before_the_stages_that_learn_its_latents() -> None:
    assert codes(latent({"train": ["decode", "draw"]})) == {
        "training.phases.0.train": "decoder-with-latents"
    }
    for order in ([{"train": ["draw"]}, {"train": ["decode"]}], [{"train": ["draw"]}]):
        assert codes(latent(*order)) == {"training.phases.0.train": "latents-untrained"}
    assert resolve(latent({"train": ["decode", "draw"], "joint": True}), registry=REGISTRY)
    assert resolve(latent({"train": ["draw"]}, decoder="frozen"), registry=REGISTRY)
    assert resolve(latent({"train": ["decode"]}, {"train": ["draw"]}), registry=REGISTRY)


def test_a_decoder_needs_latents() -> None:
    data = latent({"train": ["decode"]})
    data["stages"][1]["config"] = {"pixels": True}
    rows_by_path = problems(data)
    assert {path: problem.code for path, problem in rows_by_path.items()} == {
        "stages.1.kind": "role-contradicted"
    }
    assert "toy-decoder.v1" in rows_by_path["stages.1.kind"].message


def test_a_stage_checks_the_previous_stage() -> None:
    data = latent({"train": ["draw"]}, decoder="frozen")
    data["stages"][1]["config"] = {"most": 3}
    (problem,) = problems(data).values()
    assert (problem.path, problem.code) == ("stages.1.config.most", "invalid")
    data["stages"][1]["config"] = {"most": 4}
    assert resolve(data, registry=REGISTRY)


def test_a_refiner_of_latents_has_no_lpips_loss() -> None:
    kinds = {"draw": "generator", "sharpen": "refiner", "decode": "decoder", "polish": "refiner"}
    data = toy_spec(kinds)
    del data["training"]["losses"]
    losses = resolve(data, registry=REGISTRY).spec.training.losses
    assert [loss.stage for loss in losses or []] == ["polish"]


# --- reflow

FIRST = {"name": "a", "train": ["draw"], "steps": 1}
KINDS = {"draw": "reflow", "sharpen": "refiner"}


def reflowing(reflow: dict[str, Any], *before: dict[str, Any], **phase: Any) -> dict[str, Any]:
    row = {"name": "z", "train": ["draw"], "epochs": 1, "reflow": {"pairs": 16, **reflow}, **phase}
    return toy_spec(KINDS, [*before, row])


def test_pairs_are_written_out() -> None:
    spec = resolve(reflowing({"steps": 3}, FIRST), registry=REGISTRY).spec
    assert spec.to_dict()["training"]["phases"][1]["reflow"] == {
        "pairs": 16,
        "steps": 3,
        "guidance": None,
        "sampler": None,
    }
    assert resolve(spec, registry=REGISTRY).spec == spec


@pytest.mark.parametrize(
    ("data", "path", "code"),
    [
        (reflowing({}), "reflow", "reflow-untrained"),
        (reflowing({"pairs": 7}, FIRST), "reflow.pairs", "reflow-pairs"),
        (reflowing({"pairs": 0}, FIRST), "reflow.pairs", "greater-than-equal"),
        (reflowing({"steps": 101}, FIRST), "reflow.steps", "less-than-equal"),
        (reflowing({"sampler": "three"}, FIRST), "reflow.sampler", "literal-error"),
        (reflowing({"guidance": 2.0}, FIRST), "reflow.guidance", "extra-forbidden"),
        (reflowing({}, FIRST, train=["sharpen"]), "reflow", "reflow-others"),
        (reflowing({}, FIRST, train=["draw", "sharpen"]), "reflow", "reflow-others"),
    ],
)
def test_impossible_pairs_are_rejected(data: dict[str, Any], path: str, code: str) -> None:
    index = len(data["training"]["phases"]) - 1
    assert codes(data) == {f"training.phases.{index}.{path}": code}


def test_a_kind_without_reflow() -> None:
    data = reflowing({}, FIRST)
    data["stages"][0]["kind"] = "toy-generator.v1"
    assert codes(data) == {"training.phases.1.reflow": "reflow-kind"}


def test_guided_pairs_need_labels() -> None:
    data = reflowing({"guidance": 1.5}, FIRST)
    data["stages"][0] = {"name": "draw", "kind": "flow.v1", "config": {"channels": 8}}
    assert resolve(data, registry=REGISTRY)
    data["data"]["num_classes"] = 0
    assert codes(data)["training.phases.1.reflow.guidance"] == "guidance-needs-labels"


LATER = ("restart", "sampling_schedule", "cosine_offset", "dynamic_threshold")


def test_digests_do_not_change_with_defaults_of_later_keys() -> None:
    """Runs from before these keys existed can resume."""
    spec = load_spec("diffusion-pixelshuffle-vit-tiny").spec
    data = spec.to_dict()
    data["training"]["phases"][0]["stages"] = {"coarse": {}}
    named = resolve(data).spec
    explicit = named.to_dict()
    assert explicit["training"]["phases"][0]["stages"]["coarse"]["ema_decay"] is None
    explicit["training"]["phases"][0]["stages"]["coarse"]["ema_decay"] = 0.5
    other = CascadeSpec.model_validate(explicit)
    assert len({s.training_digest() for s in (spec, named, other)}) == 3
    assert len({s.digest() for s in (spec, named, other)}) == 3
    import hashlib
    import json

    plain = named.to_dict()
    del plain["training"]["callbacks"]
    for key in ("class_names", "streaming", "stream"):
        del plain["data"][key]
    for key in ("compile", "accumulate", "recompute", "parallel"):
        del plain["training"][key]
    del plain["evaluation"]["precision"]
    for key in ("metric", "keep", "pictures"):
        (plain["evaluation"]["in_loop"] or {}).pop(key, None)
    for key in LATER:
        for stage in plain["stages"]:
            stage["config"].pop(key, None)
    for phase in plain["training"]["phases"]:
        del phase["reflow"]
        del phase["batch_size"]
        for stage in phase["stages"].values():
            del stage["ema_decay"]
            del stage["groups"]
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    assert named.digest() == hashlib.sha256(text.encode()).hexdigest()


def bare(up: str, refine: str, phases: list[dict[str, Any]] | None) -> dict[str, Any]:
    """Real kinds: an interpolation and an identity have nothing to train."""
    training = {} if phases is None else {"phases": [{"steps": 1, **row} for row in phases]}
    return {
        "name": "bare",
        "data": {"source": "shapes"},
        "stages": [
            {"name": "coarse", "kind": "flow.v1"},
            {"name": "up", "kind": up},
            {"name": "refine", "kind": refine},
        ],
        "training": training,
        "evaluation": {"extractor": "small"},
    }


@pytest.mark.parametrize(
    ("up", "refine", "want"),
    [
        ("interpolate.v1", "identity.v1", [["coarse"]]),
        ("interpolate.v1", "vit.v1", [["coarse"], ["refine"], ["coarse", "refine"]]),
        ("transposed.v1", "identity.v1", [["coarse"], ["up"], ["coarse", "up"]]),
        (
            "resnet-upsampler.v1",
            "conv-refiner.v1",
            [["coarse"], ["up", "refine"], ["coarse", "up", "refine"]],
        ),
    ],
)
def test_default_phases_omit_stages_without_parameters(up, refine, want) -> None:
    assert [p.train for p in load_spec(bare(up, refine, None)).spec.training.phases or []] == want


def test_a_phase_that_trains_nothing_is_rejected() -> None:
    first = {"name": "coarse", "train": ["coarse"]}
    rows = [first, {"name": "cascade", "train": ["up", "refine"]}]
    with pytest.raises(SpecError) as caught:
        load_spec(bare("interpolate.v1", "identity.v1", rows))
    (problem,) = caught.value.problems
    assert problem.path == "training.phases.1.train"
    assert problem.code == "trains-nothing"
    assert "'up' and 'refine'" in problem.message
    assert problem.hint
    # With a stage that learns they have no effect, and may have settings.
    rows[1] = {"name": "cascade", "train": ["up", "refine"], "stages": {"up": {"lr": 1e-4}}}
    assert load_spec(bare("interpolate.v1", "vit.v1", rows))


@pytest.mark.parametrize(
    ("trained", "bare_ones", "joint", "want"),
    [
        ("100", "011", False, "100"),
        ("100", "011", True, "111"),
        ("001", "010", False, "011"),
        ("001", "110", False, "111"),
        ("010", "001", False, "010"),
        ("010", "001", True, "011"),
        ("110", "010", False, "100"),
        ("1000", "0101", True, "1100"),
        ("1010", "0101", False, "1110"),
        ("000", "111", True, "000"),
    ],
)
def test_which_stages_take_part(trained, bare_ones, joint, want) -> None:
    from cascadezoo.spec.phases import taking_part

    def flags(text: str) -> list[bool]:
        return [letter == "1" for letter in text]

    assert taking_part(flags(trained), flags(bare_ones), joint=joint) == flags(want)
