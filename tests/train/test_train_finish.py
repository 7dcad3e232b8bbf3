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
from cascadezoo.train.phase_end import stages_to_finish

KINDS = {"draw": "generator", "decode": "decoder", "up": "upsampler"}
PHASES: list[dict[str, Any]] = [
    {"name": "autoencoder", "train": ["decode"], "steps": 5},
    {"name": "coarse", "train": ["draw"], "steps": 3},
]


def cascade() -> Cascade:
    data = toy_spec(KINDS, PHASES)
    data["training"]["optimizer"] = {"lr": 0.05}
    return toys(data)


def test_a_stage_measures_its_targets_with_the_averaged_weights() -> None:
    made = cascade()
    trainer(made).run()
    decode = made.stage("decode")
    (batches,) = decode.finished
    assert [len(b) for b in batches] == [8] * 8
    # In order, all of them, not mirrored, and at the stage's size.
    whole = to_floats(torch.from_numpy(image_data().images))
    assert torch.equal(torch.cat(batches), downsample(whole, 4))
    assert int(decode.seen) == COUNT
    # Measured with the final weights of the phase, so latents have a deviation of 1.
    latents = decode.upstream_target(torch.cat(batches)).detach()
    assert float(latents.std()) == pytest.approx(1.0, abs=1e-5)
    assert decode.scale.item() != pytest.approx(0.5, abs=1e-3)


def test_untrained_stages_do_not_measure_and_need_no_data() -> None:
    made = cascade()
    assert stages_to_finish(made, ["decode"]) == ["decode"]
    assert stages_to_finish(made, ["draw", "up"]) == []
    data = toy_spec(KINDS, [{"name": "up", "train": ["up"], "steps": 2}])
    only = toys(data)
    trainer(only, data=None).run()
    assert only.stage("decode").finished == []
    assert float(only.stage("decode").latent_scale) == 1.0


def test_a_trainer_without_data_fails_before_it_trains() -> None:
    with pytest.raises(ValueError, match="decode"):
        trainer(cascade(), data=None)


def test_a_later_stage_does_not_measure_again() -> None:
    kinds = {"draw": "generator", "inner": "decoder", "outer": "decoder"}
    phase = {"name": "p", "train": ["inner", "outer"], "steps": 1, "joint": True}
    made = toys(toy_spec(kinds, [phase]))
    assert stages_to_finish(made, ["inner", "outer"]) == ["inner"]
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
    "number", [*(pytest.param(n, marks=slow) for n in (1, 4, 7, 9, 14, 16)), 5, 6, 13]
)
def test_a_stop_at_any_time_resumes_to_the_same_weights(
    whole: Cascade, tmp_path: Path, number: int
) -> None:
    """Five steps, eight batches to measure, three steps: each checks once for a stop."""
    first = cascade()
    with pytest.raises(StoppedError) as caught:
        trainer(first, tmp_path / "run", stop=StopAfter(number)).run()
    kept = CheckpointStore(tmp_path / "run").newest()
    assert kept is not None
    ending = 5 < number <= 13
    assert caught.value.code == ("interrupted-doing" if ending else "interrupted-training")
    if ending:
        assert caught.value.fields["doing"] == "ending phase 'autoencoder'"
        assert (kept.position.phase, kept.position.step) == (0, 5)
        # The measurement so far is undone.
        assert int(kept.weights["1.seen"]) == 0
        assert float(first.stage("decode").latent_scale) == 1.0
    second = cascade()
    trainer(second, tmp_path / "run").run()
    assert equal(second, whole)
    assert int(second.stage("decode").seen) == COUNT


def test_measurements_are_in_the_checkpoint(tmp_path: Path) -> None:
    made = cascade()
    trainer(made, tmp_path).run()
    kept = CheckpointStore(tmp_path).newest()
    assert kept is not None
    assert torch.equal(kept.weights["1.latent_scale"], made.stage("decode").latent_scale)
    assert not equal(made, cascade())
    assert state(made)["1.seen"].item() == COUNT
