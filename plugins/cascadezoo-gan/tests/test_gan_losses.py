"""The losses: compared with naive formulas, and each in its own group."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from cascadezoo_gan.layers import Discriminator
from cascadezoo_gan.losses import discriminator_loss, generator_loss, gradient_penalty
from gan_cases import KINDS, images, labels, make, train, values

kinds = pytest.mark.parametrize("kind", KINDS)


def test_losses_are_those_of_the_paper() -> None:
    real, made = torch.tensor([1.5, -0.3]), torch.tensor([0.2, -2.0])
    right, wrong = torch.sigmoid(real).log().mean(), (1 - torch.sigmoid(made)).log().mean()
    assert discriminator_loss(real, made).item() == pytest.approx(-(right + wrong).item(), rel=1e-5)
    fooled = -torch.sigmoid(made).log().mean()
    assert generator_loss(made).item() == pytest.approx(fooled.item(), rel=1e-5)
    assert discriminator_loss(torch.zeros(3), torch.zeros(3)).item() == pytest.approx(math.log(4))
    # A saturating loss would have no gradient here.
    lost = torch.tensor([-20.0], requires_grad=True)
    generator_loss(lost).backward()
    assert lost.grad.item() == pytest.approx(-1.0, abs=1e-6)


def test_the_penalty_is_the_naive_one() -> None:
    torch.manual_seed(0)
    judge = Discriminator(3, 8, 4, 5, spread=False).double()
    real, known = images(6, 8).double(), labels(6)

    def naive() -> torch.Tensor:
        norms = []
        for image, label in zip(real, known, strict=True):
            image = image[None].clone().requires_grad_()
            score = judge(image, label[None]).double()
            (slope,) = torch.autograd.grad(score.sum(), image, create_graph=True)
            norms.append(
                sum(slope[0, c, y, x] ** 2 for c in range(3) for y in range(8) for x in range(8))
            )
        return torch.stack(norms).mean()

    watched = real.clone().requires_grad_()
    ours = gradient_penalty(judge(watched, known), watched)
    assert ours.item() == pytest.approx(naive().item(), rel=1e-4)
    parameters = [p for n, p in judge.named_parameters() if "bias" not in n or "features" in n]
    mine = torch.autograd.grad(ours, parameters, allow_unused=True)
    theirs = torch.autograd.grad(naive(), parameters, allow_unused=True)
    for one, other in zip(mine, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert torch.allclose(one, other, rtol=1e-3, atol=1e-8)


@kinds
def test_the_lazy_penalty_is_rare_with_a_larger_weight(kind: str) -> None:
    every = make(kind, discriminator={"r1": 2.0, "r1_every": 1})
    lazy = make(kind, discriminator={"r1": 2.0, "r1_every": 3})
    strong = make(kind, discriminator={"r1": 4.0, "r1_every": 1})
    none = make(kind, discriminator={"r1": 0.0})
    due = [values(train(lazy, step))["r1"].item() for step in range(6)]
    assert [v > 0 for v in due] == [True, False, False] * 2
    once = values(train(every, 0))["r1"].item()
    assert due[0] == pytest.approx(3 * once, rel=1e-6)
    assert values(train(strong, 0))["r1"].item() == pytest.approx(2 * once, rel=1e-6)
    assert values(train(none, 0))["r1"].item() == 0
    # The losses have the same names in every step.
    assert len({tuple(train(lazy, step).losses) for step in range(3)}) == 1


@kinds
def test_groups_are_complete_and_disjoint(kind: str) -> None:
    stage = make(kind)
    groups = stage.parameter_groups()
    ids = [id(p) for parameters in groups.values() for p in parameters]
    assert len(ids) == len(set(ids)) == len(list(stage.parameters()))
    judge = {id(p) for p in stage.discriminator.parameters()}
    assert judge == {id(p) for p in groups["discriminator"]}
    losses = train(stage).losses
    assert {k: getattr(v, "group", "generator") for k, v in losses.items()} == {
        "adversarial": "generator",
        "discriminator": "discriminator",
        "r1": "discriminator",
        **({"l1": "generator"} if kind == "srgan.v1" else {}),
    }
    options = stage.group_options()
    assert not options["discriminator"].averaged
    assert options["generator"].averaged


@kinds
def test_gradients_equal_those_of_separate_graphs(kind: str) -> None:
    """One evaluation for both losses equals two evaluations, one of them detached."""
    stage = make(kind)
    groups = stage.parameter_groups()
    output = train(stage)
    losses = values(output)
    shared = torch.autograd.grad(
        losses["discriminator"] + losses["r1"], groups["discriminator"], retain_graph=True
    )
    known = labels() if kind == "gan.v1" else None
    judge = stage.discriminator
    made, real = output.estimate.detach(), images().requires_grad_()
    truth = judge(real, known)
    settings = stage.config.discriminator
    penalty = 0.5 * settings.r1 * settings.r1_every * gradient_penalty(truth, real)
    apart = F.softplus(judge(made, known)).mean() + F.softplus(-truth).mean() + penalty
    for one, other in zip(shared, torch.autograd.grad(apart, groups["discriminator"]), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-7)
    reached = torch.autograd.grad(losses["adversarial"], groups["generator"], allow_unused=True)
    assert all(g is not None and g.abs().max() > 0 for g in reached)


@kinds
def test_every_parameter_learns_by_its_group(kind: str) -> None:
    stage = make(kind)
    losses = train(stage).losses
    for group, parameters in stage.parameter_groups().items():
        own = [
            getattr(v, "value", v)
            for v in losses.values()
            if getattr(v, "group", "generator") == group
        ]
        sum(own).backward(inputs=parameters, retain_graph=True)
    for name, parameter in stage.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_unpaired_images_are_compared_with_their_upstream_image() -> None:
    stage = make("srgan.v1", pixel="mse")
    fed = images(4, 6)
    with torch.no_grad():
        made = stage.enlarge(fed)
    off = (made - images()).square().mean((1, 2, 3))
    small = (F.avg_pool2d(made, 2) - fed).square().mean((1, 2, 3))
    mask = torch.tensor([True, False, False, True])
    loss = values(train(stage, fed=fed, paired=mask))["mse"].item()
    assert loss == pytest.approx(off.where(mask, small).mean().item(), rel=1e-5)
    assert values(train(stage, fed=fed))["mse"].item() == pytest.approx(off.mean().item(), rel=1e-5)


def test_a_discriminator_detects_equal_images() -> None:
    torch.manual_seed(0)
    judge = Discriminator(3, 8, 4, None, spread=True)
    image = images(1, 8).expand(4, -1, -1, -1)
    together, alone = judge(image), judge(torch.cat([image[:1], images(3, 8)]))
    assert (together - together[0]).abs().max() < 1e-6
    assert (together[0] - alone[0]).abs() > 1e-6
    # Sets of four are neighbours: the halves of a batch give the same logits.
    batch = images(8, 8)
    halves = torch.cat([judge(batch[:4]), judge(batch[4:])])
    assert torch.allclose(judge(batch), halves, atol=1e-5)
