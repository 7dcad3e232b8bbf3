"""State beside trained parameters: after_step, averages, resumed trainings, several processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from errors_help import raises
from parallel_cases import train
from process_cases import run_processes
from state_toys import ToyCodes, cascade, state_spec
from train_cases import StopAfter, equal, trainer

from cascadezoo.errors import PluginError, StoppedError
from cascadezoo.stages.base import StepContext
from cascadezoo.util.rng import Draw


def test_after_step_is_called_once_for_each_step_of_a_trained_stage() -> None:
    made = cascade("norm", "codes", steps=5, train=["codes"], ema=None)
    codes, other = made.stage("codes"), made.stage("norm")
    before = {k: v.clone() for k, v in other.state_dict().items()}
    trainer(made).run()
    assert isinstance(codes, ToyCodes)
    assert [c.step for c in codes.calls] == [0, 1, 2, 3, 4]
    assert {c.phase for c in codes.calls} == {"p"}
    assert codes.calls[0].progress == pytest.approx(0.2)
    assert codes.calls[-1].progress == 1.0
    assert all(float(c.statistics["counts"].sum()) == 8 for c in codes.calls)
    assert not codes.calls[0].statistics["sums"].requires_grad
    # The optimizer's step comes first: the teacher's first value is from the moved scale.
    assert codes.steps == 5
    assert codes.teacher.abs().min() > 0
    # A frozen stage is left alone; it would count its calls.
    assert other.steps == 0
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())


def test_a_divided_batch_has_one_call_with_the_sums_of_its_parts() -> None:
    whole, parts = (cascade("codes", steps=4, ema=None, accumulate=n) for n in (1, 4))
    for made in (whole, parts):
        trainer(made).run()
    one, other = whole.stage("codes"), parts.stage("codes")
    assert isinstance(one, ToyCodes)
    assert isinstance(other, ToyCodes)
    assert len(one.calls) == len(other.calls) == 4
    for a, b in zip(one.calls, other.calls, strict=True):
        torch.testing.assert_close(a.statistics["sums"], b.statistics["sums"])
    torch.testing.assert_close(one.codes, other.codes)


@pytest.mark.parametrize("kind", ["codes", "mean"])
def test_a_stopped_training_resumes_with_the_same_state(kind: str, tmp_path: Path) -> None:
    whole = cascade(kind)
    trainer(whole).run()
    stopped, resumed = cascade(kind), cascade(kind)
    with pytest.raises(StoppedError):
        trainer(stopped, tmp_path, stop=StopAfter(3)).run()
    assert stopped.stage(kind).steps == 3
    trainer(resumed, tmp_path).run()
    assert equal(whole, resumed)
    assert not equal(whole, stopped)


def test_declared_buffers_are_averaged() -> None:
    """The average follows the buffer as it is after each step's ``after_step``."""
    ema = {"decay": 0.5, "warmup": False}
    plain, averaged = cascade("codes", ema=None), cascade("codes", ema=ema)
    for made in (plain, averaged):
        trainer(made).run()
    levels = []
    again = cascade("codes", ema=None)
    stage = again.stage("codes")
    move = stage.after_step

    def recorded(context: StepContext) -> None:
        move(context)
        levels.append(float(stage.level))

    stage.after_step = recorded  # type: ignore[method-assign]
    trainer(again).run()
    expected = 0.0
    for level in levels:
        expected = 0.5 * expected + 0.5 * level
    assert len(levels) == 6
    assert float(averaged.stage("codes").level) == pytest.approx(expected, rel=1e-4)
    assert float(plain.stage("codes").level) == pytest.approx(levels[-1])
    assert levels[-1] != pytest.approx(expected, rel=1e-3)
    # Others are not: they are those of the last step.
    assert torch.equal(averaged.stage("codes").codes, plain.stage("codes").codes)


@pytest.mark.parametrize(
    ("kind", "fault", "code", "text"),
    [
        ("codes", "unsaved", "plugin-state-unsaved", "'seen'"),
        ("codes", "replaced", "plugin-state-declaration", "'level'"),
        ("codes", "whole", "plugin-stage-failed", "floating"),
        ("codes", "statistic", "plugin-output-type", "'number'"),
        ("misdeclared", "", "plugin-state-declaration", "'sum'"),
        ("misnamed", "", "plugin-state-declaration", "'steps'"),
    ],
)
def test_faults_are_named(kind: str, fault: str, code: str, text: str) -> None:
    with raises(PluginError, code, name=kind) as caught:
        trainer(cascade(kind, fault=fault)).run()
    assert text in caught.value.what


def test_one_process_is_its_own_sum_and_mean() -> None:
    context, numbers = StepContext(Draw(0)), torch.tensor([1.0, 2.0])
    assert torch.equal(context.sum(numbers), numbers)
    assert context.mean(numbers) is not numbers
    assert torch.equal(context.mean(numbers), numbers)
    assert torch.equal(context.sum(torch.tensor([3])), torch.tensor([3]))
    with pytest.raises(TypeError, match="floating"):
        context.mean(torch.tensor([3]))


@pytest.mark.slow
def test_two_processes_have_the_state_of_one() -> None:
    spec = state_spec("codes", "mean", "norm", "broadcast", "averaged-norm", accumulate=1)
    alone = train(spec, None, "state_toys")
    # All processes sample for the figures, so they measure the same weights.
    first, second = run_processes(2, train, spec, None, "state_toys", None, None, 1)
    for states in (first, second):
        assert isinstance(states, dict), states
    assert all(np.array_equal(first[k], second[k]) for k in first)
    for stage in (1, 2):  # codes and mean
        rows = {k: v for k, v in alone.items() if k.startswith(f"{stage}.")}
        assert np.abs(rows[f"{stage}.codes"]).max() > 1e-3
        assert rows[f"{stage}.steps"] == 6
        for name, value in rows.items():
            np.testing.assert_allclose(first[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    # The first process's, which are those of its own images.
    assert np.abs(first["4.level"] - alone["4.level"]) > 1e-5


@pytest.mark.slow
def test_divided_parameters_move_with_each_other() -> None:
    """With fsdp a teacher follows its student shard by shard."""
    spec = state_spec("codes", steps=3, parallel="fsdp")
    config = {"channels": 8, "blocks": 1, "multipliers": [1]}
    spec["stages"][0] = {"name": "coarse", "kind": "flow.v1", "config": config}
    alone = train(spec, None, "state_toys")
    for state in run_processes(2, train, spec, None, "state_toys"):
        assert isinstance(state, dict), state
        assert np.abs(alone["1.teacher"]).max() > 1e-3
        for name in ("1.teacher", "1.scale", "1.codes", "1.level"):
            np.testing.assert_allclose(state[name], alone[name], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "what", "hint"),
    [
        ("forward", "buffer 'codes'", 'sync_buffers = "mean"'),
        ("teacher", "parameter 'teacher'", "context.mean"),
    ],
)
def test_a_difference_between_processes_is_an_error(kind: str, what: str, hint: str) -> None:
    errors: list[Any] = run_processes(2, train, state_spec(kind), None, "state_toys")
    for error in errors:
        assert isinstance(error, PluginError), error
        assert error.code == "plugin-state-differs"
        assert error.fields["name"] == kind
        assert what in error.what
        assert hint in error.what
