"""``check_model``: recompute the figures on a model's card."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from cascadezoo.cards.card_file import read_card
from cascadezoo.cards.check_card import card_faults, claim_faults
from cascadezoo.data.python_data import DataInput
from cascadezoo.errors import InputError, ModelError
from cascadezoo.evaluate.bench import open_bench
from cascadezoo.evaluate.card_check import CheckReport, CheckRow, check_attribution, check_figures
from cascadezoo.evaluate.options import evaluation_options
from cascadezoo.hub.locate import locate
from cascadezoo.model_folder.integrity import file_faults
from cascadezoo.model_folder.layout import CARD, METRICS, model_name, read_config
from cascadezoo.model_folder.metrics_file import read_metrics
from cascadezoo.train.engine import pick_device
from cascadezoo.train.progress import Progress, QuietProgress

__all__ = ["check_model"]


def check_model(
    model: str | Path,
    metrics: Sequence[str] | None = None,
    *,
    stages: bool = False,
    settings: Iterable[str] = (),
    trust_data: bool = False,
    batch_size: int | None = None,
    device: str = "auto",
    revision: str | None = None,
    offline: bool | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
    data: DataInput | None = None,
) -> CheckReport:
    """Recompute the figures of a model's card, each from its own record.

    The check also compares the sha256 of every file with config.json, and the values in README.md
    with metrics.json. Other text in README.md may change. A changed file does not end the check,
    but changed weights are not loaded.

    Args:
        model: the model, as in :func:`evaluate_model`.
        metrics: check only the figures of these metrics; None checks all.
        stages: also check the table of stages.
        settings: ``data.*`` changes to the spec.
        trust_data: see :func:`evaluate_model`.
        batch_size: number of images per batch.
        device: the device to use.
        revision: the revision of a repo on the Hub.
        offline: send no request.
        cache: folder for features of real images.
        progress: the progress display.
        data: real images in place of the model's dataset; see :func:`evaluate_model`.

    Raises:
        InputError: the model does not exist, or has no figures.
    """
    show = progress or QuietProgress()
    folder = locate(model, revision, offline)
    config = read_config(folder)
    sealed = [name for name in config.files if name != CARD]
    bad = {name: f for name in sealed if (f := file_faults(folder, config, [name]))}
    faults = [
        f"{name} was changed after it was sealed: {fault[name]}" for name, fault in bad.items()
    ]
    try:
        stated = read_metrics(folder)
    except ModelError as error:
        if METRICS not in config.files:
            raise
        return CheckReport(folder, model_name(config), (), (*faults, error.what))
    if stated.spec_digest != config.spec_digest:
        faults.append(f"{METRICS} belongs to a different spec than config.json")
    card = read_card(folder)
    if card is not None:
        claims = [*card_faults(card), *claim_faults(card, stated.to_dict())]
        faults += [f"{CARD}: {claim}" for claim in claims]
    figures = [f for f in stated.figures if metrics is None or f.metric in metrics]
    if metrics is not None and not figures:
        available = ", ".join(dict.fromkeys(f.metric for f in stated.figures)) or "none"
        raise InputError(
            f"the card has no figures of {', '.join(metrics)}",
            hint=f"choose from the metrics on the card: {available}",
            code="input-no-figure",
            names=tuple(metrics),
        )
    weights = [name for name in bad if name.endswith(".safetensors")]
    if weights:
        why = f"{weights[0]} was changed, so the model is not loaded"
        rows = tuple(CheckRow(figure.name, figure.value, reason=why) for figure in figures)
        return CheckReport(folder, stated.name, rows, tuple(faults))
    home = pick_device(device)
    bench = open_bench(folder, home, show, settings=settings, trust_data=trust_data, data=data)
    evaluation = (bench.resolved or bench.cascade.resolved).spec.evaluation
    defaults = evaluation_options(evaluation, batch_size=batch_size, cache=cache)
    checked = check_figures(bench, figures, defaults)
    if stages and stated.attribution:
        checked += check_attribution(bench, stated.attribution, defaults)
    return CheckReport(folder, stated.name, tuple(checked), tuple(faults))
