"""Compares training and sampling with diffusers and denoising-diffusion-pytorch on one machine.

    python tests/benchmarks/peers.py                              # CPU: one thread, CPU seconds
    python tests/benchmarks/peers.py --device cuda --budget 55    # GPU: bf16, wall time

Each contender has its own process. They run in turn, a block of steps at a time (A B C A B C), so
each ratio compares two successive blocks. Figures are medians over blocks, with the lowest and the
highest in brackets.

A step is:

- ``cascadezoo``: a step of ``Trainer`` as ``build`` runs it: batch with mirroring from
  ``DeviceLoader``, ``PhaseWalk``, clipping, fused AdamW, schedule, EMA each step.
- ``diffusers``: the loop of its ``train_unconditional.py`` with ``--use_ema`` (as its README calls
  it), without Accelerate, progress bar and tracker: ``add_noise``, mse, clipping, AdamW, cosine
  schedule, ``EMAModel``, and the ``loss.item()`` that it logs. Sampling is ``DDIMPipeline``. The
  network is that of ``google/ddpm-cifar10-32``, at ``--size small`` a quarter as wide.
- ``denoising-diffusion-pytorch``: the loop of its ``Trainer`` (Adam, clipping, EMA, ``loss.item()``)
  with the U-Net of its README (``dim_mults=(1, 2, 4, 8), flash_attn=True``); sampling is
  ``GaussianDiffusion.sample`` by DDIM.

Peers get batches of floats from memory and mirror nothing, which is less work than their scripts
do. On a GPU the U-Net of diffusers is in channels_last, as its documentation advises.

A contender is written ``NAME[@SHAPE][:PRECISION][:compile]``. Shapes of cascadezoo's U-Net:
``default`` (the kind's multipliers and blocks), ``ddpm`` (the network of diffusers, with the same
number of parameters and operations) and ``deep`` (multipliers 1, 2, 4, 8), each at the width with
the nearest number of parameters. Ratios are each peer's time over each time of cascadezoo.

Needs ``pip install cascadezoo[peers]``; ``--path FOLDER`` adds a folder of packages (of the
requirements of denoising-diffusion-pytorch, einops, ema-pytorch and tqdm are used here).
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import importlib.util
import inspect
import json
import logging
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

SIZE = 32
IMAGES = 4096
PARAMETERS = {"small": 2_245_763, "large": 35_746_307}  # of diffusers' U-Net
MODULES = {
    "cascadezoo": "cascadezoo",
    "diffusers": "diffusers",
    "denoising-diffusion-pytorch": "denoising_diffusion_pytorch",
}
SHAPES = {
    "default": {},
    "deep": {"multipliers": [1, 2, 4, 8]},
    "ddpm": {
        "multipliers": [1, 2, 2, 2],
        "blocks": 2,
        "dense_skips": True,
        "attention": [16],
        "middle_attention": True,
        "scale_shift": False,
        "heads": 1,
    },
}


@dataclass(frozen=True)
class Entry:
    """A requested contender."""

    label: str
    name: str
    shape: str
    precision: str
    compile: bool


@dataclass(frozen=True)
class Work:
    """The arguments of a contender's process."""

    entry: Entry
    device: str
    size: str
    kind: str
    batches: tuple[int, ...]
    sample_steps: int
    threads: int
    data: str
    paths: tuple[str, ...]


def refuse(what: str, hint: str) -> NoReturn:
    print(f"Error: {what}\nHint: {hint}", file=sys.stderr)
    sys.exit(2)


