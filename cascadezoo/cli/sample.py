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
    precision_option,
    seed_option,
)
from cascadezoo.cli.output import clean, echo, echo_json
from cascadezoo.errors import InputError
from cascadezoo.util.numbers import human_seconds
from cascadezoo.util.processes import process_count, process_rank

if TYPE_CHECKING:
    from torch import Tensor

    from cascadezoo.cascade.cascade import Cascade
    from cascadezoo.cli.image_files import ImageFile
    from cascadezoo.model_folder.recipe import Recipe
    from cascadezoo.train.compilation import SamplingCompile


@click.command(
    "sample",
    epilog=examples(
        "cascadezoo sample runs/shapes-demo",
        "cascadezoo sample runs/shapes-demo -n 64 --label star --guidance 3 -o stars.png",
        "cascadezoo sample runs/shapes-demo --stages -n 6 -o stages.png",
        "cascadezoo sample runs/shapes-demo --trajectory -n 6 -o from-noise.png",
        "cascadezoo sample runs/shapes-demo -n 10000 --steps coarse=10 -o samples.npz",
        "cascadezoo sample --like picture.png -o again.png",
    ),
)
@model_argument(required=False)
@click.option(
    "--like",
    metavar="PICTURE",
    help="Repeat a PNG picture that this command wrote: its model, seed and settings.",
)
@click.option("--yes", is_flag=True, help="Fetch the model that the picture names.")
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
    "--sampling-schedule",
    str,
    "a name",
    "Noise levels that diffusion stages visit: trained, linear, cosine, karras, log-snr.",
)
@per_stage_option(
    "--restart",
    float,
    "a number",
    "Noise level, 0 to 1, at which diffusion stages noise their image and sample again; 0 is none.",
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
    "--option",
    "option",
    multiple=True,
    metavar="[STAGE.]NAME=VALUE",
    help="An option that stages declare: cascadezoo stages show KIND.",
)
@click.option(
    "--batch-size",
    type=Whole(1, 1_000_000),
    default=64,
    show_default=True,
    metavar="N",
    help="Images per batch; does not affect the images.",
)
@precision_option
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
@click.option(
    "--captions", is_flag=True, help="Write the class of each image below it; for a grid."
)
@click.option(
    "--columns",
    type=Whole(1, 1000),
    metavar="N",
    help="Images in a row of a grid.  [default: about square]",
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
@click.pass_context
def command(
    ctx: click.Context,
    /,
    model: str | None,
    like: str | None,
    yes: bool,
    n: int,
    seed: int,
    labels: tuple[str, ...],
    batch_size: int,
    precision: str | None,
    compile_: SamplingCompile,
    stages: bool,
    trajectory: bool,
    stage: str | None,
    captions: bool,
    columns: int | None,
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
    shape [N, H, W, C], the labels as arr_1 and their names as class_names. A PNG file states its
    model, seed and settings.
    """
    from cascadezoo.cli.image_files import format_of, open_images
    from cascadezoo.cli.model import load_model
    from cascadezoo.cli.picture_files import model_of_recipe
    from cascadezoo.cli.stage_options import read_options
    from cascadezoo.hub.locate import locate
    from cascadezoo.hub.refs import reference_of
    from cascadezoo.model_folder.layout import CONFIG, read_config
    from cascadezoo.model_folder.recipe import (
        SampleSettings,
        check_model,
        model_digest,
        read_recipe,
        recipe_of,
    )
    from cascadezoo.spec import resolve
    from cascadezoo.spec.labels import label_from_text

    if like is None and model is None:
        raise click.UsageError("give a MODEL, or --like PICTURE")
    if yes and (like is None or model is not None):
        raise click.UsageError("--yes needs --like without a MODEL")
    if stages and trajectory:
        raise click.UsageError("--stages and --trajectory exclude each other")
    if stage is not None and not trajectory:
        raise click.UsageError("--stage needs --trajectory")
    if like is not None:
        _only_like(ctx)
        recipe = read_recipe(like)
        settings = recipe.sample_settings()
        if model is None:
            folder = model_of_recipe(recipe, like, offline=offline, confirmed=yes)
        else:
            folder = locate(model, revision, offline or None)
        check_model(recipe, read_config(folder), like)
        model = model or str(recipe.reference)
        n, seed, batch_size = settings.n, recipe.seed, settings.batch_size
        labels = tuple(f"number:{label}" for label in settings.labels)
        precision = settings.precision
        stages, trajectory = (settings.strip == kind for kind in ("stages", "trajectory"))
        stage, begin, index = settings.stage, settings.first, settings.index
        captions, columns = settings.captions, settings.columns
        options = {key: getattr(settings, key) for key in options}
        if settings.negative_label is not None:
            options["negative_label"] = f"number:{settings.negative_label}"
    else:
        folder = locate(str(model), revision, offline or None)
        begin, index = 0, None
    strip = "stages" if stages else "trajectory" if trajectory else None
    config = read_config(folder)
    resolved = resolve(config.spec, source=str(folder / CONFIG), for_training=False)
    image, classes = resolved.image, resolved.num_classes
    if like is None:
        options["option"] = read_options(options["option"], resolved) or None
        _check_twice(options)
    numbers = tuple(label_from_text(label, classes, resolved.class_names) for label in labels)
    if options["negative_label"] is not None:
        options["negative_label"] = label_from_text(
            options["negative_label"], classes, resolved.class_names
        )
    path = out or f"{resolved.spec.name}-seed{seed}{f'-{strip}' if strip else ''}.png"
    what = format_of(path, strip)
    single = index is not None
    if single:
        what = _single_format(path, what)
    if captions and (what != "grid" or classes is None):
        raise click.UsageError("--captions needs a grid (a .png file) and a model with labels")
    if columns is not None and what != "grid":
        raise click.UsageError("--columns needs a grid (a .png file)")
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

    def described(first: int, count: int, index: int | None) -> Recipe:
        """The recipe of a picture of images ``first`` to ``first + count``, or of one of them."""
        stated = {
            **options,
            "n": count,
            "first": first,
            "index": index,
            "batch_size": batch_size,
            "labels": list(numbers),
            "precision": precision,
            "strip": strip,
            "stage": stage,
            "captions": captions or None,
            "columns": columns,
        }
        stated = {key: list(v) if isinstance(v, tuple) else v for key, v in stated.items()}
        stated = {key: value for key, value in stated.items() if value is not None}
        SampleSettings.model_validate(stated)
        return recipe_of(config, "sample", seed, stated, reference=reference)

    reference = reference_of(str(model), folder)
    with open_images(
        Path(path),
        what,
        n=1 if single else n,
        image=image,
        labelled=classes is not None,
        force=force,
        class_names=resolved.class_names,
        described=None if what == "npz" else described,
        span=(begin, n, batch_size, index),
        captions=captions,
        columns=columns,
    ) as images:
        cascade = load_model(folder, device, precision=precision)
        from cascadezoo.train.compilation import compile_for_sampling

        choice = compile_for_sampling(cascade, compile_, n)
        if compile_ != "no" and not quiet:
            echo(f"compiled: {choice.scope or 'nothing'} ({choice.reason})", err=True)
        batches = _Batches(cascade, strip, stage, request)
        seconds = _draw(batches, images, begin, n, batch_size, turns, quiet, index)
    n = 1 if single else n
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
            "digest": model_digest(config),
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


def _check_twice(options: Mapping[str, Any]) -> None:
    """Refuse an option that has a flag of its own and is also given by ``--option``."""
    for name in options["option"] or ():
        if options.get(name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"give {name} once: by {flag} or by --option")


def _only_like(ctx: click.Context) -> None:
    """Refuse settings beside ``--like``, which the picture states."""
    allowed = {"model", "like", "yes", "device", "out", "force", "revision", "offline", "quiet"}
    for parameter in ctx.command.params:
        name = str(parameter.name)
        given = ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
        if given and name not in {*allowed, "as_json", "compile_"}:
            raise click.UsageError(f"--like repeats all settings: leave out {parameter.opts[-1]}")


def _single_format(path: str, what: str) -> str:
    """The format of a single image of a folder that is repeated.

    Raises:
        InputError: an .npz file is requested.
    """
    if what == "npz":
        raise InputError(
            f"a single picture is repeated as a .png file, not {path}",
            hint="-o again.png",
            code="input-like-suffix",
            path=path,
        )
    return "folder" if what == "folder" else "single"


def _request(options: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of ``Cascade.sample``; the model's defaults apply to the others."""
    values = {key: value for key, value in options.items() if value is not None}
    values |= values.pop("option", {})
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
    begin: int,
    n: int,
    batch_size: int,
    turns: tuple[int, ...],
    quiet: bool,
    index: int | None,
) -> float:
    """Sample all batches, cycling through the labels; returns the seconds of sampling.

    Args:
        batches: the sampler.
        images: the output.
        begin: the number of the first image.
        n: the number of images.
        batch_size: the number of images of a batch.
        turns: the labels.
        quiet: show no progress.
        index: the only image that is written; None writes all.
    """
    from cascadezoo.data.pixels import to_uint8
    from cascadezoo.evaluate.shared_sampling import SharedSampling
    from cascadezoo.train.progress import make_progress

    progress = make_progress(quiet)
    seconds = 0.0
    shared = None
    if process_count() > 1:
        shared = SharedSampling(batches.last(turns), begin + n, batch_size)
    try:
        progress.task(f"sampling {n} images", n)
        for first in range(begin, begin + n, batch_size):
            count = min(batch_size, begin + n - first)
            labels = _labels(turns, first, count)
            began = time.monotonic()
            if shared is not None:
                outputs = {batches.shown[-1]: shared(first, count)}
            else:
                outputs = batches.draw(first, count, labels)
            rows = {name: to_uint8(part).cpu() for name, part in outputs.items()}
            seconds += time.monotonic() - began
            if index is not None:
                rows = {name: part[index : index + 1] for name, part in rows.items()}
            images.add(rows, labels)
            progress.advance(first - begin + count)
    finally:
        if shared is not None:
            shared.close()
        progress.close()
    return seconds
