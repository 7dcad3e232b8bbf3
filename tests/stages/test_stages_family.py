"""The diffusion and flow family: samplers, truncation, guidance, losses, conditioning."""

from __future__ import annotations

import dataclasses
import math
import weakref
from typing import Any

import pytest
import torch
from errors_help import raises
from pydantic import ValidationError
from stage_cases import CLASSES, ENTRIES, SMALL, Case, request, train
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms.functional import gaussian_blur

from cascadezoo.diffusion.flow import SOLVERS, time_of
from cascadezoo.diffusion.losses import VLB_WEIGHT, posterior_table, vlb_term
from cascadezoo.diffusion.samplers import SAMPLERS
from cascadezoo.diffusion.schedules import level_of, signal_of
from cascadezoo.errors import SampleError
from cascadezoo.spec.configs import ConfigError, ImageShape
from cascadezoo.stages.base import SampleRequest, Stage, TrainContext
from cascadezoo.util.rng import Draw, ImageDraw

UNET = SMALL["unet-diffusion.v1"]
FLOW = SMALL["flow.v1"]
UPSAMPLERS = [SMALL["diffusion-sr.v1"], SMALL["flow-sr.v1"], SMALL["flow-sr.v2"]]
FAMILY = [UNET, SMALL["diffusion.v1"], FLOW, *UPSAMPLERS]

family = pytest.mark.parametrize("case", FAMILY, ids=str)
upsamplers = pytest.mark.parametrize("case", UPSAMPLERS, ids=str)


def with_settings(case: Case, **settings: Any) -> Case:
    return dataclasses.replace(case, settings={**case.settings, **settings})


def config_of(kind: str) -> Any:
    return ENTRIES[kind].load_config()


def samplers(case: Case) -> list[str]:
    return sorted(SOLVERS if "flow" in case.kind else SAMPLERS)


EVERY = [(case, name) for case in FAMILY for name in samplers(case)]
every = pytest.mark.parametrize(("case", "sampler"), EVERY, ids=str)