def parse_entry(text: str, *, cuda: bool, compile_ours: bool, compile_peers: bool) -> Entry:
    head, *marks = text.split(":")
    name, _, shape = head.partition("@")
    if name not in MODULES:
        refuse(f"unknown contender {name!r}", f"use one of {', '.join(MODULES)}")
    ours = name == "cascadezoo"
    if shape and (not ours or shape not in SHAPES):
        refuse(f"{text!r}: unknown shape {shape!r}", f"cascadezoo has {', '.join(SHAPES)}")
    compiled = "compile" in marks or (compile_ours if ours else compile_peers)
    precisions = [mark for mark in marks if mark != "compile"]
    if len(precisions) > 1 or set(precisions) - {"fp32", "bf16"}:
        refuse(f"{text!r}: unknown precision", "use fp32 or bf16")
    precision = precisions[0] if precisions else "bf16" if cuda else "fp32"
    shape = shape or ("default" if ours else "")
    label = f"{name}{'@' if shape else ''}{shape} {precision}{' compiled' if compiled else ''}"
    return Entry(label, name, shape, precision, compiled)


# --- the contenders' processes


class Turns:
    """Runs steps in blocks, each in this process's turn; None from the parent ends them."""

    def __init__(self, connection: Connection, cuda: bool) -> None:
        self.connection = connection
        self.cuda = cuda
        self.left = self.lead = 0
        self.began = (0.0, 0.0)

    def now(self) -> tuple[float, float]:
        """Wall time and CPU time, after the device has finished."""
        import torch

        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()

    def begin(self) -> bool:
        """Wait for the next turn; False if there is none."""
        message = self.connection.recv()
        if message is None:
            return False
        self.lead, self.left = message
        if not self.lead:
            self.began = self.now()
        return True

    def after_step(self) -> bool:
        """Count a step; False ends the training."""
        if self.lead:
            # Not timed: the caches still hold the data of the other contenders.
            self.lead -= 1
            if not self.lead:
                self.began = self.now()
            return True
        self.left -= 1
        if self.left:
            return True
        self.answer()
        return self.begin()

    def answer(self) -> None:
        """Send the seconds since the start of the block, and free memory."""
        import torch

        self.connection.send([a - b for a, b in zip(self.now(), self.began, strict=True)])
        if self.cuda:
            torch.cuda.empty_cache()


def serve(connection: Connection, work: Work) -> None:
    """A contender's process: prepare, train in turn for each batch size, sample in turn."""
    # Always closed, so that the parent notices the failure of a thread like that of a process.
    with contextlib.closing(connection):
        compete(connection, work)


def compete(connection: Connection, work: Work) -> None:
    sys.path.extend(work.paths)
    import torch

    cuda = work.device.startswith("cuda")
    if cuda:
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    else:
        torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    maker = {"cascadezoo": Ours, "diffusers": Diffusers}.get(work.entry.name, Ddpm)
    contender = maker(work)
    connection.send(contender.info)
    turns = Turns(connection, cuda)
    for number, batch in enumerate(work.batches):
        if turns.begin():
            contender.train(batch, turns.after_step)
        if number == 0:
            while turns.begin():
                contender.sample(turns.left)
                turns.answer()


def forward_gflop(network: Any, *inputs: Any) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(*inputs)
    return counter.get_total_flops() / 1e9


def describe(work: Work, network: Any, *more: Any) -> dict[str, Any]:
    import torch

    device = torch.device(work.device)
    inputs = torch.zeros(1, 3, SIZE, SIZE, device=device), torch.full((1,), 5, device=device)
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=work.entry.precision == "bf16")
    with mixed:
        gflop = forward_gflop(network, *inputs, *more)
    return {"parameters": sum(p.numel() for p in network.parameters()), "gflop": gflop}


