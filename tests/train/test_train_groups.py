"""Parameter groups: separate optimizers, adversaries, and unpaired estimates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from errors_help import raises
from group_toys import ToyDuel, duel, duel_spec, resolved
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from train_cases import StopAfter, equal, image_data, state, trainer

from cascadezoo.build.plan import make_plan
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.loader import DeviceLoader
from cascadezoo.errors import PluginError, SpecError, StoppedError
from cascadezoo.spec import CascadeSpec
from cascadezoo.train.ema import make_ema
from cascadezoo.train.engine import make_accelerator
from cascadezoo.train.optim import make_optimizers
from cascadezoo.train.trainer import Trainer

PLAIN = {"lr": 0.1, "betas": [0.8, 0.9], "weight_decay": 0.2}


def rows(settings: dict[str, Any], phase: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The training settings of each group of a duel."""
    cascade = duel(settings, {"optimizer": PLAIN, **phase})
    (spec,) = cascade.spec.training.phases
    groups = make_optimizers(spec, dict(cascade.named_stages()))
    return {g.group: {**g.optimizer.param_groups[0], "every": g.every[0]} for g in groups}


def test_a_group_is_trained_with_the_options_of_its_stage() -> None:
    options = {"lr_factor": 4.0, "betas": [0.0, 0.99], "weight_decay": 0.0, "every": 3}
    groups = rows(options, {})
    critic, own = groups["adversary"], groups["generator"]
    assert (critic["lr"], critic["betas"]) == (0.4, (0.0, 0.99))
    assert (critic["weight_decay"], critic["every"]) == (0.0, 3)
    assert (own["lr"], own["betas"]) == (0.1, (0.8, 0.9))
    assert (own["weight_decay"], own["every"]) == (0.2, 1)


def test_the_phase_overrides_the_stage() -> None:
    options = {"lr_factor": 4.0, "betas": [0.0, 0.99], "weight_decay": 0.0, "every": 3}
    last = {"lr": 0.7, "betas": [0.1, 0.2], "weight_decay": 0.3, "every": 2}
    groups = rows(options, {"stages": {"duel": {"lr": 0.5, "groups": {"adversary": last}}}})
    critic = groups["adversary"]
    assert {k: critic[k] for k in last} == {**last, "betas": (0.1, 0.2)}
    assert groups["generator"]["lr"] == 0.5
    # A rate for the whole stage keeps the ratio of its groups.
    groups = rows(options, {"stages": {"duel": {"lr": 0.5, "weight_decay": 0.6}}})
    assert (groups["adversary"]["lr"], groups["adversary"]["weight_decay"]) == (2.0, 0.6)


@settings(max_examples=25, deadline=None)
@given(every=st.integers(1, 7), steps=st.integers(1, 30))
def test_a_group_learns_every_so_many_steps(every: int, steps: int) -> None:
    cascade = duel({"every": every}, {})
    (spec,) = cascade.spec.training.phases
    groups = {g.group: g for g in make_optimizers(spec, dict(cascade.named_stages()))}
    due = [bool(groups["adversary"].due(step)) for step in range(steps)]
    assert sum(due) == steps // every
    assert all(len(groups["generator"].due(step)) == 2 for step in range(steps))


def test_a_group_that_is_not_due_does_not_change() -> None:
    settings, still = {"averaged": False}, {"duel": {"groups": {"adversary": {"every": 11}}}}
    before = state(duel(settings, {}))
    cascade = duel(settings, {"stages": still})
    trainer(cascade).run()
    after = state(cascade)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"0.painter.weight", "0.painter.bias"}
    once = duel(
        settings, {"stages": {"duel": {"groups": {"adversary": {"every": 10, "lr": 0.25}}}}}
    )
    trainer(once).run()
    # Adam's first step has the size of the learning rate; the norms are too small to be clipped.
    step = (state(once)["0.critic.weight"] - before["0.critic.weight"]).abs().item()
    assert step == pytest.approx(0.25, rel=1e-3)