class NoReading(TorchDispatchMode):
    """Raises if Python reads the value of a tensor, which waits for the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert "_local_scalar_dense" not in str(func), "a value was read from the device"
        assert "nonzero" not in str(func), "a size that depends on values"
        return func(*args, **(kwargs or {}))


@every
@torch.no_grad()
def test_samplers_read_nothing_from_the_device(case: Case, sampler: str) -> None:
    stage = case.stage().eval()
    upstream, sample_request = case.upstream(2), request(case, 0, 2, guidance=2.0, sampler=sampler)
    with NoReading():
        stage.sample(upstream, sample_request)
    with pytest.raises(AssertionError, match="was read"), NoReading():
        torch.ones(1).item()


@every
@torch.no_grad()
def test_labels_and_conditions_are_put_together_once(case: Case, sampler: str) -> None:
    """Guided steps are one batch of both halves; what is the same in all of them is made once."""
    stage = with_settings(case, sampler=sampler, guidance=2.0).stage().eval()
    if stage.num_classes is None:
        pytest.skip("a network without labels")
    seen: list[list[torch.Tensor]] = []
    hook = stage.network.register_forward_pre_hook(lambda _, args: seen.append(list(args)))
    stage.sample(case.upstream(2), request(case, 0, 2))
    hook.remove()
    assert len(seen) > 1
    for args in seen:
        assert [len(arg) for arg in args] == [4] * len(args)
        assert all(a is b for a, b in zip(args[2:], seen[0][2:], strict=True))


@every
@torch.no_grad()
def test_evaluations_equals_the_number_of_calls(case: Case, sampler: str) -> None:
    stage = with_settings(case, sampler=sampler, guidance=2.0).stage().eval()
    rows = 0

    def count(module: torch.nn.Module, args: Any) -> None:
        nonlocal rows
        rows += len(args[0])

    stage.network.register_forward_pre_hook(count)  # type: ignore[union-attr,operator]
    stage.sample(case.upstream(2), request(case, 0, 2))
    assert rows == 2 * stage.network_evaluations()


@every
@torch.no_grad()
def test_states_are_shown_and_not_kept(case: Case, sampler: str) -> None:
    stage = case.stage().eval()
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def watch(state: torch.Tensor) -> None:
        nonlocal most
        alive.append(weakref.ref(state))
        most = max(most, sum(ref() is not None for ref in alive))

    sample_request = request(case, 0, 2, sampler=sampler, steps=6)
    sample_request.watch = watch
    stage.sample(case.upstream(2), sample_request)
    assert len(alive) == 6
    assert most <= 2


# --- stopping early


@pytest.mark.parametrize("case", [UNET, SMALL["diffusion.v1"], FLOW], ids=str)
@pytest.mark.parametrize("s", [0.2, 0.5])
@torch.no_grad()
def test_a_stopped_generator_leaves_the_noise_of_that_level(case: Case, s: float) -> None:
    """If the network predicts the only image exactly, the state at s is that image with noise."""
    flow = case is FLOW
    case = case if flow else with_settings(case, timesteps=200, schedule="cosine")
    stage, image = case.stage().eval(), torch.linspace(-0.8, 0.8, 144).view(1, 1, 12, 12)
    image = image.expand(1, 3, 12, 12)

    def perfect(x: torch.Tensor, times: torch.Tensor, labels: Any) -> torch.Tensor:
        if flow:
            return (x - image) / (times / 1000).clamp(min=1e-3).view(-1, 1, 1, 1)
        alpha, sigma = stage.rates[times.long()].unbind(1)  # type: ignore[index]
        return (x - alpha.view(-1, 1, 1, 1) * image) / sigma.view(-1, 1, 1, 1)

    stage.network = torch.nn.Module()
    stage.network.forward = perfect  # type: ignore[method-assign]
    count = 60
    sample_request = SampleRequest(count, ImageDraw(1, "s", 0, count), steps=100)
    sample_request.options = {"stop": signal_of(s)}
    made = stage.sample(None, sample_request)
    residue = made - signal_of(s) ** 0.5 * image
    sigma = (1 - signal_of(s)) ** 0.5
    assert residue.mean().abs() < 0.02
    assert residue.std().item() == pytest.approx(sigma, rel=0.03)


def test_a_stop_above_the_noisiest_level_is_rejected() -> None:
    stage = with_settings(UNET, timesteps=25).stage()  # whose last timestep keeps 78 %
    with raises(SampleError, "sample-stop-at-start"):
        stage.sample(None, request(UNET, 0, 1, options={"stop": signal_of(0.9)}))
    with raises(SampleError, "sample-stop-at-start"):
        FLOW.stage().sample(None, request(FLOW, 0, 1, options={"stop": 0.0}))


@upsamplers
@torch.no_grad()
def test_truncated_sampling_stops_the_previous_stage(case: Case) -> None:
    stage = with_settings(case, s=0.3).stage().eval()
    plain = request(case, 0, 2)
    assert stage.upstream_request(plain) is plain
    sample_request = request(case, 0, 2, options={"truncated": True})
    assert stage.upstream_request(sample_request).options["stop"] == pytest.approx(signal_of(0.3))
    none = request(case, 0, 2, options={"truncated": True, "s": 0.0})
    assert stage.upstream_request(none) is none
    # A noised image comes as it is; a clean one is noised here.
    upstream = case.upstream(2)
    assert upstream is not None
    level = torch.full((2,), 0.3)
    (condition, result) = stage.sampling_conditions(upstream, sample_request)  # type: ignore[operator]
    assert torch.equal(condition, stage.enlarged(upstream))  # type: ignore[operator]
    assert torch.allclose(result, level)
    (noised, result) = stage.sampling_conditions(upstream, plain)  # type: ignore[operator]
    assert torch.allclose(result, level)
    assert (noised - condition).abs().max() > 0.1


# --- conditioning augmentation


@upsamplers
def test_the_network_receives_the_gaussian_level_up_to_s_max(case: Case) -> None:
    stage = with_settings(case, s_max=0.4).stage()
    upstream = torch.zeros(4000, 3, 6, 6)
    context = TrainContext(Draw(0), labels=case.labels(4000))
    extra = stage.preprocess(torch.zeros(4000, 3, 12, 12), upstream, context).extra
    level = extra["level"]
    assert level.min() >= 0
    assert level.max().item() == pytest.approx(0.4, abs=0.01)
    assert level.mean().item() == pytest.approx(0.2, abs=0.01)
    # The variance of bilinearly enlarged noise follows sin(pi / 2 * level) squared.
    spread = extra["condition"].flatten(1).var(1)
    wanted = torch.sin(torch.pi / 2 * level).square()
    ratio = spread[level > 0.2] / wanted[level > 0.2]
    assert ratio.std() / ratio.mean() < 0.35
    assert torch.corrcoef(torch.stack([spread, wanted]))[0, 1] > 0.9


@upsamplers
@pytest.mark.parametrize(("low", "high"), [(0.1, 0.4), (0.3, 0.3)])
def test_trained_levels_start_at_s_min(case: Case, low: float, high: float) -> None:
    stage = with_settings(case, s_min=low, s_max=high, s=low).stage()
    context = TrainContext(Draw(0), labels=case.labels(4000))
    extra = stage.preprocess(
        torch.zeros(4000, 3, 12, 12), torch.zeros(4000, 3, 6, 6), context
    ).extra
    assert extra["level"].aminmax().min.item() == pytest.approx(low, abs=1e-3)
    assert extra["level"].aminmax().max.item() == pytest.approx(high, abs=1e-3)
    for s in (low - 0.05, high + 0.05):
        with raises(SampleError, "sample-s-out-of-range", value=s):
            stage.sample(case.upstream(2), request(case, 0, 2, options={"s": s}))


@upsamplers
@pytest.mark.parametrize("settings", [{"s_min": 0.5}, {"s_min": 0.2}, {"s": 0.1, "s_min": 0.2}])
def test_levels_that_do_not_fit_are_refused(case: Case, settings: dict[str, float]) -> None:
    settings = {"s": 0.0, "s_max": 0.4, **settings}
    with pytest.raises(ValidationError) as caught:
        with_settings(case, **settings).stage()
    assert {error["loc"][0] for error in caught.value.errors()} <= {"s", "s_min"}


@upsamplers
def test_blur_follows_its_settings(case: Case) -> None:
    settings = {k: v for k, v in case.settings.items() if k not in ("s", "s_max")}
    settings |= {"augmentation": "blur", "blur_probability": 1.0, "blur_sigma": [0.9, 0.9]}
    stage = dataclasses.replace(case, settings=settings).stage()
    upstream = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    context = TrainContext(Draw(0), labels=case.labels(8))
    extra = stage.preprocess(torch.zeros(8, 3, 12, 12), upstream, context).extra
    expected = gaussian_blur(upstream, [3, 3], [0.9, 0.9])
    assert torch.allclose(extra["condition"], stage.enlarged(expected), atol=1e-5)  # type: ignore[operator]


@upsamplers
def test_the_network_uses_level_and_condition(case: Case) -> None:
    stage = case.stage().eval()
    upstream = case.upstream(2)
    assert upstream is not None

    def images(image: torch.Tensor, **options: Any) -> torch.Tensor:
        with torch.no_grad():
            return stage.sample(image, request(case, 0, 2, options=options))

    plain = images(upstream, s=0.0)
    assert torch.equal(plain, images(upstream, s=0.0))
    assert (plain - images(upstream, s=0.4, truncated=True)).abs().max() > 1e-3  # the level alone
    assert (plain - images(upstream.flip(-1), s=0.0)).abs().max() > 1e-3


@upsamplers
@pytest.mark.parametrize("augmentation", ["none", "blur"])
def test_without_levels(case: Case, augmentation: str) -> None:
    settings = {k: v for k, v in case.settings.items() if k != "s"}
    case = dataclasses.replace(case, settings={**settings, "augmentation": augmentation})
    stage = case.stage()
    assert not any("level" in name for name, _ in stage.named_parameters())
    output = train(stage, case)
    sum(output.losses.values()).backward()
    for options, code in [
        ({"s": 0.1}, "s-without-augmentation"),
        ({"truncated": True}, "truncated-untrained"),
    ]:
        with raises(SampleError, f"sample-{code}") as caught:
            stage.sample(case.upstream(2), request(case, 0, 2, options=options))
        assert caught.value.hint
    assert stage.eval().sample(case.upstream(2), request(case, 0, 2)).shape == (2, 3, 12, 12)


@upsamplers
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"s": 0.6}, {"code": "sample-s-out-of-range"}),
        ({"s": -0.1}, {"code": "sample-fraction-invalid", "name": "s"}),
        ({"s": "much"}, {"code": "sample-fraction-invalid", "name": "s"}),
        ({"truncated": 1}, {"code": "sample-truncated-form"}),
    ],
)
def test_bad_augmentation_options(
    case: Case, options: dict[str, Any], error: dict[str, object]
) -> None:
    with raises(SampleError, **error):
        case.stage().sample(case.upstream(2), request(case, 0, 2, options=options))


@pytest.mark.slow
@upsamplers
def test_the_estimate_of_a_trained_upsampler_beats_its_condition(case: Case) -> None:
    """Stripes at a period that the upstream image cannot show: only the network can add them."""
    process = {"timesteps": 100, "schedule": "cosine", "prediction": "v", "sampler": "ddim"}
    settings = {"conditional": False, "s": 0.0, **(process if "diff" in case.kind else {})}
    case = dataclasses.replace(with_settings(case, **settings), channels=1)
    stage = case.stage(fresh=True)
    target = torch.where(torch.arange(12) % 2 == 0, 0.7, -0.7).expand(16, 1, 12, 12)
    optimizer = torch.optim.AdamW(stage.parameters(), lr=5e-3)
    losses = []
    for step in range(120):
        context = TrainContext(Draw(0, step))
        output = stage(stage.preprocess(target, stage.upstream_target(target), context))
        (loss,) = output.losses.values()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.35 * sum(losses[:10])
    with torch.no_grad():
        sample_request = SampleRequest(4, ImageDraw(0, "s", 0, 4), steps=6)
        images = stage.eval().sample(stage.upstream_target(target[:4]), sample_request)
    assert (images - target[:4]).square().mean() < 0.25 * target[:4].square().mean()


# --- guidance


@family
@torch.no_grad()
def test_the_negative_label_replaces_the_null_label(case: Case) -> None:
    stage, labels = case.stage().eval(), torch.tensor([1, 1])

    def images(**options: Any) -> torch.Tensor:
        guidance = options.pop("guidance", 3.0)
        sample_request = request(case, 0, 2, labels=labels, guidance=guidance, options=options)
        return stage.sample(case.upstream(2), sample_request)

    plain, conditional = images(), images(guidance=1.0)
    assert torch.allclose(images(negative_label=1), conditional, rtol=0, atol=1e-4)
    assert (images(negative_label=2) - plain).abs().max() > 1e-4
    for wrong in (CLASSES, -1, True, "two"):
        with raises(SampleError, "sample-negative-label-out-of-range"):
            images(negative_label=wrong)


@family
@torch.no_grad()
def test_guidance_acts_inside_its_interval(case: Case) -> None:
    stage = case.stage().eval()

    def images(guidance: float, interval: Any = None) -> torch.Tensor:
        options = {} if interval is None else {"guidance_interval": interval}
        sample_request = request(case, 0, 2, guidance=guidance, options=options)
        return stage.sample(case.upstream(2), sample_request)

    assert torch.equal(images(4.0, (0.0, 1.0)), images(4.0))
    # The diffusions here keep most of the signal, so no step starts at a level above 0.9.
    outside = (0.0, 1e-6) if "flow" in case.kind else (0.99, 1.0)
    assert torch.equal(images(4.0, outside), images(1.0))
    for wrong in ((0.5, 0.5), (0.5, 0.2), (0.0, 1.2), (0.1,), "all", (float("nan"), 1)):
        with raises(SampleError, "sample-interval-invalid"):
            images(4.0, wrong)


@pytest.mark.parametrize("how", ["embedding", "concat", "cross-attention"])
@pytest.mark.parametrize("case", [UNET, FLOW, UPSAMPLERS[0]], ids=str)
def test_every_label_conditioning(case: Case, how: str) -> None:
    case = with_settings(case, label_conditioning=how, attention=[6], heads=2)
    stage = case.stage()
    sum(train(stage, case).losses.values()).backward()
    assert [name for name, p in stage.named_parameters() if p.grad is None] == []
    with torch.no_grad():
        stage.eval()
        one, two = (
            stage.sample(
                case.upstream(1),
                request(case, 0, 1, labels=torch.tensor([label]), guidance=1.0),
            )
            for label in (0, 1)
        )
    assert (one - two).abs().max() > 1e-4


# --- losses and noise


def test_the_bound_trains_the_variances_alone() -> None:
    case = with_settings(UNET, loss="hybrid", timesteps=50)
    stage = case.stage()
    losses = train(stage, case).losses
    assert list(losses) == ["mse", "vlb"]
    losses["vlb"].backward()  # type: ignore[union-attr]
    head: Any = stage.network.head  # type: ignore[union-attr]
    assert head.weight.grad[:3].abs().max() == 0
    assert head.weight.grad[3:].abs().min() > 0


@pytest.mark.parametrize("timestep", [0, 1, 2000, 3999])
def test_the_bound_takes_the_estimate_unclipped(timestep: int) -> None:
    # As training does in the code of Nichol & Dhariwal (clip_denoised=False). At the last timestep
    # of their cosine schedule, a clipped estimate gives a ten-millionth of the divergence.
    case = with_settings(UNET, loss="hybrid", timesteps=4000, schedule="cosine")
    stage: Any = case.stage()
    context = TrainContext(Draw(0, "bound"), labels=case.labels(4))
    inputs = stage.preprocess(case.target(4), None, context)
    times = torch.full((4,), timestep)
    signal = torch.tensor(stage.signal, dtype=torch.float64)
    alpha, sigma = signal[timestep].sqrt().float(), (1 - signal[timestep]).sqrt().float()
    noisy = alpha * inputs.target + sigma * inputs.noise
    rates = {"alpha": alpha.expand(4, 1, 1, 1), "sigma": sigma.expand(4, 1, 1, 1)}
    inputs = dataclasses.replace(inputs, times=times, noisy=noisy, extra={**inputs.extra, **rates})
    with torch.no_grad():
        got = float(stage(inputs).losses["vlb"])
        eps, spread = stage.predict(inputs, times).double().chunk(2, dim=1)
    x0 = (noisy.double() - sigma.double() * eps) / alpha.double()
    term = vlb_term(
        inputs.target.double(),
        noisy.double(),
        x0,
        spread,
        posterior_table(stage.signal, torch.float64),
        times,
    )
    assert got == pytest.approx(float(4000 * VLB_WEIGHT * term.mean()), rel=2e-3)
    clipped = vlb_term(
        inputs.target.double(),
        noisy.double(),
        x0.clamp(-1, 1),
        spread,
        posterior_table(stage.signal, torch.float64),
        times,
    )
    if timestep == 3999:
        assert float(clipped.mean()) < 0.9 * float(term.mean())


def test_learned_variances_widen_ddpm_alone() -> None:
    case = with_settings(UNET, loss="hybrid", timesteps=50, prediction="x0")
    stage = case.stage().eval()

    def spread(value: float, sampler: str) -> torch.Tensor:
        stage.network = torch.nn.Module()
        stage.network.forward = lambda x, times, labels: torch.cat(  # type: ignore[method-assign]
            [torch.zeros_like(x), torch.full_like(x, value)], dim=1
        )
        states: list[torch.Tensor] = []
        sample_request = request(case, 0, 8, sampler=sampler, steps=5)
        sample_request.watch = lambda state: states.append(state.clone())
        stage.sample(None, sample_request)
        return states[2].std()

    assert spread(1.0, "ddpm") > 1.02 * spread(-1.0, "ddpm")
    assert spread(1.0, "ddim") == spread(-1.0, "ddim")


def test_min_snr_counts_clean_timesteps_less() -> None:
    plain, weighted = (with_settings(UNET, loss=name) for name in ("simple", "min-snr"))
    # Its few timesteps are nearly clean: a signal-to-noise ratio far above 5.
    assert train(weighted.stage(), weighted).losses["mse"] < (
        0.2 * train(plain.stage(), plain).losses["mse"]
    )


@torch.no_grad()
def test_continuous_noise_takes_more_steps_than_there_are_timesteps() -> None:
    case = with_settings(UNET, noise_conditioning="continuous", schedule="cosine", steps=20)
    stage = case.stage().eval()
    result: list[float] = []
    stage.network.register_forward_pre_hook(  # type: ignore[union-attr,operator]
        lambda module, args: result.append(args[1][0].item())
    )
    stage.sample(None, request(case, 0, 1))
    assert len(result) == 20
    assert result == sorted(result, reverse=True)
    assert 0 < result[-1] < result[0] <= 1000
    signal: Any = stage.signal
    assert result[0] == pytest.approx(1000 * level_of(signal[-1]), rel=1e-5)


def test_continuous_noise_lies_between_the_timesteps() -> None:
    stage = with_settings(UNET, noise_conditioning="continuous", schedule="cosine").stage()
    target = torch.zeros(3000, 3, 2, 2)
    inputs = stage.preprocess(target, None, TrainContext(Draw(0)))
    assert inputs.times is not None
    assert len(inputs.times.unique()) > 2900
    alpha, sigma = inputs.extra["alpha"], inputs.extra["sigma"]
    assert torch.allclose(alpha**2 + sigma**2, torch.ones(()), atol=1e-6)
    assert torch.allclose(
        inputs.times / 1000, torch.atan2(sigma, alpha).flatten() * 2 / torch.pi, atol=1e-5
    )


# --- reflow


def test_reflow_uses_the_noise_of_the_pairs() -> None:
    stage: Stage = FLOW.stage()
    noise = torch.randn(4, 3, 12, 12)
    context = TrainContext(Draw(0), labels=FLOW.labels(4), noise=noise)
    inputs = stage.preprocess(FLOW.target(4), None, context)
    assert inputs.noise is noise
    with torch.no_grad():
        pairs = stage.eval().make_pairs(noise, request(FLOW, 0, 4))
        assert pairs.shape == noise.shape
        assert torch.equal(pairs, stage.make_pairs(noise, request(FLOW, 0, 4)))
    with pytest.raises(NotImplementedError):
        UNET.stage().make_pairs(noise, request(UNET, 0, 4))


def test_times_and_levels_agree() -> None:
    assert time_of(0.5) == pytest.approx(0.5)
    assert level_of(signal_of(0.37)) == pytest.approx(0.37)


# --- dynamic thresholding and the cosine schedule's offset


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_dynamic_thresholding_bounds_every_estimate(prediction: str) -> None:
    case = with_settings(
        UNET, prediction=prediction, dynamic_threshold=0.9, clip_x0=False, schedule="cosine"
    )
    stage = case.stage().eval()
    with torch.no_grad():
        images = stage.sample(None, request(case, 0, 2, guidance=9.0))
    assert images.abs().max() <= 1
    plain = with_settings(UNET, prediction=prediction, clip_x0=False, schedule="cosine")
    with torch.no_grad():
        others = plain.stage().eval().sample(None, request(plain, 0, 2, guidance=9.0))
    assert (images - others).abs().max() > 1e-3


def test_dynamic_thresholding_of_latents_is_refused() -> None:
    config = config_of("unet-diffusion.v1")(dynamic_threshold=0.99)
    with pytest.raises(ConfigError) as caught:
        config.fit(ImageShape(4, 8, latent=True))
    assert (caught.value.field, caught.value.code) == ("dynamic_threshold", "latents")


def test_the_offset_of_the_cosine_schedule() -> None:
    config = config_of("unet-diffusion.v1")(schedule="cosine", cosine_offset=0.0, timesteps=100)
    expected = [math.cos((t + 1) / 100 * math.pi / 2) ** 2 for t in range(99)]
    assert config.signal()[:99] == pytest.approx(expected, rel=1e-9)
    assert config_of("unet-diffusion.v1")(schedule="cosine").signal() != config.signal()
