"""Stages without parameters: they pass images through, and have losses only with an effect."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from group_toys import duel_spec, resolved
from train_cases import image_data

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.loader import DeviceLoader
from cascadezoo.errors import SpecError
from cascadezoo.spec import load_spec
from cascadezoo.train.engine import make_accelerator
from cascadezoo.train.extra_losses import ExtraLoss, load_losses
from cascadezoo.train.optim import make_optimizers
from cascadezoo.train.step import PhaseWalk
from cascadezoo.train.teacher_forcing import choose
from cascadezoo.train.trainer import Trainer
from cascadezoo.util.rng import Draw

FLOW = {"kind": "flow.v1", "config": {"channels": 8, "multipliers": [1]}}
UPS = {
    "interpolate": {"kind": "interpolate.v1"},
    "pixelshuffle": {"kind": "pixelshuffle.v1", "config": {"hidden": 8}},
}
REFINERS = {
    "identity": {"kind": "identity.v1"},
    "conv": {"kind": "conv-refiner.v1", "config": {"hidden": 8, "layers": 2}},
}


def cascade(
    up: str, refine: str, *phases: dict[str, Any], losses: Any = (), size: int = 8
) -> Cascade:
    rows = [{"name": f"p{i}", "steps": 4, **phase} for i, phase in enumerate(phases)]
    return Cascade.from_spec(
        {
            "name": "toy",
            "data": {"source": "shapes", "config": {"size": size}, "num_classes": 0},
            "stages": [
                {"name": "coarse", **FLOW},
                {"name": "up", **UPS[up]},
                {"name": "refine", **REFINERS[refine]},
            ],
            "training": {"batch_size": 8, "losses": list(losses), "phases": rows},
            "evaluation": {"metrics": [], "extractor": "small"},
        }
    )


class Squared(torch.nn.Module):
    """An extra loss that counts how often it is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, estimate: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return F.mse_loss(estimate, target)


def walk(built: Cascade, extra: torch.nn.Module | None = None) -> PhaseWalk:
    (phase,) = built.spec.training.phases or []
    for name, stage in built.named_stages():
        stage.requires_grad_(name in phase.train)
    losses = [] if extra is None else [ExtraLoss("refine", "lpips", 1.0, extra)]
    return PhaseWalk(built, phase, 4, losses=losses, seed=0, autocast=nullcontext)


def images(count: int = 8) -> torch.Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def losses(built: Cascade, extra: torch.nn.Module | None = None) -> dict[str, torch.Tensor]:
    return walk(built, extra).losses_of(images(), None, 0)["generator"]


def test_losses_count_in_joint_phases_and_reach_the_generator() -> None:
    extra = Squared()
    built = cascade(
        "interpolate",
        "identity",
        {"train": ["coarse"], "joint": True, "teacher_forcing": {"start": 0.0, "end": 0.0}},
    )
    rows = losses(built, extra)
    assert set(rows) == {"coarse.velocity", "up.mse", "refine.mse", "refine.lpips"}
    assert torch.equal(rows["refine.mse"], rows["up.mse"])
    rows["refine.lpips"].backward()
    grads = [p.grad for p in built.stage("coarse").parameters()]
    assert sum(float(g.abs().sum()) for g in grads if g is not None) > 0
    assert extra.calls == 1


@pytest.mark.parametrize(
    "phase",
    [
        {"train": ["coarse", "up", "refine"]},
        {"train": ["coarse", "up"], "joint": True, "teacher_forcing": {"start": 1.0, "end": 1.0}},
    ],
    ids=["not joint", "only truth"],
)
def test_losses_without_an_effect_are_not_computed(phase: dict[str, Any]) -> None:
    extra = Squared()
    rows = losses(cascade("interpolate", "identity", phase), extra)
    assert set(rows) == {"coarse.velocity"}
    assert extra.calls == 0


def test_a_joint_phase_passes_the_loss_to_the_trained_stage_before_it() -> None:
    extra = Squared()
    built = cascade("pixelshuffle", "identity", {"train": ["up"], "joint": True})
    rows = losses(built, extra)
    # The identity after the upsampler gets only true images, so its loss has no effect.
    assert set(rows) == {"up.mse"}
    half = {"start": 0.5, "end": 0.5}
    built = cascade(
        "pixelshuffle", "identity", {"train": ["up"], "joint": True, "teacher_forcing": half}
    )
    rows = losses(built, extra)
    assert set(rows) == {"up.mse", "refine.mse", "refine.lpips"}