def test_rates_are_recorded_group_by_group() -> None:
    cascade = duel({"lr_factor": 3.0}, {"optimizer": PLAIN})
    (spec,) = cascade.spec.training.phases
    rates: dict[str, float] = {}
    for group in make_optimizers(spec, dict(cascade.named_stages())):
        rates |= group.lr()
    assert rates == pytest.approx({"duel": 0.1, "duel.adversary": 0.3})


# --- faults are reported before the training


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("orphan", "groups-parameter"),
        ("twice", "groups-parameter"),
        ("options", "groups-unknown"),
    ],
)
def test_inconsistent_groups(fault: str, code: str) -> None:
    cascade = duel({"fault": fault}, {})
    more = {"orphan": {"parameter": "critic.bias"}, "twice": {"parameter": "critic.weight"}}.get(
        fault, {}
    )
    with raises(PluginError, f"plugin-{code}", name="duel", **more):
        trainer(cascade)
    with raises(PluginError, f"plugin-{code}", name="duel", **more):
        make_plan(cascade.resolved, "cpu")


def test_a_frozen_parameter_needs_no_group() -> None:
    cascade = duel({"fault": "orphan"}, {})
    cascade.stage("duel").critic.bias.requires_grad_(False)
    before = cascade.stage("duel").critic.bias.item()
    trainer(cascade).run()
    assert cascade.stage("duel").critic.bias.item() == before


def test_a_loss_of_an_unknown_group() -> None:
    with raises(PluginError, "plugin-loss-group", name="duel", loss="judge", group="adversaries"):
        trainer(duel({"fault": "loss"}, {})).run()


def test_a_spec_with_an_unknown_group() -> None:
    cascade = duel({}, {"stages": {"duel": {"groups": {"critic": {"lr": 0.1}}}}})
    for attempt in (lambda: trainer(cascade), lambda: make_plan(cascade.resolved, "cpu")):
        with pytest.raises(SpecError) as caught:
            attempt()
        (problem,) = caught.value.problems
        path = "training.phases.0.stages.duel.groups.critic"
        assert (problem.path, problem.code) == (path, "no-group")
        assert "'generator', 'adversary'" in problem.hint


def test_digests_of_specs_without_groups_do_not_change() -> None:
    data = duel_spec({}, phases=[{"name": "p", "train": ["duel"], "steps": 1}])
    spec = CascadeSpec.model_validate(data)
    data["training"]["phases"][0]["stages"] = {"duel": {"lr": 0.5}}
    other = CascadeSpec.model_validate(data)
    dumped = other.to_dict()["training"]["phases"][0]["stages"]["duel"]
    assert dumped["groups"] == {}
    assert len({spec.digest(), other.digest()}) == 2
    # Computed by a version without groups.
    assert other.training_digest() == OLD_DIGEST


OLD_DIGEST = "b32cef9b2f5601e9437e335d03d5a7c1fa4fbf8a8f1706d828092bdd8c975c97"


# --- how they train


def test_each_loss_reaches_only_its_group() -> None:
    """Compares the trainer with manual steps that have a graph for each group."""
    settings = {"lr_factor": 2.0, "betas": [0.0, 0.99]}
    options = {"ema": None, "clip_norm": None, "optimizer": {"lr": 0.01}}
    cascade = duel(settings, {"steps": 5}, **options)
    hand: ToyDuel = duel(settings, {"steps": 5}, **options).stage("duel")
    trainer(cascade).run()

    from cascadezoo.stages.base import TrainContext
    from cascadezoo.util.rng import Draw

    loader = DeviceLoader(image_data(), batch_size=8, seed=0, flip=True, device="cpu")
    painter = torch.optim.AdamW(hand.painter.parameters(), lr=0.01, weight_decay=0)
    critic = torch.optim.AdamW(hand.critic.parameters(), lr=0.02, betas=(0.0, 0.99), weight_decay=0)
    for step in range(5):
        images, _ = loader.batch(0, step)
        context = TrainContext(Draw(0, "p", step, "duel"), step=step)
        losses = hand(hand.preprocess(images, None, context)).losses
        one = torch.autograd.grad(
            losses["fool"], list(hand.painter.parameters()), retain_graph=True
        )
        two = torch.autograd.grad(losses["judge"].value, list(hand.critic.parameters()))
        for optimizer, grads in ((painter, one), (critic, two)):
            for parameter, grad in zip(optimizer.param_groups[0]["params"], grads, strict=True):
                parameter.grad = grad
            optimizer.step()
    for key, value in hand.state_dict().items():
        assert torch.allclose(state(cascade)[f"0.{key}"], value, atol=1e-6), key


