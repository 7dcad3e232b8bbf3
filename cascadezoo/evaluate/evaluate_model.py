"""``evaluate_model``: figures of an existing model."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from cascadezoo._version import __version__
from cascadezoo.cards.card_file import new_card, read_card
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.cascade.stage_costs import stage_rows
from cascadezoo.data.python_data import DataInput
from cascadezoo.data.python_spec import SOURCE
from cascadezoo.errors import (
    CascadezooError,
    InputError,
    ModelError,
    PluginError,
    UnknownNameError,
)
from cascadezoo.evaluate.bench import UnmeasuredMetric, open_bench
from cascadezoo.evaluate.evaluate_metrics import sampler
from cascadezoo.evaluate.features.base import Precision
from cascadezoo.evaluate.metrics.base import load_metric
from cascadezoo.evaluate.options import evaluation_options
from cascadezoo.evaluate.shared_sampling import SharedSampling
from cascadezoo.hub.locate import locate
from cascadezoo.model_folder.figures import Figure
from cascadezoo.model_folder.integrity import replace_files, require_writable
from cascadezoo.model_folder.layout import (
    CARD,
    METRICS,
    ModelConfig,
    model_name,
    read_config,
)
from cascadezoo.model_folder.metrics_file import AttributionRow, MetricsFile, read_metrics
from cascadezoo.model_folder.reproduction import SPEED
from cascadezoo.model_folder.trained_spec import published_spec
from cascadezoo.plugins.manager import get_registry
from cascadezoo.spec.configs import DataConfig
from cascadezoo.train.compilation import SamplingCompile, compile_for_sampling
from cascadezoo.train.engine import pick_device
from cascadezoo.train.progress import Progress, QuietProgress
from cascadezoo.util.processes import join, process_rank

__all__ = ["Evaluation", "evaluate_model"]

Split = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of an evaluation.

    Args:
        model: the model folder.
        name: the model's name.
        figures: the measured figures, including the sampling speed if images were drawn.
        attribution: the quality of each stage on real and on generated input; None if it was not
            requested or cannot be measured.
        advice: the stage to work on; None without an attribution.
        problems: the metrics that cannot be measured, with the reasons.
        refused: the names of these metrics that were requested by name.
        seconds: duration of the evaluation.
        saved: whether the figures were written into the model's metrics.json and onto its card.
        kept: edited parts of the card, which were not changed.
        compiled: the compiled part of the networks; None if they ran uncompiled.
    """

    model: Path
    name: str
    figures: tuple[Figure, ...]
    attribution: tuple[AttributionRow, ...] | None
    advice: str | None
    problems: tuple[UnmeasuredMetric, ...]
    refused: tuple[str, ...]
    seconds: float
    saved: bool = False
    kept: tuple[str, ...] = ()
    compiled: str | None = None

    @property
    def measured(self) -> bool:
        """Whether anything other than the sampling speed was measured."""
        return self.attribution is not None or any(f.metric != SPEED for f in self.figures)

    @property
    def ok(self) -> bool:
        """Whether something was measured, including everything that was requested by name."""
        return self.measured and not self.refused

    def to_dict(self) -> dict[str, Any]:
        """The result as ``--json`` prints it."""
        rows = None
        if self.attribution is not None:
            rows = [row.model_dump(mode="json") for row in self.attribution]
        return {
            "model": str(self.model),
            "name": self.name,
            "figures": [figure.to_dict() for figure in self.figures],
            "attribution": rows,
            "advice": self.advice,
            "problems": [
                {"metric": p.metric, "why": p.error.what, "hint": p.error.hint}
                for p in self.problems
            ],
            "ok": self.ok,
            "seconds": round(self.seconds, 3),
            "saved": self.saved,
            "kept": list(self.kept),
            "compiled": self.compiled,
        }


