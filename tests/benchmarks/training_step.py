"""Compares the trainer with a manual loop over the same modules, losses and data."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from cascadezoo.build.build import build_cascade  # noqa: F401 - as in a user's process
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.base import ImageData
from cascadezoo.data.loader import DeviceLoader
from cascadezoo.data.preparation import prepare
from cascadezoo.plugins.manager import get_registry
from cascadezoo.spec import ResolvedSpec, load_spec
from cascadezoo.stages.base import TrainContext
from cascadezoo.train.engine import make_accelerator, pick_device
from cascadezoo.train.trainer import Trainer
from cascadezoo.util.rng import Draw


def data_of(resolved: ResolvedSpec) -> ImageData:
    spec = resolved.spec.data
    entry = get_registry().datasets.get(spec.source).entry
    data = entry.load()(resolved.data_config, "train")
    return prepare(data, size=spec.size, channels=spec.channels, fit=spec.fit)


def loader_of(resolved: ResolvedSpec, data: ImageData, device: torch.device) -> DeviceLoader:
    return DeviceLoader(
        data,
        batch_size=resolved.spec.training.batch_size,
        seed=0,
        flip=resolved.spec.data.flip,
        device=device,
    )


def by_trainer(resolved: ResolvedSpec, data: ImageData, device: torch.device) -> float:
    cascade = Cascade.from_spec(resolved, device=device)
    trainer = Trainer(cascade, loader_of(resolved, data, device), make_accelerator(device, "fp32"))
    synchronize(device)
    began = time.perf_counter()
    trainer.run()
    synchronize(device)
    return time.perf_counter() - began


def by_hand(resolved: ResolvedSpec, data: ImageData, device: torch.device) -> float:
    """A manual loop for this cascade: generator, upsampler and refiner, trained jointly."""
    (phase,) = resolved.spec.training.phases
    cascade = Cascade.from_spec(resolved, device=device)
    loader = loader_of(resolved, data, device)
    coarse, up, refine = cascade.train().stages
    parameters = list(cascade.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=phase.optimizer.lr, betas=tuple(phase.optimizer.betas), weight_decay=0.0,
        fused=device.type in ("cpu", "cuda"),
    )  # fmt: skip
    average = [p.detach().clone() for p in parameters]
    synchronize(device)
    began = time.perf_counter()
    for step in range(phase.steps):
        images, labels = loader.batch(*divmod(step, loader.steps_per_epoch))
        with torch.no_grad():
            middle = refine.upstream_target(images)
            small = up.upstream_target(middle)
        draw = Draw(0, step, device=device)
        context = TrainContext(draw, labels)
        one = coarse(coarse.preprocess(small, None, context))
        truth = draw.rand(len(images)) < 0.5
        two = up(up.preprocess(middle, pick(truth, small, one.estimate), context))
        three = refine(refine.preprocess(images, pick(truth, middle, two.estimate), context))
        loss = sum(v for out in (one, two, three) for v in out.losses.values())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        torch._foreach_lerp_(average, parameters, 0.001)
        if step % 50 == 49:
            loss.item()
    synchronize(device)
    return time.perf_counter() - began


def pick(truth: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.where(truth[:, None, None, None], a, b)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def spec_of(name: str, steps: int) -> ResolvedSpec:
    phase = (
        '[{"name": "joint", "train": ["coarse", "up", "refine"], "joint": true, '
        f'"steps": {steps}, "teacher_forcing": {{"start": 0.5, "end": 0.5}}}}]'
    )
    return load_spec(name, settings=[f"training.phases={phase}", "training.losses=[]"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--spec", default="shapes-demo")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    few = 10
    short, long = spec_of(options.spec, few), spec_of(options.spec, few + options.steps)
    device = pick_device(options.device)
    data = data_of(long)

    def per_step(run: Callable[..., float]) -> float:
        # The difference of two lengths excludes the constant cost of a phase.
        once = run(short, data, device)
        return (run(long, data, device) - once) / options.steps * 1000

    per_step(by_trainer)
    per_step(by_hand)
    pairs = []
    for number in range(options.pairs):
        # Alternate the order, so that a machine that warms up or slows down favours neither.
        order = (by_trainer, by_hand) if number % 2 == 0 else (by_hand, by_trainer)
        times = {run: per_step(run) for run in order}
        pairs.append((times[by_trainer], times[by_hand]))
    ratio = statistics.median(a / b for a, b in pairs)
    mine, hand = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"{options.spec} on {device}, {options.pairs} pairs of {options.steps} joint steps")
    print(f"trainer {mine:.2f} ms/step, by hand {hand:.2f} ms/step")
    best = min(a for a, _ in pairs) / min(b for _, b in pairs)
    print(f"ratio, median of pairs: {ratio:.3f}; of the best: {best:.3f}")


if __name__ == "__main__":
    main()
