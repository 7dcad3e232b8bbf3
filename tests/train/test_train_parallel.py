"""Several processes: equal weights, checkpoints that change hands, stops, lost processes."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from errors_help import raises
from group_toys import duel_spec, resolved
from parallel_cases import draw_together, networks, single, train
from process_cases import run_processes
from toys import toy_spec

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.errors import InputError, SampleError, SpecError, StoppedError, TrainingError
from cascadezoo.spec import load_spec
from cascadezoo.train.checkpoint import CheckpointStore
from cascadezoo.train.optim import check_shardable
from cascadezoo.util.processes import Peers, claim_report, gather_values

State = dict[str, np.ndarray]


def assert_equal(one: State, two: State, most: float = 1e-5) -> None:
    assert isinstance(two, dict), two
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=most, atol=most, err_msg=name)


@pytest.fixture(scope="module")
def alone() -> State:
    """The weights after 50 steps in one process: single stages, frozen ones, a joint phase."""
    (state,) = run_processes(1, train, networks(50))
    before = {k: v.numpy() for k, v in start(networks(50)).stages.state_dict().items()}
    assert max(float(np.abs(state[k] - before[k]).max()) for k in state) > 1e-3
    return state


def start(spec: dict[str, Any]) -> Cascade:
    return Cascade.from_spec(load_spec(spec))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "settings"),
    [
        (2, {"parallel": "ddp", "accumulate": 2}),
        (4, {"parallel": "auto"}),
        (2, {"parallel": "fsdp"}),
        (4, {"parallel": "fsdp", "accumulate": 2}),
    ],
    ids=["ddp-2-in-parts", "ddp-4", "fsdp-2", "fsdp-4-in-parts"],
)
def test_the_number_of_processes_does_not_change_the_weights(
    alone: State, world: int, settings: dict[str, Any]
) -> None:
    states = run_processes(world, train, networks(50, **settings))
    for state in states:
        assert_equal(alone, state)
        assert all(np.array_equal(state[k], states[0][k]) for k in state)


@pytest.mark.slow
def test_derivatives_of_a_network_are_the_same_in_several_processes() -> None:
    """MeanFlow: a pass in forward mode for half of the images, and trained guidance."""
    config = {"size": 8, "channels": 8, "multipliers": [1], "flow_ratio": 0.5, "omega": 1.5}
    stages = [{"name": "coarse", "kind": "mean-flow.v1", "config": config}]
    (one,) = run_processes(1, train, {**single(6), "stages": stages})
    assert isinstance(one, dict), one
    for settings in ({"parallel": "ddp", "accumulate": 2}, {"parallel": "fsdp"}):
        for state in run_processes(2, train, {**single(6, **settings), "stages": stages}):
            assert_equal(one, state)


@pytest.mark.slow
def test_groups_with_paces_of_their_own_train_the_same() -> None:
    """Two backward passes a step, one group learning every other step, and a frozen neighbour."""
    phases = [{"name": "p", "train": ["duel"], "steps": 9}]
    spec = duel_spec({"every": 2}, "heeding", phases=phases, optimizer={"lr": 0.01})
    (one,) = run_processes(1, train, spec, None, "group_toys")
    assert isinstance(one, dict), one
    begun = Cascade.from_spec(resolved(spec)).stages.state_dict()
    # The bias of the critic has no gradient: it adds the same to both of its parts.
    weights = [name for name in begun if name.endswith("weight")]
    assert len(weights) == 2
    assert all(np.abs(one[name] - begun[name].numpy()).max() > 1e-3 for name in weights)
    for state in run_processes(2, train, spec, None, "group_toys"):
        assert_equal(one, state)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_checkpoint_of_four_processes_goes_on_with_fewer(tmp_path: Path, parallel: str) -> None:
    (whole,) = run_processes(1, train, networks(12))
    spec = networks(12, parallel=parallel)
    first = str(tmp_path / "four")
    # Inside the joint phase, with optimizers and averages of all stages.
    for error in run_processes(4, train, spec, first, None, {2: 8}):
        assert isinstance(error, StoppedError), error
        # The others learn of the request while the next step runs.
        assert error.fields["step"] == 3
        assert error.fields["reason"] == "SIGTERM"
    assert CheckpointStore(Path(first)).steps()[-1] == 9
    for world in (1, 2, 4):
        folder = tmp_path / f"on-{world}"
        shutil.copytree(first, folder)
        for state in run_processes(world, train, spec, str(folder)):
            assert_equal(whole, state)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("lost", [0, 1])
def test_the_end_of_one_process_ends_all_soon(tmp_path: Path, parallel: str, lost: int) -> None:
    spec = networks(400, parallel=parallel, checkpoint_seconds=0)
    began = time.monotonic()
    results = run_processes(2, train, spec, str(tmp_path), None, None, {lost: 6})
    assert results[lost] is None
    assert isinstance(results[1 - lost], TrainingError)
    assert results[1 - lost].code == "training-process-lost"
    assert time.monotonic() - began < 120  # with the start, on a busy machine
    newest = CheckpointStore(tmp_path).newest()
    assert newest is not None
    assert newest.position.step >= 4
    if parallel == "ddp" and lost == 1:
        # The first process has all weights and saves its last step.
        assert newest.position.step >= 5


def test_one_process_agrees_with_itself_at_once() -> None:
    agreed = Peers().agree("SIGTERM", failed=False, due=True)
    assert (agreed.reason, agreed.failed, agreed.due) == ("SIGTERM", False, True)
    assert gather_values("x") == ["x"]
    assert claim_report(ValueError())


def test_an_unknown_parallel_is_refused() -> None:
    with raises(SpecError, "spec", problems={"training.parallel": "literal-error"}):
        load_spec(networks(4, parallel="zero"))


def test_fsdp_refuses_what_it_cannot_divide() -> None:
    spec = load_spec(networks(4, parallel="fsdp"))
    stages = dict(Cascade.from_spec(spec).named_stages())
    check_shardable(spec.spec.training, stages, None)
    with raises(InputError, "input-fsdp-fp16"):
        check_shardable(spec.spec.training, stages, torch.amp.GradScaler("cpu"))
    phases = [{"name": "p", "train": ["duel"], "steps": 2}]
    other = resolved(duel_spec({}, phases=phases, parallel="fsdp"))
    duels = dict(Cascade.from_spec(other).named_stages())
    with raises(InputError, "input-fsdp-groups", name="duel"):
        check_shardable(other.spec.training, duels, None)


@pytest.mark.slow
def test_fsdp_refuses_single_numbers_on_all_processes() -> None:
    phases = [{"name": "p", "train": ["coarse"], "steps": 2}]
    spec = toy_spec({"coarse": "generator"}, phases)
    spec["training"]["parallel"] = "fsdp"
    for error in run_processes(2, train, spec, None, "toys"):
        assert isinstance(error, InputError)
        assert error.code == "input-fsdp-scalar"


def test_the_parallel_setting_is_not_part_of_the_training() -> None:
    """A checkpoint goes on with another setting."""
    digests = {
        load_spec(networks(4, **settings)).spec.training_digest()
        for settings in ({}, {"parallel": "ddp"}, {"parallel": "fsdp"})
    }
    assert len(digests) == 1


@pytest.mark.slow
def test_all_processes_draw_the_batches_of_one() -> None:
    ((_, alone),) = run_processes(1, draw_together, 23, 4)
    (first, rows), (second, nothing) = run_processes(2, draw_together, 23, 4)
    np.testing.assert_array_equal(rows, alone)
    np.testing.assert_array_equal(alone, np.arange(23))
    assert (first, second) == ([0, 8, 16], [4, 12, 20])
    assert not len(nothing)


@pytest.mark.slow
def test_an_error_of_any_process_reaches_the_first() -> None:
    error, served = run_processes(2, draw_together, 23, 4, 12)
    assert isinstance(error, SampleError)
    assert str(error) == "image 12"
    assert served[0] == [4, 12]