class Ours:
    def __init__(self, work: Work) -> None:
        import torch

        from cascadezoo import Cascade
        from cascadezoo.spec import load_spec
        from cascadezoo.train.engine import tune_backends

        self.work = work
        training: dict[str, Any] = {
            "precision": work.entry.precision,
            "losses": [],
            "phases": [{"name": "all", "train": ["image"], "steps": 2**31 - 1}],
        }
        config = {**SHAPES[work.entry.shape], "conditional": False}
        self.spec: dict[str, Any] = {
            "name": "peers",
            "data": {"source": "npz", "config": {"path": work.data}, "flip": True},
            "stages": [{"name": "image", "kind": work.kind, "config": config}],
            "training": training,
            "evaluation": {"metrics": []},
        }
        config["channels"] = self._width(config)
        self.cascade = Cascade.from_spec(load_spec(self.spec), device=torch.device(work.device))
        network = self.cascade.stage("image").network
        self.info = describe(work, network)
        tune_backends(torch.device(work.device), work.entry.precision)
        if work.entry.compile:
            self.cascade.compile("network")

    def _width(self, config: dict[str, Any]) -> int:
        """The round width with the number of parameters nearest to the peers'."""
        from cascadezoo import Cascade

        multiple = {"small": 2, "large": 4}[self.work.size]

        def count(number: int) -> int:
            config["channels"] = number * multiple
            cascade = Cascade.from_spec(self.spec, device="meta")
            return sum(p.numel() for p in cascade.parameters())

        target = PARAMETERS[self.work.size]
        above = bisect.bisect_left(range(1, 200), target, key=count) + 1
        return multiple * min(above - 1, above, key=lambda n: abs(count(n) - target))

    def train(self, batch: int, after_step: Callable[[], bool]) -> None:
        import torch

        from cascadezoo.data.loader import DeviceLoader
        from cascadezoo.errors import StoppedError
        from cascadezoo.plugins.manager import get_registry
        from cascadezoo.spec import load_spec
        from cascadezoo.train.engine import make_accelerator, pick_precision
        from cascadezoo.train.trainer import Trainer

        device = torch.device(self.work.device)
        resolved = load_spec(self.spec, settings=[f"training.batch_size={batch}"])
        data = get_registry().datasets.get("npz").entry.load()(resolved.data_config, "train")
        loader = DeviceLoader(data, batch_size=batch, seed=0, flip=True, device=device)
        precision = pick_precision(resolved.spec.training.precision, device)
        self.cascade.resolved = resolved
        # The trainer calls stop after each step, which takes turns here.
        trainer = Trainer(
            self.cascade,
            loader,
            make_accelerator(device, precision),
            graphs=device.type == "cuda" and not self.work.entry.compile,
            stop=lambda: None if after_step() else "the benchmark",
        )
        with contextlib.suppress(StoppedError):
            trainer.run()

    def sample(self, count: int) -> None:
        import torch

        options: dict[str, Any] = {"batch_size": count, "steps": self.work.sample_steps}
        bf16 = self.work.entry.precision == "bf16"
        if "precision" in inspect.signature(self.cascade.sample).parameters:
            self.cascade.sample(count, **options, precision=self.work.entry.precision)
            return
        with torch.autocast(torch.device(self.work.device).type, torch.bfloat16, enabled=bf16):
            self.cascade.sample(count, **options)


class Peer:
    """Shared by the peers' loops: batches of floats, and the context of mixed precision."""

    scale: tuple[float, float]

    def __init__(self, work: Work) -> None:
        import numpy as np
        import torch

        self.work = work
        self.device = torch.device(work.device)
        with np.load(work.data) as file:
            images = torch.from_numpy(file["images"]).permute(0, 3, 1, 2).contiguous()
        low, high = self.scale
        self.images = images.to(self.device).float() / 255 * (high - low) + low

    def batches(self, size: int) -> Iterator[Any]:
        import torch

        while True:
            order = torch.randperm(len(self.images), device=self.device)
            for rows in order.split(size):
                if len(rows) == size:
                    yield self.images.index_select(0, rows)

    def mixed(self) -> Any:
        import torch

        bf16 = self.work.entry.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bf16)


