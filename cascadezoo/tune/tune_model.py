"""``tune_model``: measure a trained model under many sampling settings."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.base import ImageData
from cascadezoo.data.pixels import to_float
from cascadezoo.data.split import load_split
from cascadezoo.errors import InputError
from cascadezoo.evaluate.evaluate_sampler import evaluate_kid
from cascadezoo.evaluate.features.base import FeatureExtractor, load_extractor
from cascadezoo.evaluate.metrics.kid import SUBSETS, default_subset_size
from cascadezoo.evaluate.options import EvaluationOptions, evaluation_options
from cascadezoo.evaluate.real_features import choose_real
from cascadezoo.hub.locate import locate
from cascadezoo.model_folder.integrity import require_writable
from cascadezoo.model_folder.trained_spec import trained_spec
from cascadezoo.report.tuning_results import TuneRow, TuneTable
from cascadezoo.train.engine import pick_device
from cascadezoo.train.progress import Progress, QuietProgress
from cascadezoo.tune.grid import Parameter, SettingGrid, make_grid, request_of, show
from cascadezoo.tune.tune_folder import TuneFolder, check_storable, write_defaults
from cascadezoo.tune.upstream_cache import Upstream

__all__ = ["TuneResult", "tune_model"]


@dataclass(frozen=True, slots=True)
class TuneResult:
    """The result of a search.

    Args:
        table: every setting with its figure.
        folder: the folder of the table and the plot.
        model: the model folder.
        written: whether the best setting was stored as the model's defaults.
        seconds: duration of the search.
    """

    table: TuneTable
    folder: Path
    model: Path
    written: bool
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The result as ``--json`` prints it."""
        return {
            **self.table.to_dict(),
            "folder": str(self.folder),
            "model": str(self.model),
            "written": self.written,
            "seconds": round(self.seconds, 3),
        }