def evaluate_model(
    model: str | Path,
    metrics: Sequence[str] | Literal["all"] | None = None,
    *,
    n: int | None = None,
    seed: int | None = None,
    extractor: str | None = None,
    precision: Precision | None = None,
    split: Split | None = None,
    stages: bool = False,
    settings: Iterable[str] = (),
    trust_data: bool = False,
    batch_size: int | None = None,
    device: str = "auto",
    compile_networks: SamplingCompile = "no",
    save: bool = False,
    revision: str | None = None,
    offline: bool | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
    data: DataInput | None = None,
) -> Evaluation:
    """Evaluate a trained model. Metrics that cannot be measured are reported with the reason.

    Under torchrun all processes draw images; the first one measures, saves and returns the figures.

    Args:
        model: a run folder, a model folder, a zoo name, or a repo on the Hub.
        metrics: names of registered metrics; ``all`` means every metric; None means the metrics of
            the model's spec, or none together with ``stages``.
        n: number of sampled images; None uses the spec's ``evaluation.samples``.
        seed: seed of the images and of the metrics; None uses the spec's.
        extractor: the feature extractor; None uses the spec's.
        precision: the precision of the extractor; None uses the spec's.
        split: the real images to compare with; None uses the spec's.
        stages: also measure each stage, on real and on generated upstream images.
        settings: ``path=value`` changes to ``data.*`` and ``evaluation.*`` of the spec, for example
            the path of the images on this machine.
        trust_data: also open files that the model's spec names. Without it such files are opened
            only for models that were built here, or if ``settings`` names them.
        batch_size: number of images per batch; None uses the spec's.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        compile_networks: compile them by ``blocks``, each ``network`` as one, or ``auto``, which
            compiles blocks if the samples are many enough to gain time. Compiled networks round
            differently.
        save: write the figures into the model's metrics.json, replacing figures of the same names,
            and update its card.
        revision: the revision of a repo on the Hub.
        offline: send no request.
        cache: folder for features of real images; None uses the default folder.
        progress: the progress display.
        data: real images in place of the model's dataset, as in
            :func:`~cascadezoo.build_cascade`; data without splits are those of ``split``. A model
            that was trained on given images accepts only the same ones.

    Raises:
        DataError: ``data`` cannot be used, or are not the images of the model's training.
        InputError: the model, metric, extractor or setting does not exist; ``save`` was given for
            a model that cannot be changed, or with images of another dataset.
    """
    began = time.monotonic()
    show = progress or QuietProgress()
    folder = locate(model, revision, offline)
    config = require_writable(folder, model) if save else read_config(folder)
    changes = list(settings)
    named = () if metrics is None or metrics == "all" else tuple(metrics)
    for name in named:
        load_metric(name)  # fail early on an unknown name
    if save and data is not None and not _are_own(data, config):
        raise InputError(
            "figures on other images are not written onto the card of the model",
            hint="leave out save or data",
            code="input-save-other-data",
        )
    bench = open_bench(
        folder,
        pick_device(device),
        show,
        settings=changes,
        trust_data=trust_data,
        data=data,
        split=split,
    )
    evaluation = (bench.resolved or bench.cascade.resolved).spec.evaluation
    options = evaluation_options(
        evaluation,
        extractor=extractor,
        n=n,
        seed=seed,
        batch_size=batch_size,
        precision=precision,
        split=split,
        cache=cache,
    )
    if options.subset_size != evaluation.subset_size:
        show.say(
            f"using subsets of {options.subset_size}: n = {options.n} is less than the subset size "
            "of the spec"
        )
    choice = compile_for_sampling(bench.cascade, compile_networks, options.n)
    if compile_networks != "no":
        show.say(f"compiled: {choice.scope or 'nothing'} ({choice.reason})")
    bench.extractor(options.extractor)
    names = list(dict.fromkeys(named))
    if metrics == "all":
        names = get_registry().metrics.names()
    elif metrics is None and not stages:
        names = list(dict.fromkeys(evaluation.metrics))
    problems: list[UnmeasuredMetric] = []
    known = [name for name in names if _is_known(name, problems)]
    figures: list[Figure] = []
    join(bench.cascade.device)
    draw = sampler(bench.cascade, options.seed)
    if process_rank() > 0:
        SharedSampling.serve(draw)
    else:
        with SharedSampling(draw, options.n, options.batch_size) as shared:
            if known:
                figures, unmeasured = bench.measure(known, options, shared)
                problems += unmeasured
    rows, advice = None, None
    if stages and process_rank() == 0:
        metric = next((name for name in names if name in ("kid", "fid")), "kid")
        try:
            rows, advice = bench.attribute(replace(options, subset_size=None), metric)
        except CascadezooError as error:
            problems.append(UnmeasuredMetric("stages", error))
    explicit = {*named, "stages"}
    refused = tuple(p.metric for p in problems if p.metric in explicit)
    result = Evaluation(
        model=folder,
        name=model_name(config),
        figures=tuple(figures),
        attribution=None if rows is None else tuple(rows),
        advice=advice,
        problems=tuple(problems),
        refused=refused,
        seconds=time.monotonic() - began,
        compiled=choice.scope,
    )
    save = save and result.measured and process_rank() == 0
    return _save(bench.cascade, config, result) if save else result


def _are_own(data: DataInput, config: ModelConfig) -> bool:
    """Whether given images can only be those of the model's training."""
    row = config.spec.get("data", {})
    return bool(row.get("source") == SOURCE) and not isinstance(data, DataConfig)


def _is_known(name: str, problems: list[UnmeasuredMetric]) -> bool:
    """Whether a metric of the spec is registered; its plugin may be missing."""
    try:
        load_metric(name)
    except (UnknownNameError, InputError, PluginError) as error:
        problems.append(UnmeasuredMetric(name, error))
        return False
    return True


def _save(cascade: Cascade, config: ModelConfig, result: Evaluation) -> Evaluation:
    """Write metrics.json, the card and config.json with their new sha256 in one step."""
    folder = result.model
    measured, config = config, read_config(folder)
    weights = [name for name in measured.files if name.endswith(".safetensors")]
    if measured.spec_digest != config.spec_digest or any(
        measured.files[name] != config.files.get(name) for name in weights
    ):
        raise ModelError(
            f"another command replaced the model in {folder} during the evaluation",
            hint="nothing was written; run the same command again",
            code="model-changed-meanwhile",
            path=folder,
        )
    if METRICS in config.files:
        previous = read_metrics(folder)
    else:
        previous = MetricsFile(
            name=result.name,
            spec_digest=config.spec_digest,
            environment={"cascadezoo": __version__, "torch": torch.__version__},
        )
    new = {figure.name: figure for figure in result.figures}
    figures = [new.pop(figure.name, figure) for figure in previous.figures]
    settled = {p.metric for p in result.problems} | {f.metric for f in result.figures}
    if result.attribution is not None:
        settled.add("stages")
    problems = [row for row in previous.problems if row.metric.partition(":")[0] not in settled]
    updated = previous.model_copy(
        update={
            "figures": [*figures, *new.values()],
            "stages": stage_rows(cascade),
            "attribution": previous.attribution
            if result.attribution is None
            else list(result.attribution),
            "problems": [*problems, *(problem.row() for problem in result.problems)],
        }
    )
    spec = published_spec(folder, config)
    card = new_card(read_card(folder), spec, updated.to_dict())
    files = {METRICS: updated.to_json().encode(), CARD: card.text.encode()}
    replace_files(folder, config, files)
    return replace(result, saved=True, kept=card.kept)