class Diffusers(Peer):
    scale = (-1.0, 1.0)

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        import torch
        from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler, UNet2DModel

        width = {"small": 32, "large": 128}[work.size]
        self.model = UNet2DModel(
            sample_size=SIZE,
            in_channels=3,
            out_channels=3,
            layers_per_block=2,
            block_out_channels=(width, 2 * width, 2 * width, 2 * width),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=None,
            downsample_padding=0,
            flip_sin_to_cos=False,
            freq_shift=1,
            norm_eps=1e-6,
            norm_num_groups=32,
        ).to(self.device)
        self.info = describe(work, self.model)
        if self.device.type == "cuda":
            self.model.to(memory_format=torch.channels_last)
        if work.entry.compile:
            self.model.compile()
        self.noise_scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
        self.pipeline = DDIMPipeline(
            unet=self.model, scheduler=DDIMScheduler.from_config(self.noise_scheduler.config)
        )
        self.pipeline.set_progress_bar_config(disable=True)

    def train(self, batch: int, after_step: Callable[[], bool]) -> None:
        import torch
        import torch.nn.functional as F
        from diffusers import UNet2DModel
        from diffusers.optimization import get_scheduler
        from diffusers.training_utils import EMAModel

        model, device = self.model, self.device
        ema_model = EMAModel(
            model.parameters(),
            decay=0.9999,
            use_ema_warmup=True,
            inv_gamma=1.0,
            power=3 / 4,
            model_cls=UNet2DModel,
            model_config=model.config,
        )
        ema_model.to(device)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
        )
        lr_scheduler = get_scheduler(
            "cosine", optimizer=optimizer, num_warmup_steps=500, num_training_steps=100_000
        )
        weight_dtype = torch.bfloat16 if self.work.entry.precision == "bf16" else torch.float32
        model.train()
        for images in self.batches(batch):
            clean_images = images.to(weight_dtype)
            noise = torch.randn(clean_images.shape, dtype=weight_dtype, device=device)
            timesteps = torch.randint(0, 1000, (batch,), device=device).long()
            noisy_images = self.noise_scheduler.add_noise(clean_images, noise, timesteps)
            with self.mixed():
                model_output = model(noisy_images, timesteps).sample
            loss = F.mse_loss(model_output.float(), noise.float())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad()
            ema_model.step(model.parameters())
            loss.detach().item()
            if not after_step():
                return

    def sample(self, count: int) -> None:
        with self.mixed():
            self.pipeline(
                batch_size=count, num_inference_steps=self.work.sample_steps, output_type="pt"
            )


class Ddpm(Peer):
    scale = (0.0, 1.0)

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        from denoising_diffusion_pytorch import GaussianDiffusion, Unet

        dim = {"small": 16, "large": 64}[work.size]
        # Its flash attention has no kernel for fp32 on a GPU.
        flash = self.device.type == "cpu" or work.entry.precision == "bf16"
        unet = Unet(dim=dim, dim_mults=(1, 2, 4, 8), flash_attn=flash).to(self.device)
        self.info = describe(work, unet)
        self.diffusion = GaussianDiffusion(
            unet, image_size=SIZE, timesteps=1000, sampling_timesteps=work.sample_steps
        ).to(self.device)

    def train(self, batch: int, after_step: Callable[[], bool]) -> None:
        import torch
        from ema_pytorch import EMA

        model = self.diffusion
        optimizer = torch.optim.Adam(model.parameters(), lr=8e-5, betas=(0.9, 0.99))
        ema = EMA(model, beta=0.995, update_every=10)
        ema.to(self.device)
        if self.work.entry.compile:
            model.model.compile()
        model.train()
        for data in self.batches(batch):
            with self.mixed():
                loss = model(data)
            loss.item()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            ema.update()
            if not after_step():
                return

    def sample(self, count: int) -> None:
        with self.mixed():
            self.diffusion.sample(batch_size=count)


# --- the process that schedules the turns


