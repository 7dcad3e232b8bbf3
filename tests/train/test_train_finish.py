"""The end of a phase: stages measure their targets over the whole training set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toys import toy_spec, toys
from train_cases import COUNT, StopAfter, equal, image_data, state, trainer

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.loader import to_floats
from cascadezoo.errors import StoppedError
from cascadezoo.stages.base import downsample
from cascadezoo.train.checkpoint import CheckpointStore
from cascadezoo.train.phase_end import finishing

KINDS = {"draw": "generator", "decode": "decoder", "up": "upsampler"}
PHASES: list[dict[str, Any]] = [
    {"name": "autoencoder", "train": ["decode"], "steps": 5},
    {"name": "coarse", "train": ["draw"], "steps": 3},
]


def cascade() -> Cascade:
    data = toy_spec(KINDS, PHASES)
    data["training"]["optimizer"] = {"lr": 0.05}
    return toys(data)


def test_a_stage_goes_through_its_targets_with_the_averaged_weights() -> None:
    made = cascade()
    trainer(made).run()
    decode = made.stage("decode")
    (batches,) = decode.finished
    assert [len(b) for b in batches] == [8] * 8
    # In order, none mirrored, none left out, brought to the stage's own size.
    whole = to_floats(torch.from_numpy(image_data().images))
    assert torch.equal(torch.cat(batches), downsample(whole, 4))
    assert int(decode.seen) == COUNT
    # Measured with the weights that the phase ends on, so that latents have a deviation of 1.
    latents = decode.upstream_target(torch.cat(batches)).detach()
    assert float(latents.std()) == pytest.approx(1.0, abs=1e-5)
    assert decode.scale.item() != pytest.approx(0.5, abs=1e-3)


def test_what_a_phase_does_not_train_is_not_measured_and_data_are_not_touched() -> None:
    made = cascade()
    assert finishing(made, ["decode"]) == ["decode"]
    assert finishing(made, ["draw", "up"]) == []
    data = toy_spec(KINDS, [{"name": "up", "train": ["up"], "steps": 2}])
    only = toys(data)
    trainer(only, data=None).run()
    assert only.stage("decode").finished == []
    assert float(only.stage("decode").latent_scale) == 1.0


def test_a_trainer_without_data_says_so_before_it_trains() -> None:
    with pytest.raises(ValueError, match="decode goes through the training images"):
        trainer(cascade(), data=None)


def test_what_was_learned_behind_a_stage_is_not_measured_again() -> None:
    kinds = {"draw": "generator", "inner": "decoder", "outer": "decoder"}
    phase = {"name": "p", "train": ["inner", "outer"], "steps": 1, "joint": True}
    made = toys(toy_spec(kinds, [phase]))
    assert finishing(made, ["inner", "outer"]) == ["inner"]
    trainer(made).run()
    (seen,) = made.stage("inner").finished
    outer = made.stage("outer")
    whole = to_floats(torch.from_numpy(image_data().images))
    assert torch.equal(torch.cat(seen), outer.upstream_target(whole))
    assert float(outer.latent_scale) == 1.0


@pytest.fixture(scope="module")
def whole() -> Cascade:
    made = cascade()
    trainer(made).run()
    return made


slow = pytest.mark.slow


@pytest.mark.parametrize(
    "asked", [*(pytest.param(n, marks=slow) for n in (1, 4, 7, 9, 14, 16)), 5, 6, 13]
)
def test_a_stop_at_any_time_goes_on_to_the_same_weights(
    whole: Cascade, tmp_path: Path, asked: int
) -> None:
    """Five steps, eight batches to measure, three steps: each asks once whether to stop."""
    first = cascade()
    with pytest.raises(StoppedError) as caught:
        trainer(first, tmp_path / "run", stop=StopAfter(asked)).run()
    kept = CheckpointStore(tmp_path / "run").newest()
    assert kept is not None
    ending = 5 < asked <= 13
    assert caught.value.code == ("interrupted-doing" if ending else "interrupted-training")
    if ending:
        assert caught.value.fields["doing"] == "ending phase 'autoencoder'"
        assert (kept.position.phase, kept.position.step) == (0, 5)
        # What was measured so far is undone.
        assert int(kept.weights["1.seen"]) == 0
        assert float(first.stage("decode").latent_scale) == 1.0
    second = cascade()
    trainer(second, tmp_path / "run").run()
    assert equal(second, whole)
    assert int(second.stage("decode").seen) == COUNT


def test_what_was_measured_is_in_the_checkpoint(tmp_path: Path) -> None:
    made = cascade()
    trainer(made, tmp_path).run()
    kept = CheckpointStore(tmp_path).newest()
    assert kept is not None
    assert torch.equal(kept.weights["1.latent_scale"], made.stage("decode").latent_scale)
    assert not equal(made, cascade())
    assert state(made)["1.seen"].item() == COUNT
