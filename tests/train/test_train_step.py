"""The pass over the stages: which stages learn, which run, and the path of gradients."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from toys import toy_cascade

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.train.extra_losses import ExtraLoss
from cascadezoo.train.step import PhaseWalk

ALL = ["coarse", "up", "refine"]


def walk(cascade: Cascade, **options: Any) -> PhaseWalk:
    (phase,) = cascade.spec.training.phases
    for name, stage in cascade.named_stages():
        stage.requires_grad_(name in phase.train)
    options.setdefault("losses", [])
    return PhaseWalk(cascade, phase, 10, seed=0, autocast=nullcontext, **options)


def images(n: int = 8) -> torch.Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def run(cascade: Cascade, step: int = 0, **options: Any) -> dict[str, dict[str, torch.Tensor]]:
    return walk(cascade, **options).losses_of(images(), None, step)


def grads(cascade: Cascade) -> dict[str, bool]:
    return {name: stage.scale.grad is not None for name, stage in cascade.named_stages()}


def test_the_first_phase_runs_only_the_generator() -> None:
    cascade = toy_cascade({"train": ["coarse"]})
    losses = run(cascade)
    assert set(losses["generator"]) == {"coarse.mse"}
    assert [s.forwards for s in cascade.stages] == [1, 0, 0]


def test_frozen_stages_run_without_a_graph_and_get_no_gradient() -> None:
    cascade = toy_cascade(
        {"train": ["up", "refine"], "teacher_forcing": {"start": 0.5, "end": 0.5}}
    )
    losses = run(cascade)
    sum(losses["generator"].values()).backward()
    assert grads(cascade) == {"coarse": False, "up": True, "refine": True}
    assert [s.forwards for s in cascade.stages] == [1, 1, 1]
    assert [s.with_graph for s in cascade.stages] == [0, 1, 1]


def test_no_gradient_between_stages_unless_joint() -> None:
    for joint in (False, True):
        cascade = toy_cascade(
            {"train": ALL, "joint": joint, "teacher_forcing": {"start": 0.0, "end": 0.0}}
        )
        losses = run(cascade)
        losses["generator"]["refine.mse"].backward()
        assert grads(cascade) == {"coarse": joint, "up": joint, "refine": True}


def test_a_frozen_stage_between_trained_ones_passes_joint_gradients_on() -> None:
    cascade = toy_cascade(
        {
            "train": ["coarse", "refine"],
            "joint": True,
            "teacher_forcing": {"start": 0.0, "end": 0.0},
        }
    )
    run(cascade)["generator"]["refine.mse"].backward()
    assert grads(cascade) == {"coarse": True, "up": False, "refine": True}


def test_truth_for_the_whole_batch_skips_frozen_stages() -> None:
    truth = toy_cascade({"train": ["up", "refine"], "teacher_forcing": {"start": 1.0, "end": 1.0}})
    run(truth)
    assert [s.forwards for s in truth.stages] == [0, 1, 1]
    cascade = toy_cascade(
        {"train": ["up", "refine"], "teacher_forcing": {"start": 0.5, "end": 0.5, "per": "batch"}}
    )
    steps = walk(cascade)
    truths = []
    for step in range(40):
        before = cascade.stage("coarse").forwards
        steps.losses_of(images(), None, step)
        ran = cascade.stage("coarse").forwards > before
        fed = cascade.stage("up").fed[-1]
        is_truth = torch.equal(fed, cascade.targets(images())[0])
        assert is_truth is not ran
        truths.append(is_truth)
    assert 8 < sum(truths) < 32
    assert cascade.stage("up").forwards == 40


def test_per_sample_forcing_mixes_within_a_batch() -> None:
    cascade = toy_cascade(
        {"train": ["up", "refine"], "teacher_forcing": {"start": 0.5, "end": 0.5}}
    )
    run(cascade)
    fed, truth = cascade.stage("up").fed[-1], cascade.targets(images())[0]
    same = [torch.equal(a, b) for a, b in zip(fed, truth, strict=True)]
    assert 0 < sum(same) < 8


def test_targets_chain_from_the_end() -> None:
    cascade = toy_cascade({"train": ALL})
    coarse, up, refine = cascade.targets(images())
    assert torch.equal(refine, images())
    assert torch.equal(up, images())
    naive = images().reshape(8, 3, 4, 2, 4, 2).mean(dim=(3, 5))
    assert torch.allclose(coarse, naive, atol=1e-6)


def test_a_step_repeats_itself_and_differs_from_the_next() -> None:
    def values(step: int) -> list[float]:
        rows = run(toy_cascade({"train": ALL}), step)["generator"]
        return [float(v.detach()) for v in rows.values()]

    assert values(3) == values(3)
    assert values(3) != values(4)


@pytest.mark.parametrize("world", [2, 4])
def test_processes_together_compute_the_loss_of_a_single_one(world: int) -> None:
    forcing = {"start": 0.5, "end": 0.5}
    whole = run(toy_cascade({"train": ALL, "teacher_forcing": forcing}))["generator"]
    parts = []
    for rank in range(world):
        steps = walk(
            toy_cascade({"train": ALL, "teacher_forcing": forcing}), rank=rank, world=world
        )
        local = images().chunk(world)[rank]
        parts.append(steps.losses_of(local, None, 0)["generator"])
    for name, value in whole.items():
        mean = torch.stack([p[name] for p in parts]).mean()
        assert torch.allclose(mean, value, atol=1e-6), name


def test_adversary_losses_are_a_separate_group() -> None:
    cascade = toy_cascade({"train": ALL, "joint": True}, adversary=True)
    losses = run(cascade)
    assert set(losses) == {"generator", "adversary"}
    assert set(losses["adversary"]) == {"refine.adversary"}


def test_extra_losses_are_weighted_and_named() -> None:
    class Ones(torch.nn.Module):
        def forward(self, estimate: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            assert estimate.shape == target.shape
            return torch.ones(())

    cascade = toy_cascade({"train": ALL})
    losses = run(cascade, losses=[ExtraLoss("refine", "lpips", 0.25, Ones())])
    assert float(losses["generator"]["refine.lpips"]) == 0.25