@dataclass
class Contender:
    """A contender's process and its measurements."""

    work: Work
    process: Any
    connection: Connection
    info: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None
    warm: dict[str, float] = field(default_factory=dict)
    train: dict[int, list[list[float] | None]] = field(default_factory=dict)
    sample: list[list[float] | None] = field(default_factory=list)

    @classmethod
    def start(cls, work: Work, *, one_process: bool) -> Contender:
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        if one_process:
            thread = threading.Thread(target=serve, args=(theirs, work), daemon=True)
            thread.start()
            return cls(work, None, mine)
        process = context.Process(target=serve, args=(theirs, work), daemon=True)
        process.start()
        theirs.close()
        return cls(work, process, mine)

    def send(self, message: Any) -> None:
        if self.failure is None:
            try:
                self.connection.send(message)
            except BrokenPipeError:
                self.end("ended with an error, shown above")

    def receive(self, deadline: float) -> Any:
        """The answer; None if the contender failed or the time is over."""
        if self.failure is not None:
            return None
        try:
            if self.connection.poll(max(0.0, deadline - time.monotonic())):
                return self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.end("ended with an error, shown above")
            return None
        self.end("was not ready within the budget")
        return None

    def end(self, failure: str | None = None) -> None:
        if self.failure is None and failure is not None:
            self.failure = failure
            print(f"{self.work.entry.label} {failure}", file=sys.stderr, flush=True)
        if self.process is not None:
            self.process.terminate()
            self.process.join()


def in_turn(
    contenders: list[Contender], message: Any, most: int, until: float, deadline: float
) -> list[dict[str, list[float] | None]]:
    """Run 1 to ``most`` blocks of all contenders in turn until the time is over."""
    rows: list[dict[str, list[float] | None]] = []
    longest = 0.0
    while len(rows) < most and (not rows or time.monotonic() + longest < until):
        began = time.monotonic()
        row = {}
        for contender in contenders:
            contender.send(message)
            row[contender.work.entry.label] = contender.receive(deadline)
        rows.append(row)
        longest = max(longest, time.monotonic() - began)
    return rows


