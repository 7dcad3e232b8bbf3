"""The trainer on toy stages: groups of parameters, processes, exceptions."""

from __future__ import annotations

import numpy as np
import torch
from toys import toy_cascade

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.base import ImageData
from cascadezoo.data.loader import DeviceLoader
from cascadezoo.train.engine import make_accelerator
from cascadezoo.train.trainer import Trainer

ALL = ["coarse", "up", "refine"]


def loader(batch_size: int = 8) -> DeviceLoader:
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 8, 8), dtype=np.uint8)
    data = ImageData(images, np.arange(64) % 8, "train")
    return DeviceLoader(data, batch_size=batch_size, seed=0, flip=False, device="cpu")


def train(cascade: Cascade) -> Cascade:
    Trainer(cascade, loader(), make_accelerator(torch.device("cpu"), "fp32")).run()
    return cascade


def values(cascade: Cascade) -> dict[str, float]:
    return {name: p.item() for name, p in cascade.stages.named_parameters()}


def test_only_the_trained_stages_change() -> None:
    before = values(toy_cascade({"train": ["up"]}))
    after = values(train(toy_cascade({"train": ["up"]})))
    assert [k for k in before if before[k] != after[k]] == ["1.scale"]


def test_all_parameters_are_trainable_after_the_training() -> None:
    cascade = train(toy_cascade({"train": ["up"]}))
    assert all(p.requires_grad for p in cascade.parameters())


def test_a_stage_with_its_own_decay_ends_with_its_own_average() -> None:
    """A decay of 0 gives the last weights, as without an average."""
    phase = {"train": ["up", "refine"], "steps": 10}
    averaged = values(train(toy_cascade(phase)))
    mixed = values(train(toy_cascade({**phase, "stages": {"up": {"ema_decay": 0.0}}})))
    assert mixed["2.scale"] == averaged["2.scale"]
    assert abs(mixed["1.scale"] - 0.5) > abs(averaged["1.scale"] - 0.5)


def test_an_adversary_and_its_opponent_train_separately() -> None:
    """The critic raises a value that the other losses lower; a leak would cancel or reverse it."""
    phase = {"train": ALL, "joint": True, "steps": 1}
    quiet = {"stages": {"refine": {"lr": 0.0}}}
    with_critic = train(toy_cascade(phase, adversary=True))
    assert with_critic.stage("refine").critic.item() != 1.0
    fixed = train(toy_cascade({**phase, **quiet}, adversary=True))
    assert fixed.stage("refine").critic.item() == 1.0
    # The critic's loss raises scale and 'fool' lowers it: without a leak, only 'fool' and mse
    # determine the step, as in a manual step.
    cascade = toy_cascade(phase, adversary=True)
    images, labels = loader().batch(0, 0)
    from contextlib import nullcontext

    from cascadezoo.train.step import PhaseWalk

    (spec,) = cascade.spec.training.phases
    walk = PhaseWalk(cascade, spec, 1, losses=[], seed=0, autocast=nullcontext)
    losses = walk.losses_of(images, labels, 0)
    scale, critic = cascade.stage("refine").scale, cascade.stage("refine").critic
    own = sum(losses["generator"].values())
    (want,) = torch.autograd.grad(own, [scale], retain_graph=True)
    (other,) = torch.autograd.grad(sum(losses["adversary"].values()), [critic])
    # AdamW's first step has the size of the learning rate and the sign of the gradient; the
    # average of the weights then keeps one tenth of it.
    moved_scale = with_critic.stage("refine").scale.item() - 0.5
    moved_critic = with_critic.stage("refine").critic.item() - 1.0
    assert np.sign(moved_scale) == -np.sign(want.item())
    assert np.sign(moved_critic) == -np.sign(other.item())


def test_a_phase_without_trainable_parameters_changes_nothing() -> None:
    cascade = toy_cascade({"train": ["up"]})
    cascade.stage("up").scale.requires_grad_(False)
    before = values(cascade)
    assert values(train(cascade)) == before
    assert not cascade.stage("up").scale.requires_grad
