"""``cascadezoo sample``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cascadezoo.cli.completion import complete_labels, complete_stages
from cascadezoo.cli.options import (
    Numbers,
    Whole,
    compile_option,
    device_option,
    examples,
    hub_options,
    json_option,
    model_argument,
    per_stage_option,
    seed_option,
)
from cascadezoo.cli.output import clean, echo, echo_json
from cascadezoo.util.numbers import human_seconds
from cascadezoo.util.processes import process_count, process_rank

if TYPE_CHECKING:
    from torch import Tensor

    from cascadezoo.cascade.cascade import Cascade
    from cascadezoo.cli.image_files import ImageFile
    from cascadezoo.train.compilation import SamplingCompile


@click.command(
    "sample",
    epilog=examples(
        "cascadezoo sample runs/shapes-demo",
        "cascadezoo sample runs/shapes-demo -n 64 --label star --guidance 3 -o stars.png",
        "cascadezoo sample runs/shapes-demo --stages -n 6 -o stages.png",
        "cascadezoo sample runs/shapes-demo --trajectory -n 6 -o from-noise.png",
        "cascadezoo sample runs/shapes-demo -n 10000 --steps coarse=10 -o samples.npz",
    ),
)
@model_argument()
@click.option(
    "-n",
    "--count",
    "n",
    type=Whole(1, 10_000_000),
    default=16,
    show_default=True,
    metavar="N",
    help="Number of images.",
)
@seed_option("The same seed gives the same images.", default=0)
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="L",
    shell_complete=complete_labels,
    help="A class to draw, by name or number; several are used in turn.  [default: all]",
)
@per_stage_option(
    "--steps",
    int,
    "a whole number",
    "Steps of iterative stages: 1 or more; for diffusion at most its timesteps.",
)
@per_stage_option(
    "--guidance", float, "a number", "Scale of classifier-free guidance: 0 to 1000; 1 is none."
)
@click.option(
    "--guidance-interval",
    type=Numbers(0.0, 1.0, 2),
    metavar="LOW,HIGH",
    help="Apply guidance only between these noise levels, 0 to 1.",
)
@click.option(
    "--negative-label",
    metavar="L",
    shell_complete=complete_labels,
    help="The class that guidance steers away from, by name or number.  [default: none]",
)
@per_stage_option(
    "--sampler", str, "a name", "Sampler of diffusion and flow stages: ddim, heun, ..."
)
@per_stage_option(
    "--eta", float, "a number", "Noise that DDIM adds: 0 (none) to 1 (as much as DDPM)."
)
@per_stage_option(
    "--s",
    float,
    "a number",
    "Noise level of conditioning augmentation in super-resolution: 0 to the stage's s_max.",
)
@click.option(
    "--truncated/--no-truncated",
    default=None,
    help="Stop the previous stage at level s, or finish its image and add noise again.  "
    "[default: the model's]",
)
@click.option(
    "--batch-size",
    type=Whole(1, 1_000_000),
    default=64,
    show_default=True,
    metavar="N",
    help="Images per batch; does not affect the images.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    help="Precision of the weights and of the networks' arithmetic; fp16 needs a GPU.  "
    "[default: fp32]",
)
@compile_option
@click.option("--stages", is_flag=True, help="Show the output of each stage side by side.")
@click.option(
    "--trajectory",
    is_flag=True,
    help="Show the steps of a stage from noise to image, one row each.",
)
@click.option(
    "--stage",
    metavar="NAME",
    shell_complete=complete_stages,
    help="The stage for --trajectory.  [default: the generator]",
)
@device_option()
@click.option(
    "-o",
    "--out",
    metavar="PATH",
    help="A .png (grid), an .npz, or a folder/ of PNG files.  [default: NAME-seedN.png]",
)
@click.option("--force", is_flag=True, help="Replace files in a folder.")
@hub_options
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@json_option
def command(
    model: str,
    n: int,
    seed: int,
    labels: tuple[str, ...],
    batch_size: int,
    precision: str | None,
    compile_: SamplingCompile,
    stages: bool,
    trajectory: bool,
    stage: str | None,
    device: str,
    out: str | None,
    force: bool,
    revision: str | None,
    offline: bool,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Draw images from a model.

    MODEL is a run folder of a finished build, a model folder, the name of a zoo model, or a repo
    on the Hub: org/name, org/name@revision. An .npz file contains the images as arr_0, uint8 of
    shape [N, H, W, C], the labels as arr_1 and their names as class_names.
    """
    from cascadezoo.cli.image_files import format_of, open_images
    from cascadezoo.cli.model import load_model
    from cascadezoo.hub.locate import locate
    from cascadezoo.model_folder.layout import CONFIG, read_config
    from cascadezoo.spec import resolve
    from cascadezoo.spec.labels import label_from_text

    if stages and trajectory:
        raise click.UsageError("--stages and --trajectory exclude each other")
    if stage is not None and not trajectory:
        raise click.UsageError("--stage needs --trajectory")
    strip = "stages" if stages else "trajectory" if trajectory else None
    folder = locate(model, revision, offline or None)
    spec = read_config(folder).spec
    resolved = resolve(spec, source=str(folder / CONFIG), for_training=False)
    image, classes = resolved.image, resolved.num_classes
    numbers = tuple(label_from_text(label, classes, resolved.class_names) for label in labels)
    if options["negative_label"] is not None:
        options["negative_label"] = label_from_text(
            options["negative_label"], classes, resolved.class_names
        )
    path = out or f"{resolved.spec.name}-seed{seed}{f'-{strip}' if strip else ''}.png"
    what = format_of(path, strip)
    turns = numbers or tuple(range(classes or 0))
    request = _request(options) | {"seed": seed}
    if process_count() > 1:
        if strip is not None:
            raise click.UsageError(f"--{strip} needs a single process")
        from cascadezoo.train.engine import pick_device
        from cascadezoo.util.processes import join

        join(pick_device(device))
    if process_rank() > 0:
        # The first process writes the images of all.
        from cascadezoo.evaluate.shared_sampling import SharedSampling

        cascade = load_model(folder, device, precision=precision)
        SharedSampling.serve(_Batches(cascade, None, None, request).last(turns))
        return
    with open_images(
        Path(path),
        what,
        n=n,
        image=image,
        labelled=classes is not None,
        force=force,
        class_names=resolved.class_names,
    ) as images:
        cascade = load_model(folder, device, precision=precision)
        from cascadezoo.train.compilation import compile_for_sampling

        choice = compile_for_sampling(cascade, compile_, n)
        if compile_ != "no" and not quiet:
            echo(f"compiled: {choice.scope or 'nothing'} ({choice.reason})", err=True)
        batches = _Batches(cascade, strip, stage, request)
        seconds = _draw(batches, images, n, batch_size, turns, quiet)
    rate = n / max(seconds, 1e-9)
    if as_json:
        data = {
            "model": resolved.spec.name,
            "folder": str(folder),
            "output": path,
            "format": what,
            "n": n,
            "seed": seed,
            "labels": _listed(numbers, resolved.class_names),
            "precision": precision or "fp32",
            "compiled": choice.scope,
            "size": image.size,
            "channels": image.channels,
            "seconds": round(seconds, 3),
            "images_per_second": round(rate, 2),
        }
        echo_json(data)
    else:
        images_of = f"{n} image{'s' * (n != 1)} of {image}"
        speed = f"{human_seconds(seconds)}, {rate:.0f} images/s"
        echo(f"wrote {images_of} to {clean(path)} ({speed})")