def warm_up(contenders: list[Contender], what: str, first: Any, deadline: float) -> None:
    """Compile and warm up all contenders in parallel, each on its own core.

    Drops contenders that are not ready after most of the time, so that the others are measured.
    """
    began = time.monotonic()
    deadline = began + 0.7 * (deadline - began)
    for contender in contenders:
        contender.send(first)
    for contender in contenders:
        answer = contender.receive(deadline)
        if answer is not None:
            contender.warm[what] = answer[0]
    print(f"warm-up of {what}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)


def measure(works: list[Work], options: argparse.Namespace) -> list[Contender]:
    began = time.monotonic()
    deadline = began + options.budget
    contenders = [Contender.start(work, one_process=options.one_process) for work in works]
    try:
        for contender in contenders:
            contender.info = contender.receive(deadline) or {}
        print(f"started: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
        cuda = options.device.startswith("cuda")
        lead = 0 if options.small else 3 if cuda else 1
        warm_steps = 1 if options.small else 5 if cuda else 2
        for number, batch in enumerate(options.batches):
            if number and time.monotonic() > deadline - 0.1 * options.budget:
                print(f"no time left for batches of {batch}", file=sys.stderr)
                break
            warm_up(contenders, f"training, batch {batch}", (0, warm_steps), deadline)
            # The remaining tasks share the remaining time; training gets half of it.
            left = deadline - time.monotonic()
            until = time.monotonic() + left * (0.4 if number == 0 else 0.9)
            steps = block_steps(batch, options)
            rows = in_turn(contenders, (lead, steps), options.blocks, until, deadline)
            for contender in contenders:
                contender.train[batch] = [row[contender.work.entry.label] for row in rows]
                contender.send(None)
            if number == 0:
                count = options.sample_batch
                warm_up(contenders, "sampling", (0, count), deadline)
                until = time.monotonic() + (deadline - time.monotonic()) * (
                    0.5 if len(options.batches) > 1 else 0.9
                )
                rows = in_turn(contenders, (0, count), options.blocks, until, deadline)
                for contender in contenders:
                    contender.sample = [row[contender.work.entry.label] for row in rows]
                    contender.send(None)
    finally:
        for contender in contenders:
            contender.end()
    return contenders


# --- the results


def block_steps(batch: int, options: argparse.Namespace) -> int:
    """Steps of a block: fewer for larger batches, so that all blocks take a similar time."""
    return max(1, options.block * options.batches[0] // batch)


def clock(options: argparse.Namespace) -> int:
    """Index of the time that counts: wall time on a GPU, CPU time on a CPU."""
    return 0 if options.device.startswith("cuda") else 1


def spread(values: list[float], digits: int) -> str:
    if not values:
        return "-"
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def compared(ours: list[Any], theirs: list[Any], which: int) -> str:
    """Ratio of the peer's time to ours: by pairs of blocks, and of the best blocks."""
    pairs = [(a[which], b[which]) for a, b in zip(ours, theirs, strict=False) if a and b]
    if not pairs:
        return "-"
    best = min(b for _, b in pairs) / min(a for a, _ in pairs)
    return f"{spread([b / a for a, b in pairs], 2)}, best {best:.2f}"


def report(contenders: list[Contender], options: argparse.Namespace) -> list[str]:
    which = clock(options)
    unit = "wall ms" if which == 0 else "CPU ms"
    lines = [
        f"| contender | parameters | GFLOP/image | batch | {unit}/step | images/s | "
        "sampling images/s | first steps, s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in contenders:
        label = one.work.entry.label
        if not one.train:
            lines.append(f"| {label} | {one.failure or 'not measured'} | | | | | | |")
        for number, (batch, rows) in enumerate(one.train.items()):
            count = block_steps(batch, options)
            steps = [1000 * row[which] / count for row in rows if row]
            rates = [1000 * batch / step for step in steps]
            drawn = [options.sample_batch / row[which] for row in one.sample if row]
            warm = one.warm.get(f"training, batch {batch}")
            lines.append(
                f"| {label} | {one.info.get('parameters', 0):,} | {one.info.get('gflop', 0):.2f} | "
                f"{batch} | {spread(steps, 2)} | {spread(rates, 1)} | "
                f"{spread(drawn, 2) if number == 0 else ''} | "
                f"{'-' if warm is None else f'{warm:.1f}'} |"
            )
    lines += [
        "",
        "Speed relative to the peer: median (lowest-highest) of the pairs of blocks, and of the best blocks:",
        "",
    ]
    lines += ["| contender | peer | training, by batch | sampling |", "| --- | --- | --- | --- |"]
    for ours in contenders:
        for peer in contenders:
            if ours.work.entry.name != "cascadezoo" or peer.work.entry.name == "cascadezoo":
                continue
            trained = "; ".join(
                f"{batch}: {compared(rows, peer.train.get(batch, []), which)}"
                for batch, rows in ours.train.items()
            )
            sampled = compared(ours.sample, peer.sample, which)
            labels = f"{ours.work.entry.label} | {peer.work.entry.label}"
            lines.append(f"| {labels} | {trained} | {sampled} |")
    return lines


def to_json(contenders: list[Contender], options: argparse.Namespace) -> dict[str, Any]:
    import torch

    cuda = options.device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or "cpu",
        "capability": None if cuda else torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "versions": {name: version_of(name) for name in ("torch", *MODULES)},
        "clock": "wall" if cuda else "CPU",
        "options": {k: v for k, v in vars(options).items() if k not in ("json", "path")},
        "contenders": [
            {
                "label": one.work.entry.label,
                "failure": one.failure,
                **one.info,
                "first_steps_seconds": one.warm,
                "training_blocks_wall_cpu": one.train,
                "sampling_blocks_wall_cpu": one.sample,
            }
            for one in contenders
        ],
        "table": report(contenders, options),
    }


def version_of(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def write_data(folder: str) -> str:
    """Write random pixels: no measured time depends on the image content."""
    import numpy as np

    path = Path(folder) / "images.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, SIZE, SIZE, 3), dtype=np.uint8)
    np.savez(path, images=pixels)
    return str(path)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("contenders", nargs="*", help="NAME[@SHAPE][:PRECISION][:compile]")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", choices=sorted(PARAMETERS), help="2.2 or 36 million parameters")
    parser.add_argument(
        "--kind", default="flow.v1", help="the stage kind of cascadezoo; or unet-diffusion.v1"
    )
    parser.add_argument("--batches", help="batch sizes; default: 16 on a CPU, 128,512 on a GPU")
    parser.add_argument("--block", type=int, help="steps of a block")
    parser.add_argument("--blocks", type=int, help="maximum number of blocks of each contender")
    parser.add_argument("--sample-batch", type=int)
    parser.add_argument("--sample-steps", type=int, help="network evaluations of a sample")
    parser.add_argument("--budget", type=float, help="seconds of the whole run with start-up")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--compile", action="store_true", help="compile cascadezoo's network")
    parser.add_argument("--compile-peers", action="store_true")
    parser.add_argument(
        "--one-process",
        action="store_true",
        help="use threads instead of processes, for a GPU that admits one process; all "
        "contenders of cascadezoo must have the same precision",
    )
    parser.add_argument("--small", action="store_true", help="one block of one step each")
    parser.add_argument("--path", action="append", default=[], help="another folder of packages")
    parser.add_argument("--json", type=Path, help="output file; default: $OUT/peers.json")
    options = parser.parse_args()
    cuda = options.device.startswith("cuda")

    def default(name: str, small: Any, cpu: Any, gpu: Any) -> None:
        if getattr(options, name) is None:
            value = small if options.small else gpu if cuda else cpu
            setattr(options, name, value)

    default("size", "small", "small", "large")
    default("batches", "2", "16", "128,512")
    default("block", 1, 3, 20)
    default("blocks", 1, 7, 7)
    default("sample_batch", 2, 16, 256)
    default("sample_steps", 2, 10, 50)
    default("budget", 600.0, 1500.0, 60.0)
    options.batches = [int(batch) for batch in str(options.batches).split(",")]
    if options.json is None and os.environ.get("OUT"):
        options.json = Path(os.environ["OUT"]) / "peers.json"
    return options


def entries_of(options: argparse.Namespace) -> list[Entry]:
    """The contenders; a missing peer is an error only if it was requested."""
    cuda = options.device.startswith("cuda")
    requested = options.contenders
    if not requested:
        ours = ["@ddpm", "@deep"] if cuda else ["@default", "@ddpm", "@default:bf16"]
        requested = [f"cascadezoo{mark}" for mark in ours]
        requested += ["diffusers", "denoising-diffusion-pytorch"]
    entries = []
    for text in requested:
        entry = parse_entry(
            text, cuda=cuda, compile_ours=options.compile, compile_peers=options.compile_peers
        )
        if importlib.util.find_spec(MODULES[entry.name]) is None:
            missing = f"{entry.name} is not installed"
            hint = f"pip install {entry.name}, or give its folder with --path FOLDER"
            if options.contenders:
                refuse(missing, hint)
            print(f"{missing} and is skipped\nHint: {hint}", file=sys.stderr)
            continue
        entries.append(entry)
    return entries


def main() -> int:
    options = arguments()
    sys.path.extend(options.path)
    logging.getLogger("multiprocessing").setLevel(logging.ERROR)
    os.environ["TQDM_DISABLE"] = "1"
    os.environ["HF_HUB_OFFLINE"] = "1"
    if not options.device.startswith("cuda"):
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
    entries = entries_of(options)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        data = write_data(folder)
        works = [
            Work(
                entry,
                options.device,
                options.size,
                options.kind,
                tuple(options.batches),
                options.sample_steps,
                options.threads,
                data,
                tuple(options.path),
            )
            for entry in entries
        ]
        contenders = measure(works, options)
    print("\n".join(report(contenders, options)))
    print(f"total time: {time.monotonic() - began:.0f} s", file=sys.stderr)
    if options.json is not None:
        options.json.write_text(json.dumps(to_json(contenders, options), indent=2) + "\n")
    code = 1 if any(one.failure for one in contenders) else 0
    if options.one_process:
        # A running thread would make the interpreter abort at its exit.
        sys.stdout.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