def tune_model(
    model: str | Path,
    over: Sequence[str],
    *,
    values: Mapping[str, Sequence[str]] | None = None,
    n: int = 1000,
    extractor: str = "small",
    settings: Iterable[str] = (),
    trust_data: bool = False,
    seed: int | None = None,
    upstream: Literal["generated", "real"] = "generated",
    write: bool = False,
    out: str | Path | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> TuneResult:
    """Search the sampling settings of a trained model for the lowest KID.

    All settings sample from the same noise. Images of the first stages are sampled once for all
    settings that differ only in later stages, unless a truncated stage requires other images.

    Args:
        model: a run folder of a finished build, or a model folder.
        over: the parameters: ``s``, ``steps``, ``guidance``, ``sampler``, ``eta``, ``restart``,
            ``sampling_schedule``, ``truncated``; ``STAGE.NAME`` for only one stage.
        values: the values of each parameter as text; None uses values that suit the stage's
            config.
        n: number of images for each setting.
        extractor: the registered feature extractor.
        settings: ``data.*`` and ``evaluation.*`` changes to the spec, ``path=value``: the
            location of the images, the split to compare with.
        trust_data: also open files that the model's spec names; see
            :func:`~cascadezoo.evaluate.evaluate_model.evaluate_model`.
        seed: seed of the noise; None uses the spec's ``evaluation.seed``.
        upstream: ``real`` gives the first tuned stage true downsampled images (tables 2b and 3 of
            Ho et al. 2021) instead of the output of the stages before it.
        write: store the best setting as the model's sampling defaults.
        out: the folder of the table and the plot; None is ``runs/tune-NAME``.
        batch_size: number of images per batch; None uses the spec's.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        progress: the progress display.

    Raises:
        InputError: a parameter, value, dataset or folder is invalid; raised before the search.
    """
    began = time.monotonic()
    home = locate(model)
    config = require_writable(home, model) if write else None
    resolved = trained_spec(home, settings, trust_data=trust_data)
    folder = TuneFolder(
        Path(out) if out is not None else Path("runs") / f"tune-{resolved.spec.name}"
    )
    cascade = Cascade.from_pretrained(home, device=pick_device(device))
    cascade.require_memory()
    real_upstream = upstream == "real"
    grid = make_grid(cascade, over, values, skip=cascade.names[:1] if real_upstream else ())
    stages = [name for p in grid.parameters for name in p.stages]
    numbers = sorted(cascade.names.index(name) for name in stages)
    _try_settings(cascade, grid, numbers[0] if real_upstream else 0)
    if write:
        if real_upstream:
            raise InputError(
                "--write cannot store settings that were searched with real upstream images",
                hint="leave out --write or --upstream real",
                code="input-tune-upstream-real",
            )
        check_storable(cascade, grid.parameters)
    evaluation = resolved.spec.evaluation
    real = load_split(resolved, evaluation.split)
    # A search has its own subsets and precision, which differ from those of the spec's figures.
    options = evaluation_options(
        evaluation,
        extractor=extractor,
        n=n,
        seed=seed,
        subsets=SUBSETS,
        subset_size=default_subset_size(n, len(real)),
        batch_size=batch_size,
        precision="fp32",
    )
    upstream_images, labels = None, None
    if real_upstream:
        images, labels = _real_upstream(cascade, real, numbers[0], n)
        upstream_images = (numbers[0], images)
    show_progress = progress or QuietProgress()
    search = _Search(
        cascade=cascade,
        grid=grid,
        real=real,
        options=options,
        extractor=load_extractor(options.extractor, device=cascade.device),
        upstream=Upstream(
            cascade,
            options,
            kept_to=numbers[-1],
            real=upstream_images,
            labels=labels,
            sampled=show_progress.advance,
        ),
        note="upstream: real images" if real_upstream else None,
        progress=show_progress,
    )
    rows = search.run()
    table = TuneTable(
        model=resolved.spec.name,
        upstream=upstream,
        fed_to=cascade.names[numbers[0]] if real_upstream else None,
        before=_defaults(cascade, grid.parameters),
        rows=rows,
    )
    folder.write(table)
    if config is not None:
        write_defaults(home, config, cascade, grid, table.best, resolved.data_info)
    return TuneResult(table, folder.path, home, write, time.monotonic() - began)


@dataclass(slots=True)
class _Search:
    cascade: Cascade
    grid: SettingGrid
    real: ImageData
    options: EvaluationOptions
    extractor: FeatureExtractor
    upstream: Upstream
    note: str | None
    progress: Progress

    def run(self) -> tuple[TuneRow, ...]:
        rows = []
        count = len(self.grid.settings)
        for number, setting in enumerate(self.grid.settings):
            text = ", ".join(f"{name} {show(value)}" for name, value in setting.items())
            self.progress.task(f"{number + 1}/{count}  {text}", self.options.n)
            sample = self.upstream.sample_fn(self.grid.options(setting))
            figure = evaluate_kid(sample, self.real, self.options, extractor=self.extractor)
            figure = figure.model_copy(update={"note": "; ".join(filter(None, (text, self.note)))})
            rows.append(TuneRow(dict(setting), figure, self.upstream.seconds))
            self.progress.say(f"{text}: KID x 1000 {figure.value * 1000:.2f}")
        return tuple(rows)


def _real_upstream(
    cascade: Cascade, real: ImageData, place: int, n: int
) -> tuple[Tensor, list[int] | None]:
    """True images as the stage at ``place`` receives them, and their labels.

    They differ from the images of the comparison if there are enough images.
    """
    if n > len(real):
        raise InputError(
            f"{n} real images were requested, but the {real.split} split has {len(real)}",
            hint=f"use -n {len(real)}, or --set evaluation.split=train",
            code="input-too-few-images",
            count=len(real),
            needed=n,
        )
    rows = choose_real(len(real), len(real))[-n:]
    parts = []
    with torch.no_grad():
        for first in range(0, n, 256):
            images = to_float(torch.from_numpy(real.images[rows[first : first + 256]]))
            parts.append(cascade.targets(images.to(cascade.device))[place - 1].cpu())
    labels = None
    if cascade.resolved.num_classes is not None and real.labels is not None:
        labels = [int(label) for label in real.labels[rows]]
    return torch.cat(parts), labels


class _BegunError(Exception):
    """A stage has taken its first step, so it supports its options."""


def _try_settings(cascade: Cascade, grid: SettingGrid, first: int) -> None:
    """Run one step of each stage with each of its options before the long search.

    Args:
        cascade: the model.
        grid: the search grid.
        first: the number of the first stage that is run.

    Raises:
        SampleError: a stage rejects a setting.
    """

    def begun(_stage: str, _state: Tensor) -> None:
        raise _BegunError

    seen: list[dict[str, Any]] = []
    for setting in grid.settings:
        for name, options in grid.options(setting).items():
            # Only sampling the whole cascade shows what a truncated stage requests of earlier ones.
            whole = bool(options.get("truncated")) and cascade.names.index(name) > first
            row = grid.options(setting) if whole else {name: options}
            if row in seen:
                continue
            seen.append(row)
            with contextlib.suppress(_BegunError):
                shape = cascade.stage(name).geometry.input
                if whole or shape is None:
                    cascade.sample(1, watch=begun, **request_of(row))
                else:
                    image = torch.zeros(1, shape.channels, shape.size, shape.size)
                    cascade.sample_from(name, image, watch=begun, **request_of(row))


def _defaults(cascade: Cascade, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """The model's present sampling settings, as far as they are fields of its configs."""
    return {
        p.name: getattr(cascade.stage(p.stages[0]).config, p.key)
        for p in parameters
        if hasattr(cascade.stage(p.stages[0]).config, p.key)
    }
