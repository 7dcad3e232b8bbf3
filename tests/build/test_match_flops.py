"""Steps for a number of training FLOPs: near, in the same ratio, or an error with the nearest."""

from __future__ import annotations

from typing import Any

import pytest
from errors_help import raises

from cascadezoo.build.match_flops import match_flops, steps_between, training_flops
from cascadezoo.errors import InputError
from cascadezoo.spec import load_spec


def spec(**changes: Any) -> dict[str, Any]:
    training = {
        "batch_size": 4,
        "losses": [],
        "phases": [
            {"name": "first", "train": ["coarse"], "steps": 30},
            {"name": "last", "train": ["up"], "steps": 10, "batch_size": 8},
        ],
    }
    return {
        "name": "matched",
        "data": {"source": "shapes", "config": {"size": 8}},
        "stages": [
            {"name": "coarse", "kind": "flow.v1", "config": {"channels": 8, "multipliers": [1]}},
            {"name": "up", "kind": "pixelshuffle.v1", "config": {"hidden": 8, "blocks": 1}},
        ],
        "training": training | changes,
        "evaluation": {"extractor": "small"},
    }


def test_the_steps_are_scaled_by_one_factor() -> None:
    before = spec()
    now = training_flops(load_spec(before))
    after = match_flops(before, 10 * now)
    assert [phase["steps"] for phase in after["training"]["phases"]] == [300, 100]
    assert training_flops(load_spec(after)) == pytest.approx(10 * now)
    resolved = load_spec(before).spec.to_dict()
    assert steps_between(resolved, after) == [
        "training.phases.first.steps=300",
        "training.phases.last.steps=100",
    ]
    assert match_flops(after, 10 * now) == after
    assert before == spec(), "the argument was changed"
    near = match_flops(before, 3.21 * now)
    assert training_flops(load_spec(near)) == pytest.approx(3.21 * now, rel=0.02)


def test_flops_count_the_batches_of_each_phase() -> None:
    before = spec()
    first, last = before["training"]["phases"]
    one = training_flops(load_spec(spec(phases=[first])))
    other = training_flops(load_spec(spec(phases=[last])))
    assert training_flops(load_spec(before)) == pytest.approx(one + other)
    doubled = spec(phases=[first | {"batch_size": 8}])
    assert training_flops(load_spec(doubled)) == pytest.approx(2 * one)


def test_what_cannot_be_matched() -> None:
    now = training_flops(load_spec(spec()))
    with raises(InputError, "input-match-flops-unreachable", flops=now / 100):
        match_flops(spec(), now / 100)
    for wrong in (0.0, -1.0, float("nan"), float("inf"), 1e31):
        with raises(InputError, "input-match-flops-invalid"):
            match_flops(spec(), wrong)
    epochs = [{"name": "first", "train": ["coarse"], "epochs": 2}]
    with raises(InputError, "input-match-flops-epochs", name="first"):
        match_flops(spec(phases=epochs), 1e12)
    with raises(InputError, "input-match-flops-none", name="matched"):
        match_flops(spec(phases=[]), 1e12)