def _listed(
    numbers: Sequence[int], names: Sequence[str] | None
) -> list[dict[str, int | str | None]] | None:
    """The requested labels for ``--json``; None for all labels in turn."""
    rows = [{"label": number, "name": names[number] if names else None} for number in numbers]
    return rows or None


def _request(options: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of ``Cascade.sample``; the model's defaults apply to the others."""
    values = {key: value for key, value in options.items() if value is not None}
    request: dict[str, Any] = {
        key: values.pop(key) for key in ("steps", "guidance", "sampler") if key in values
    }
    return {**request, "options": values}


class _Batches:
    """Samples batches: the images, the output of each stage, or the trajectory of one stage."""

    def __init__(
        self, cascade: Cascade, strip: str | None, stage: str | None, request: Mapping[str, Any]
    ) -> None:
        from cascadezoo.report.trajectory import watched_stage

        self.cascade = cascade
        self.request = request
        self.watched = watched_stage(cascade, stage) if strip == "trajectory" else None
        staged = strip == "stages"
        shown = [s.name for s in cascade.resolved.stages if staged and not s.output.latent]
        self.shown = shown or cascade.names[-1:]

    def draw(self, first: int, count: int, labels: list[int] | None) -> dict[str, Tensor]:
        """Images [count, C, H, W] by the name of their stage or step."""
        request = {**self.request, "first": first, "labels": labels}
        if self.watched is not None:
            from cascadezoo.report.trajectory import sample_trajectory

            return sample_trajectory(self.cascade, count, stage=self.watched, options=request)
        if self.shown == self.cascade.names[-1:]:
            return {self.shown[0]: self.cascade.sample(count, batch_size=count, **request)}
        outputs = self.cascade.sample(count, batch_size=count, return_stages=True, **request)
        return {name: outputs[name] for name in self.shown}

    def last(self, turns: Sequence[int]) -> Callable[[int, int], Tensor]:
        """A function that draws images of the last stage, cycling through the labels."""

        def sample(first: int, count: int) -> Tensor:
            return self.draw(first, count, _labels(turns, first, count))[self.shown[-1]]

        return sample


def _labels(turns: Sequence[int], first: int, count: int) -> list[int] | None:
    return [turns[i % len(turns)] for i in range(first, first + count)] if turns else None


def _draw(
    batches: _Batches,
    images: ImageFile,
    n: int,
    batch_size: int,
    turns: tuple[int, ...],
    quiet: bool,
) -> float:
    """Sample all batches, cycling through the labels; returns the seconds of sampling."""
    from cascadezoo.data.pixels import to_uint8
    from cascadezoo.evaluate.shared_sampling import SharedSampling
    from cascadezoo.train.progress import make_progress

    progress = make_progress(quiet)
    seconds = 0.0
    shared = None
    if process_count() > 1:
        shared = SharedSampling(batches.last(turns), n, batch_size)
    try:
        progress.task(f"sampling {n} images", n)
        for first in range(0, n, batch_size):
            count = min(batch_size, n - first)
            labels = _labels(turns, first, count)
            began = time.monotonic()
            if shared is not None:
                outputs = {batches.shown[-1]: shared(first, count)}
            else:
                outputs = batches.draw(first, count, labels)
            rows = {name: to_uint8(part).cpu() for name, part in outputs.items()}
            seconds += time.monotonic() - began
            images.add(rows, labels)
            progress.advance(first + count)
    finally:
        if shared is not None:
            shared.close()
        progress.close()
    return seconds
