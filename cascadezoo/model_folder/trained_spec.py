"""The parts of a trained model's spec that an evaluation needs: stages, data and evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cascadezoo.errors import InputError, ModelError, SpecError
from cascadezoo.model_folder.layout import CONFIG, ModelConfig, read_config
from cascadezoo.spec import CascadeSpec, ResolvedSpec, apply_settings, resolve
from cascadezoo.spec.faults import problems_of

__all__ = ["published_spec", "trained_spec"]

_FIXED = ("data.size", "data.channels", "data.num_classes")


def trained_spec(folder: Path, settings: Iterable[str] = ()) -> ResolvedSpec:
    """Resolve the spec of a model, with changes to the location of its data or its evaluation.

    Omits the losses and callbacks of its training, whose plugins may not be installed. Does not
    look up metrics and extractors.

    Args:
        folder: the model folder.
        settings: ``path=value`` changes of ``data.*`` and ``evaluation.*``.

    Raises:
        InputError: a setting that a trained model cannot change.
        SpecError: the spec does not validate, or the plugin of its data or stages is missing.
    """
    changes = list(settings)
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
    data = apply_settings(read_config(folder).spec, changes)
    spec = _validated(data, str(folder / CONFIG))
    training: dict[str, Any] = {**data["training"], "losses": [], "callbacks": []}
    lean = {**data, "training": training, "evaluation": {"metrics": [], "extractor": "small"}}
    resolved = resolve(lean, source=str(folder / CONFIG))
    whole = resolved.spec.model_copy(update={"evaluation": spec.evaluation})
    return ResolvedSpec(whole, resolved.stages, resolved.data_config, resolved.data_info)


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
