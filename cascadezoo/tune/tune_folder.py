"""What a search leaves behind: its folder, and, where asked for, the model's new defaults."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cascadezoo.cards.card_file import new_card, read_card
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.errors import InputError, RunFolderError, SpecError
from cascadezoo.model_folder.figures import Figure
from cascadezoo.model_folder.integrity import refuse_bundled, replace_files
from cascadezoo.model_folder.layout import CARD, METRICS, SAMPLES, ModelConfig
from cascadezoo.model_folder.metrics_file import MetricsFile, read_metrics
from cascadezoo.model_folder.reproduction import TUNED_BEFORE
from cascadezoo.report.images import samples_picture
from cascadezoo.report.tuning_results import (
    Tried,
    TuneTable,
    draw_tuning,
    tuning_csv,
    tuning_markdown,
)
from cascadezoo.spec import CascadeSpec, resolve
from cascadezoo.spec.configs import DataInfo
from cascadezoo.tune.grid import Parameter, SettingGrid, show
from cascadezoo.util.files import write_atomically

__all__ = ["TuneFolder", "check_storable", "write_defaults"]

SHOWN = 36


class TuneFolder:
    """The folder of the table and the plot; found to be writable before the search begins.

    Args:
        path: made if it is not there. An earlier search in it is replaced, nothing else.

    Raises:
        InputError: it is inside a model that ships with cascadezoo.
        RunFolderError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        refuse_bundled(path)
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe = path / f".write-test.{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise _unwritable(path, error) from error

    def write(self, table: TuneTable) -> None:
        """Write tune.json, tune.csv, TUNE.md and tune.png, each whole."""
        picture = draw_tuning(table)
        try:
            write_atomically(self.path / "tune.json", _json(table.to_dict()))
            write_atomically(self.path / "tune.csv", tuning_csv(table).encode())
            write_atomically(self.path / "TUNE.md", tuning_markdown(table).encode())
            write_atomically(self.path / "tune.png", picture)
        except OSError as error:
            raise _unwritable(self.path, error) from error


def check_storable(cascade: Cascade, parameters: Sequence[Parameter]) -> None:
    """Check before the search that every setting can become a default of the model.

    Raises:
        InputError: a stage's config has no such field, or does not take one of the values.
    """
    for parameter in parameters:
        for name in parameter.stages:
            if parameter.key not in type(cascade.stage(name).config).model_fields:
                raise InputError(
                    f"{parameter.key} of stage {name!r} cannot be stored: its config has no such "
                    "field",
                    hint=f"leave --write out, or {parameter.name} out of --over",
                    code="input-tune-no-field",
                    name=name,
                    option=parameter.key,
                )
        for value in parameter.values:
            options = {name: {parameter.key: value} for name in parameter.stages}
            try:
                _with_defaults(cascade, options)
            except SpecError as error:
                problem = error.problems[0]
                raise InputError(
                    f"{parameter.name} {show(value)} cannot be stored: {problem.path} "
                    f"{problem.message}",
                    hint="choose other values with --values, or leave --write out",
                    code="input-tune-value-invalid",
                    name=parameter.name,
                ) from error


def write_defaults(
    folder: Path,
    config: ModelConfig,
    cascade: Cascade,
    grid: SettingGrid,
    best: Tried,
    info: DataInfo,
) -> ModelConfig:
    """Store a setting as the sampling defaults of a model; the weights are not touched.

    Args:
        folder: the model folder.
        config: its config, as ``require_writable`` returned it.
        cascade: the model.
        grid: what was searched.
        best: what is stored, with its figure.
        info: what the dataset tells of itself, for the card.

    Raises:
        InputError: the model ships with cascadezoo.
        ModelError: metrics.json does not validate.
        RunFolderError: the folder cannot be written.
    """
    spec = _with_defaults(cascade, grid.options(best.setting))
    files: dict[str, bytes] = {}
    if (folder / SAMPLES).is_file():
        files[SAMPLES] = _samples(cascade, spec)
    if (folder / METRICS).is_file():
        metrics = _with_best(read_metrics(folder), spec, best)
        files[METRICS] = metrics.to_json().encode()
        card = read_card(folder)
        if card is not None:
            files[CARD] = new_card(card, spec, metrics.to_dict(), info).text.encode()
    return replace_files(folder, config, files, spec=spec)


def _with_defaults(cascade: Cascade, options: dict[str, dict[str, Any]]) -> CascadeSpec:
    """The model's spec with other sampling settings.

    Raises:
        SpecError: a stage's config does not take a value.
    """
    data = cascade.spec.to_dict()
    for stage in data["stages"]:
        stage["config"] |= options.get(stage["name"], {})
    return resolve(data, source="the tuned spec", for_training=False).spec


def _samples(cascade: Cascade, spec: CascadeSpec) -> bytes:
    resolved = resolve(spec, for_training=False)
    stages = [stage for _, stage in cascade.named_stages()]
    configs = [stage.config for stage in stages]
    try:
        for stage, row in zip(stages, resolved.stages, strict=True):
            stage.config = row.config
        made = cascade.sample(SHOWN, seed=spec.evaluation.seed, return_stages=True)
    finally:
        for stage, config in zip(stages, configs, strict=True):
            stage.config = config
    file = io.BytesIO()
    pictures = {
        name: images
        for name, images in made.items()
        if not cascade.stage(name).geometry.output.latent
    }
    samples_picture(made[cascade.names[-1]], pictures).save(file, format="PNG")
    return file.getvalue()


def _with_best(metrics: MetricsFile, spec: CascadeSpec, best: Tried) -> MetricsFile:
    tuned = best.figure.model_copy(
        update={
            "name": f"{best.figure.name}.tuned",
            "note": f"the best of a search over sampling settings: {best.figure.note}",
            "sampling_seconds": round(best.seconds, 3),
        }
    )
    kept = [_marked(figure) for figure in metrics.figures if figure.name != tuned.name]
    return metrics.model_copy(update={"spec_digest": spec.digest(), "figures": [tuned, *kept]})


def _marked(figure: Figure) -> Figure:
    notes = (figure.note or "").split("; ") if figure.note else []
    if TUNED_BEFORE in notes:
        return figure
    return figure.model_copy(update={"note": "; ".join([*notes, TUNED_BEFORE])})


def _json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def _unwritable(path: Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"{path} cannot be written: {error.strerror or error}",
        hint="choose another with -o DIR",
        code="run-folder-not-writable",
        path=path,
    )
