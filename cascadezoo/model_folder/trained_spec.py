"""The parts of a trained model's spec that an evaluation needs: stages, data and evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cascadezoo.errors import InputError, ModelError, SpecError
from cascadezoo.model_folder.data_trust import data_refusal
from cascadezoo.model_folder.layout import CONFIG, ModelConfig, read_config
from cascadezoo.spec import CascadeSpec, ResolvedSpec, apply_settings, resolve
from cascadezoo.spec.faults import problems_of

__all__ = ["dataless_spec", "published_spec", "trained_spec"]

_FIXED = ("data.size", "data.channels", "data.num_classes")


def trained_spec(
    folder: Path,
    settings: Iterable[str] = (),
    *,
    trust_data: bool = False,
    requested: bool = True,
) -> ResolvedSpec:
    """Resolve the spec of a model with its dataset, whose files may be read.

    Omits the losses and callbacks of its training, whose plugins may not be installed. Does not
    look up metrics and extractors.

    Args:
        folder: the model folder.
        settings: ``path=value`` changes of ``data.*`` and ``evaluation.*``.
        trust_data: also open files that the model names; see
            :func:`~cascadezoo.model_folder.data_trust.data_refusal`.
        requested: whether the user requested a measurement on real images.

    Raises:
        InputError: a setting that a trained model cannot change.
        DataError: the data must not be opened without ``trust_data``.
        SpecError: the spec does not validate, or the plugin of its data or stages is missing.
    """
    changes = list(settings)
    whole, lean, config = _changed(folder, changes)
    refused = data_refusal(config, lean["data"], changes, requested=requested)
    if refused is not None and not trust_data:
        raise refused
    # The first resolution refuses an incomplete spec without reading any file.
    source = str(folder / CONFIG)
    resolve(lean, source=source, for_training=False)
    return _with_evaluation(resolve(lean, source=source), whole)


def dataless_spec(folder: Path, settings: Iterable[str] = ()) -> ResolvedSpec:
    """Like :func:`trained_spec`, but without the dataset: reads no file that the model names.

    Raises:
        InputError: a setting that a trained model cannot change.
        SpecError: the spec does not validate, or the plugin of its stages is missing.
    """
    whole, lean, _ = _changed(folder, list(settings))
    source = str(folder / CONFIG)
    return _with_evaluation(resolve(lean, source=source, for_training=False), whole)


def _changed(folder: Path, changes: list[str]) -> tuple[CascadeSpec, dict[str, Any], ModelConfig]:
    """The changed spec, its part that an evaluation resolves, and the model's config.json."""
    for change in changes:
        path = change.partition("=")[0]
        if path in _FIXED or not path.startswith(("data.", "evaluation.")):
            raise InputError(
                f"--set {change!r}: a trained model allows changes only to the location of its "
                "data and to its evaluation",
                hint="use settings such as --set data.config.path=images.npz or "
                "--set evaluation.split=test",
                code="input-setting-trained",
                setting=change,
            )
    config = read_config(folder)
    data = apply_settings(config.spec, changes)
    spec = _validated(data, str(folder / CONFIG))
    training: dict[str, Any] = {**data["training"], "losses": [], "callbacks": []}
    lean = {**data, "training": training, "evaluation": {"metrics": [], "extractor": "small"}}
    return spec, lean, config


def _with_evaluation(resolved: ResolvedSpec, whole: CascadeSpec) -> ResolvedSpec:
    spec = resolved.spec.model_copy(update={"evaluation": whole.evaluation})
    return replace(resolved, spec=spec)


def published_spec(folder: Path, config: ModelConfig) -> CascadeSpec:
    """Return the spec in a model's config.json.

    Raises:
        ModelError: the spec does not validate.
    """
    try:
        return CascadeSpec.model_validate(config.spec)
    except ValidationError as error:
        first = next(iter(problems_of(error, config.spec, "spec")))
        raise ModelError(
            f"the spec in {folder / CONFIG} does not validate: {first}",
            hint="another version of cascadezoo may have written it; build the model again",
            code="model-spec-invalid",
            path=folder / CONFIG,
        ) from None


def _validated(data: dict[str, Any], source: str) -> CascadeSpec:
    try:
        return CascadeSpec.model_validate(data)
    except ValidationError as error:
        raise SpecError(problems_of(error, data, ""), source=source) from None
