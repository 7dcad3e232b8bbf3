"""Compares parts of the trainer with naive formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from errors_help import raises
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cascadezoo.errors import InputError, TrainingError, WeightsUnavailableError
from cascadezoo.nn.precision import accelerates_bf16
from cascadezoo.spec import EmaSpec, PhaseSpec, ScheduleSpec, StageTraining, TeacherForcing
from cascadezoo.stages.base import GroupOptions
from cascadezoo.train.ema import Ema, ema_decay, make_ema
from cascadezoo.train.engine import pick_device, pick_precision
from cascadezoo.train.events import EventLog, read_events
from cascadezoo.train.loss_sums import LossSums, check_finite
from cascadezoo.train.optim import make_optimizers, schedule_factor
from cascadezoo.train.teacher_forcing import Choice, choose, mix, probability
from cascadezoo.util.rng import Draw, ImageDraw, derive_seed


def test_seeds_are_reproducible_and_differ_by_key() -> None:
    assert derive_seed(0, "coarse", 3, "up") == 8115734513113262190
    keys = [(0,), ("0",), (0, 0), (0, "a"), ("0", "a"), ("0a",), (1,), ("a", 0)]
    assert len({derive_seed(*key) for key in keys}) == len(keys)
    assert all(0 <= derive_seed(*key) < 2**63 for key in keys)


@given(st.integers(1, 4), st.integers(1, 5))
def test_processes_share_the_global_draw(world: int, local: int) -> None:
    whole = Draw(1, "x").randn(world * local, 3)
    parts = [Draw(1, "x", rank=r, world=world).randn(local, 3) for r in range(world)]
    assert torch.equal(torch.cat(parts), whole)


def test_an_image_draws_the_same_in_any_batch() -> None:
    whole = ImageDraw(5, "up", 0, 7)
    first, second = whole.randn(7, 2, 3), whole.rand(7, 4)
    for start, count in ((0, 3), (3, 4)):
        part = ImageDraw(5, "up", start, count)
        assert torch.equal(part.randn(count, 2, 3), first[start : start + count])
        assert torch.equal(part.rand(count, 4), second[start : start + count])
    assert not torch.equal(ImageDraw(5, "coarse", 0, 7).randn(7, 2, 3), first)


def test_draws_have_their_distributions() -> None:
    draw = Draw(0, "stats")
    normal, uniform, whole = draw.randn(200_000), draw.rand(200_000), draw.randint(2, 6, 200_000)
    assert abs(float(normal.mean())) < 0.01
    assert abs(float(normal.std()) - 1) < 0.01
    assert abs(float(uniform.mean()) - 0.5) < 0.005
    assert sorted(set(whole.tolist())) == [2, 3, 4, 5]


def test_teacher_forcing_decreases_linearly() -> None:
    spec = TeacherForcing(start=0.9, end=0.1)
    assert [round(probability(spec, s, 5), 6) for s in range(5)] == [0.9, 0.7, 0.5, 0.3, 0.1]
    assert probability(spec, 0, 1) == 0.9


@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 0.95))
def test_share_of_truth_is_the_probability(p: float) -> None:
    per_sample = TeacherForcing(start=p, end=p)
    choice = choose(per_sample, p, ("k",), Draw("k"), 20_000)
    assert choice.mask is not None
    assert abs(float(choice.mask.float().mean()) - p) < 0.02
    per_batch = TeacherForcing(start=p, end=p, per="batch")
    truths = [choose(per_batch, p, (i,), Draw(i), 4).all_truth for i in range(2000)]
    assert abs(np.mean(truths) - p) < 0.05


def test_mixing_follows_the_mask_and_passes_gradients_on() -> None:
    truth, estimate = torch.zeros(4, 1, 2, 2), torch.ones(4, 1, 2, 2, requires_grad=True)
    mask = torch.tensor([True, False, True, False])
    mixed = mix(Choice(all_truth=False, all_estimate=False, mask=mask), truth, estimate)
    assert mixed[:, 0, 0, 0].tolist() == [0, 1, 0, 1]
    mixed.sum().backward()
    assert estimate.grad[:, 0, 0, 0].tolist() == [0, 1, 0, 1]
    assert mix(Choice(all_truth=True, all_estimate=False), truth, None) is truth


@pytest.mark.parametrize("warmup", [True, False])
def test_ema_is_the_naive_average(warmup: bool) -> None:
    torch.manual_seed(0)
    parameters = {"a": nn.Parameter(torch.randn(3)), "b": nn.Parameter(torch.randn(2, 2))}
    ema = Ema(parameters, 0.9, warmup=warmup)
    naive = {k: v.detach().double().clone() for k, v in parameters.items()}
    for step in range(30):
        with torch.no_grad():
            for p in parameters.values():
                p.add_(torch.randn_like(p))
        ema.update(step)
        decay = min(0.9, (1 + step) / (10 + step)) if warmup else 0.9
        naive = {k: decay * v + (1 - decay) * parameters[k].double() for k, v in naive.items()}
    for name, value in ema.state_dict().items():
        assert torch.allclose(value.double(), naive[name].detach(), atol=1e-5)
    before = parameters["a"].detach().clone()
    ema.swap()
    assert torch.allclose(parameters["a"].double(), naive["a"].detach(), atol=1e-5)
    ema.swap()
    assert torch.equal(parameters["a"], before)


def test_each_stage_may_have_its_own_decay() -> None:
    stages = {name: nn.Linear(2, 1, bias=False) for name in ("one", "two", "three")}
    for stage in stages.values():
        nn.init.zeros_(stage.weight)
    settings = {"two": StageTraining(ema_decay=0.5), "three": StageTraining(ema_decay=0.0)}
    phase = PhaseSpec(name="p", train=list(stages), steps=1, stages=settings)
    spec = EmaSpec(decay=0.75, warmup=False)
    assert [ema_decay(spec, phase, name) for name in stages] == [0.75, 0.5, 0.0]
    ema = make_ema(spec, phase, stages)
    with torch.no_grad():
        for stage in stages.values():
            stage.weight.fill_(1.0)
    ema.update(0)
    assert {k: v[0, 0].item() for k, v in ema.state_dict().items()} == {
        "one.weight": 0.25,
        "two.weight": 0.5,
        "three.weight": 1.0,
    }
    # Without a common average, only stages with a decay have one.
    alone = make_ema(None, phase, stages)
    assert alone.names == ["two.weight", "three.weight"]
    assert alone.warmup
    plain = PhaseSpec(name="p", train=list(stages), steps=1)
    assert make_ema(None, plain, stages) is None


def factors(spec: ScheduleSpec, total: int, per_epoch: int = 10) -> list[float]:
    return [schedule_factor(spec, s, total, per_epoch) for s in range(total)]


def test_step_schedule_is_torchs_step_lr() -> None:
    spec = ScheduleSpec(kind="step", step_epochs=3, gamma=0.5)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)
    ours = factors(spec, 80)
    for epoch in range(8):
        assert ours[epoch * 10 : epoch * 10 + 10] == [optimizer.param_groups[0]["lr"]] * 10
        optimizer.step()
        reference.step()


def test_cosine_schedule_is_torchs_after_the_warm_up() -> None:
    ours = factors(ScheduleSpec(kind="cosine", warmup_steps=4, final=0.1), 54)
    assert ours[:4] == [0.2, 0.4, 0.6, 0.8]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=0.1)
    for factor in ours[4:]:
        assert math.isclose(factor, optimizer.param_groups[0]["lr"], abs_tol=1e-9)
        optimizer.step()
        reference.step()


class TwoGroups(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.painter = nn.Linear(2, 2)
        self.critic = nn.Linear(2, 2)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {
            "generator": list(self.painter.parameters()),
            "adversary": list(self.critic.parameters()),
        }

    def group_options(self) -> dict[str, GroupOptions]:
        return {}


def test_optimizers_by_group_with_stage_overrides() -> None:
    one, two = TwoGroups(), TwoGroups()
    phase = PhaseSpec(
        name="p", train=["one", "two"], steps=1, stages={"two": StageTraining(lr=0.5)}
    )
    rows = {g.group: g for g in make_optimizers(phase, {"one": one, "two": two})}
    assert set(rows) == {"generator", "adversary"}
    assert rows["adversary"].lr() == {"one.adversary": 2e-4, "two.adversary": 0.5}
    rows["adversary"].set_factor(0.1)
    assert rows["adversary"].lr() == pytest.approx({"one.adversary": 2e-5, "two.adversary": 0.05})
    assert {id(p) for p in rows["adversary"].parameters} == {
        id(p) for m in (one, two) for p in m.critic.parameters()
    }


def test_sums_give_means_and_are_reset() -> None:
    sums = LossSums()
    assert sums.take() == {}
    for value in (1.0, 2.0, 6.0):
        sums.add({"a": torch.tensor(value), "b": torch.tensor(-value)})
    assert sums.read() == {"a": 3.0, "b": -3.0}
    assert sums.take() == {"a": 3.0, "b": -3.0}
    sums.add({"a": torch.tensor(1.0)})
    assert sums.take() == {"a": 1.0}


def test_sums_do_not_change_their_inputs() -> None:
    value = torch.tensor(1.0)
    sums = LossSums()
    sums.add({"a": value})
    sums.add({"a": value})
    assert float(value) == 1.0


def test_losses_that_are_not_finite_are_named() -> None:
    with raises(TrainingError, "training-loss-not-finite", name="p") as caught:
        check_finite("p", 7, {"coarse.mse": 1.0, "up.mse": float("nan")})
    (loss,) = caught.value.fields["losses"]
    assert loss.startswith("up.mse ")


def test_events_survive_a_torn_line_and_rewind(tmp_path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    for step in range(5):
        log.write("log", step=step, losses={"a": 0.5})
    log.close()
    with path.open("a") as file:
        file.write('{"event": "log", "st')
    assert [row["step"] for row in read_events(path)] == [0, 1, 2, 3, 4]
    log = EventLog(path)
    log.rewind(2)
    log.write("log", step=3)
    log.close()
    assert [row["step"] for row in read_events(path)] == [0, 1, 2, 3]


def test_devices_and_precisions() -> None:
    cpu = pick_device("cpu")
    assert pick_precision("auto", cpu) == ("bf16" if accelerates_bf16(cpu) else "fp32")
    assert pick_precision("bf16", cpu) == "bf16"
    with raises(InputError, "input-fp16-needs-cuda"):
        pick_precision("fp16", cpu)
    for name, code in (
        ("meta", "unsupported"),
        ("cuda:99", "missing"),
        ("nonsense", "unknown"),
    ):
        with raises(InputError, f"input-device-{code}", name=name):
            pick_device(name)


def test_lpips_without_weights_names_three_solutions(tmp_path, monkeypatch) -> None:
    from cascadezoo.spec.configs import ImageShape
    from cascadezoo.train.loss_configs import LpipsConfig
    from cascadezoo.train.lpips_loss import LpipsLoss

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsUnavailableError) as caught:
        LpipsLoss(LpipsConfig(net="alex"), ImageShape(3, 32))
    hint = str(caught.value.hint)
    for part in ("TORCH_HOME", "config.net", "training.losses=[]"):
        assert part in hint


@pytest.mark.filterwarnings("ignore:The parameter 'pretrained'", "ignore:Arguments other than")
def test_lpips_is_the_packages(real_networks) -> None:
    import lpips

    from cascadezoo.spec.configs import ImageShape
    from cascadezoo.train.loss_configs import LpipsConfig
    from cascadezoo.train.lpips_loss import LpipsLoss

    ours = LpipsLoss(LpipsConfig(net="alex"), ImageShape(3, 32))
    torch.manual_seed(0)
    a = (torch.rand(4, 3, 32, 32) * 2 - 1).requires_grad_()
    b = torch.rand(4, 3, 32, 32) * 2 - 1
    reference = lpips.LPIPS(net="alex", verbose=False)
    assert torch.allclose(ours(a, b), reference(a, b).mean(), rtol=1e-4)
    ours(a, b).backward()
    assert float(a.grad.abs().sum()) > 0
    assert not any(p.requires_grad for p in ours.parameters())
    assert torch.allclose(
        ours(a[:, :1], b[:, :1]), ours(*(x[:, :1].repeat(1, 3, 1, 1) for x in (a, b)))
    )
    with raises(InputError, "input-images-too-small", name="alex"):
        LpipsLoss(LpipsConfig(net="alex"), ImageShape(3, 16))