def test_it_uses_the_teacher_forcing_of_a_trained_stage() -> None:
    """A refiner learns from interpolated truth too, not only from interpolated estimates."""
    half = {"start": 0.5, "end": 0.5}
    built = cascade("interpolate", "conv", {"train": ["refine"], "teacher_forcing": half})
    steps = walk(built)
    fed: list[torch.Tensor] = []
    hook = built.stage("up").register_forward_pre_hook(lambda _, args: fed.append(args[0].upstream))
    steps.losses_of(images(), None, 0)
    hook.remove()
    (upstream,) = fed
    truth = built.targets(images())[0]
    same = torch.tensor([torch.equal(a, b) for a, b in zip(upstream, truth, strict=True)])
    key = (0, "p0", 0, "up", "forcing")
    expected = choose(steps.phase.teacher_forcing, 0.5, key, Draw(*key), 8).mask
    assert expected is not None
    assert torch.equal(same, expected)
    assert 0 < int(same.sum()) < 8


def test_it_has_no_optimizer_and_is_not_averaged() -> None:
    built = cascade("interpolate", "conv", {"train": ["up", "refine"]})
    (phase,) = built.spec.training.phases or []
    (group,) = make_optimizers(phase, {n: built.stage(n) for n in phase.train})
    assert group.stages == ["refine"]


def test_a_perceptual_loss_is_loaded_only_if_it_has_an_effect(real_networks: Path) -> None:
    requested = [{"stage": "refine", "kind": "lpips", "config": {"net": "alex"}}]
    alone = {"train": ["coarse"]}
    built = cascade("interpolate", "identity", alone, losses=requested, size=64)
    assert load_losses(built.resolved, torch.device("cpu")) == []
    joint = {**alone, "joint": True}
    built = cascade("interpolate", "identity", joint, losses=requested, size=64)
    assert [loss.stage for loss in load_losses(built.resolved, torch.device("cpu"))] == ["refine"]


def test_unpaired_estimates_reach_no_loss_through_a_stage_without_parameters() -> None:
    """An identity after a GAN would compare unrelated images."""
    half = {"start": 0.5, "end": 0.5}
    phase = {"name": "p", "train": ["duel"], "steps": 1, "joint": True, "teacher_forcing": half}
    data = duel_spec({}, phases=[phase])
    data["stages"].append({"name": "same", "kind": "identity.v1"})
    with pytest.raises(SpecError) as caught:
        resolved(data)
    (problem,) = caught.value.problems
    assert problem.path == "training.phases.0.teacher_forcing"
    assert problem.code == "estimates-unpaired"
    assert "'same'" in problem.message
    assert "'duel'" in problem.message
    phase["joint"] = False
    assert resolved(data)


def test_it_passes_images_through_a_whole_training() -> None:
    built = cascade(
        "interpolate",
        "identity",
        {"train": ["coarse", "refine"]},
        {"train": ["coarse", "up", "refine"], "joint": True},
    )
    data = image_data()
    loader = DeviceLoader(data, batch_size=8, seed=0, device="cpu")
    Trainer(built, loader, make_accelerator(torch.device("cpu"), "fp32"), data=data).run()
    images = built.sample(4, return_stages=True)
    expected = F.interpolate(images["coarse"], size=8, mode="bicubic").clamp(-1, 1)
    assert torch.equal(images["up"], expected)
    assert torch.equal(images["refine"], images["up"])


def test_the_plan_counts_nothing_and_does_not_warn() -> None:
    from cascadezoo.build.plan import make_plan

    built = cascade("interpolate", "identity", {"train": ["coarse"]})
    plan = make_plan(load_spec(built.spec), "cpu")
    assert [row.parameters for row in plan.stages[1:]] == [0, 0]
    assert [row.flops_sample for row in plan.stages[1:]] == [0, 0]
    assert not [text for text in plan.warnings if "no phase trains" in text]