@pytest.mark.parametrize("clip_norm", [None, 0.01])
def test_scaled_gradients_train_the_same(clip_norm: float | None) -> None:
    """Half precision scales the loss; each of two optimizers must unscale once."""

    def train(scale: float | None) -> dict[str, torch.Tensor]:
        # Adam divides by the size of its gradients; a large eps makes the scale visible.
        optimizer = {"lr": 0.01, "eps": 1.0}
        cascade = duel({}, {}, optimizer=optimizer, clip_norm=clip_norm)
        accelerator = make_accelerator(torch.device("cpu"), "fp32")
        if scale is not None:
            accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        loader = DeviceLoader(image_data(), batch_size=8, seed=0, flip=True, device="cpu")
        Trainer(cascade, loader, accelerator).run()
        if scale is not None:
            assert accelerator.scaler.get_scale() == scale
        return state(cascade)

    plain, scaled = train(None), train(2.0**12)
    for key, value in plain.items():
        assert torch.allclose(scaled[key], value, rtol=0, atol=1e-7), key


def test_clipping_is_per_group() -> None:
    """Large gradients of one group do not reduce the step of another."""
    optimizer = {"lr": 0.01, "eps": 1.0, "betas": [0.0, 0.0]}
    moved = []
    for lr in (0.01, 0.0):
        stages = {"duel": {"groups": {"adversary": {"lr": lr}}}}
        cascade = duel({}, {"steps": 1, "stages": stages}, optimizer=optimizer, clip_norm=1e-3)
        trainer(cascade).run()
        moved.append(state(cascade)["0.painter.weight"])
    assert torch.equal(*moved)


