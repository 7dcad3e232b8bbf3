"""Results of a search: its folder and, on request, the model's new sampling defaults."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cascadezoo.cards.card_file import new_card, read_card
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.errors import InputError, RunFolderError, SpecError
from cascadezoo.model_folder.figures import Figure
from cascadezoo.model_folder.files import file_exists
from cascadezoo.model_folder.integrity import refuse_bundled, replace_files
from cascadezoo.model_folder.layout import CARD, METRICS, SAMPLES, ModelConfig
from cascadezoo.model_folder.metrics_file import MetricsFile, read_metrics
from cascadezoo.model_folder.reproduction import TUNED_BEFORE
from cascadezoo.report.images import samples_picture
from cascadezoo.report.tuning_results import (
    TuneRow,
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
    """The folder of the table and the plot; checked to be writable before the search.

    Args:
        path: the folder, created if missing. Only the files of an earlier search are replaced.

    Raises:
        InputError: it is inside a model that ships with cascadezoo.
        RunFolderError: it is not writable.
    """

    def __init__(self, path: Path) -> None:
        refuse_bundled(path)
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path).close()  # without a name: a kill leaves nothing
        except OSError as error:
            raise _not_writable(path, error) from error

    def write(self, table: TuneTable) -> None:
        """Write tune.json, tune.csv, TUNE.md and tune.png atomically."""
        picture = draw_tuning(table)
        try:
            write_atomically(self.path / "tune.json", _json(table.to_dict()))
            write_atomically(self.path / "tune.csv", tuning_csv(table).encode())
            write_atomically(self.path / "TUNE.md", tuning_markdown(table).encode())
            write_atomically(self.path / "tune.png", picture)
        except OSError as error:
            raise _not_writable(self.path, error) from error


def check_storable(cascade: Cascade, parameters: Sequence[Parameter]) -> None:
    """Check before the search that every setting can become a default of the model.

    Raises:
        InputError: a stage's config has no such field or rejects a value.
    """
    for parameter in parameters:
        for name in parameter.stages:
            if parameter.key not in type(cascade.stage(name).config).model_fields:
                raise InputError(
                    f"{parameter.key} of stage {name!r} cannot be stored: its config has no field "
                    f"{parameter.key!r}",
                    hint=f"leave out --write, or remove {parameter.name} from --over",
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
                    hint="choose other values with --values, or leave out --write",
                    code="input-tune-value-invalid",
                    name=parameter.name,
                ) from error


def write_defaults(
    folder: Path,
    config: ModelConfig,
    cascade: Cascade,
    grid: SettingGrid,
    best: TuneRow,
    info: DataInfo,
) -> ModelConfig:
    """Store a setting as the sampling defaults of a model; the weights do not change.

    Args:
        folder: the model folder.
        config: the result of ``require_writable``.
        cascade: the model.
        grid: the searched grid.
        best: the setting to store, with its figure.
        info: the dataset's information for the card.

    Raises:
        InputError: the model ships with cascadezoo.
        ModelError: metrics.json does not validate.
        RunFolderError: the folder cannot be written.
    """
    spec = _with_defaults(cascade, grid.options(best.setting))
    files: dict[str, bytes] = {}
    if file_exists(folder, SAMPLES):
        files[SAMPLES] = _samples(cascade, spec)
    if file_exists(folder, METRICS):
        metrics = _with_best(read_metrics(folder), spec, best)
        files[METRICS] = metrics.to_json().encode()
        card = read_card(folder)
        if card is not None:
            files[CARD] = new_card(card, spec, metrics.to_dict(), info).text.encode()
    return replace_files(folder, config, files, spec=spec)


def _with_defaults(cascade: Cascade, options: dict[str, dict[str, Any]]) -> CascadeSpec:
    """Return the model's spec with other sampling settings.

    Raises:
        SpecError: a stage's config rejects a value.
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
        samples = cascade.sample(SHOWN, seed=spec.evaluation.seed, return_stages=True)
    finally:
        for stage, config in zip(stages, configs, strict=True):
            stage.config = config
    file = io.BytesIO()
    pictures = {
        name: images
        for name, images in samples.items()
        if not cascade.stage(name).geometry.output.latent
    }
    samples_picture(samples[cascade.names[-1]], pictures).save(file, format="PNG")
    return file.getvalue()


def _with_best(metrics: MetricsFile, spec: CascadeSpec, best: TuneRow) -> MetricsFile:
    tuned = best.figure.model_copy(
        update={
            "name": f"{best.figure.name}.tuned",
            "note": f"best of a search over sampling settings: {best.figure.note}",
            "sampling_seconds": round(best.seconds, 3),
        }
    )
    others = [_outdated(figure) for figure in metrics.figures if figure.name != tuned.name]
    return metrics.model_copy(update={"spec_digest": spec.digest(), "figures": [tuned, *others]})


def _outdated(figure: Figure) -> Figure:
    """Note that a figure was measured with the former sampling settings."""
    notes = (figure.note or "").split("; ") if figure.note else []
    if TUNED_BEFORE in notes:
        return figure
    return figure.model_copy(update={"note": "; ".join([*notes, TUNED_BEFORE])})


def _json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def _not_writable(path: Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"cannot write to {path}: {error.strerror or error}",
        hint="choose another folder with -o DIR",
        code="run-folder-not-writable",
        path=path,
    )