def test_a_group_that_is_not_averaged_ends_on_its_last_weights() -> None:
    ends = {}
    for averaged in (True, False):
        cascade = duel({"averaged": averaged}, {})
        (spec,) = cascade.spec.training.phases
        ema = make_ema(cascade.spec.training.ema, spec, dict(cascade.named_stages()))
        assert ema is not None
        assert any("critic" in name for name in ema.names) is averaged
        trainer(cascade).run()
        ends[averaged] = state(cascade)
    last = duel({}, {}, ema=None)
    trainer(last).run()
    assert torch.equal(ends[False]["0.critic.weight"], state(last)["0.critic.weight"])
    assert not torch.equal(ends[True]["0.critic.weight"], state(last)["0.critic.weight"])
    assert torch.equal(ends[False]["0.painter.weight"], ends[True]["0.painter.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 4, 7])
def test_a_stopped_duel_ends_on_the_same_weights(tmp_path: Path, stop: int) -> None:
    phase = {"stages": {"duel": {"groups": {"adversary": {"every": 2, "betas": [0.0, 0.9]}}}}}
    whole, stopped, resumed = (duel({"averaged": False}, phase) for _ in range(3))
    trainer(whole).run()
    with pytest.raises(StoppedError):
        trainer(stopped, tmp_path, stop=StopAfter(stop)).run()
    trainer(resumed, tmp_path).run()
    assert equal(whole, resumed)


# --- parts that only training needs


@pytest.mark.parametrize("keep", [False, True])
def test_a_saved_model_has_no_adversary(tmp_path: Path, keep: bool) -> None:
    cascade = duel({"keep": keep}, {})
    trainer(cascade).run()
    cascade.save_pretrained(tmp_path)
    with safe_open(tmp_path / "stages/duel/model.safetensors", "pt") as file:
        critics = [name for name in file.keys() if name.startswith("critic")]  # noqa: SIM118
    assert len(critics) == 2 * keep
    # Saving does not change the cascade.
    assert cascade.stage("duel").critic is not None
    stage = cascade.stage("duel")
    with torch.device("meta"):
        copy = ToyDuel(stage.config, stage.geometry)
    copy.drop_training_only()
    copy.load_state_dict(stage.saved_state(), assign=True)
    assert (copy.critic is None) is not keep
    assert set(copy.saved_state()) == set(stage.saved_state()) == set(copy.state_dict())


# --- unpaired estimates


def phases_after(*kinds: str) -> list[Any]:
    return resolved(duel_spec({}, *kinds)).spec.training.phases


def test_stages_after_a_gan_get_the_truth_by_default() -> None:
    phases = phases_after("refiner")
    assert [(p.name, p.joint) for p in phases] == [("coarse", False), ("cascade", False)]
    assert phases[1].teacher_forcing.start == phases[1].teacher_forcing.end == 1.0
    assert [p.name for p in phases_after("heeding")] == ["coarse", "cascade", "joint"]
    assert not any("teacher forcing" in text for text in make_plan_warnings("refiner"))


def make_plan_warnings(*kinds: str) -> list[str]:
    return make_plan(resolved(duel_spec({}, *kinds)), "cpu").warnings


def test_unpaired_estimates_are_refused() -> None:
    phase = {"name": "p", "train": ["refiner"], "steps": 4}
    forcing = {"start": 1.0, "end": 0.5}
    with pytest.raises(SpecError) as caught:
        resolved(duel_spec({}, "refiner", phases=[{**phase, "teacher_forcing": forcing}]))
    (problem,) = caught.value.problems
    assert problem.path == "training.phases.0.teacher_forcing"
    assert problem.code == "estimates-unpaired"
    assert "'refiner'" in problem.message
    assert "'duel'" in problem.message
    resolved(duel_spec({}, "refiner", phases=[phase]))
    heeding = {**phase, "train": ["heeding"], "teacher_forcing": forcing}
    resolved(duel_spec({}, "heeding", phases=[heeding]))
    # A loss of the spec does not heed pairing, even if its stage does.
    data = duel_spec({}, "heeding", phases=[heeding])
    data["training"]["losses"] = [{"stage": "heeding", "config": {"net": "alex"}}]
    with raises(
        SpecError, "spec", problems={"training.phases.0.teacher_forcing": "estimates-unpaired"}
    ):
        resolved(data)
    data["training"]["phases"] = None
    assert [p.name for p in resolved(data).spec.training.phases] == ["coarse", "cascade"]


@pytest.mark.parametrize("joint", [False, True])
def test_a_stage_receives_which_images_match_their_targets(joint: bool) -> None:
    def masks(start: float, *after: str) -> list[torch.Tensor | None]:
        forcing = {"start": start, "end": start}
        phase = {"name": "p", "train": ["duel", *after], "steps": 3, "joint": joint}
        data = duel_spec({}, *after, phases=[{**phase, "teacher_forcing": forcing}])
        cascade = Cascade.from_spec(resolved(data))
        trainer(cascade).run()
        stage = cascade.stage(after[-1])
        for mask, fed in zip(stage.paired, stage.fed, strict=True):
            if mask is not None:
                # Each image of the duel has a single shade; true images do not.
                flat = fed.flatten(1).std(1) < 1e-6
                assert torch.equal(mask, ~flat)
        return stage.paired

    assert masks(1.0, "heeding") == [None] * 3
    assert not torch.stack(masks(0.0, "heeding")).any()
    mixed = torch.stack(masks(0.5, "heeding")).float().mean()
    assert 0.2 < mixed < 0.8


def test_unpaired_images_stay_unpaired_in_later_stages() -> None:
    phase = {"name": "p", "train": ["second"], "steps": 2}
    data = duel_spec({}, phases=[{**phase, "teacher_forcing": {"start": 0.0, "end": 0.0}}])
    data["stages"] += [
        {"name": name, "kind": "toy-heeding.v1", "config": {}} for name in ("first", "second")
    ]
    cascade = Cascade.from_spec(resolved(data))
    trainer(cascade).run()
    for name in ("first", "second"):
        assert not torch.stack(cascade.stage(name).paired).any()
