"""Reads the arguments in the JSON files of a source. Free of torch and diffusers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cascadezoo.errors import ModelError, Problem, SpecError
from cascadezoo_diffusers.arguments import (
    AutoencoderKLArguments,
    SchedulerArguments,
    UNet2DArguments,
)
from cascadezoo_diffusers.samplers import SAMPLERS, sampler_of
from cascadezoo_diffusers.source import CONFIG, SCHEDULER, Source, find, read_json

__all__ = [
    "TRAINED",
    "SourceScheduler",
    "check_same",
    "differences",
    "read_autoencoder",
    "read_scheduler",
    "read_unet",
]

A = TypeVar("A", UNet2DArguments, AutoencoderKLArguments)

# The defaults of diffusers that differ from those of the models here.
UNET_DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [224, 448, 672, 896],
    "down_block_types": ["DownBlock2D", *["AttnDownBlock2D"] * 3],
    "up_block_types": [*["AttnUpBlock2D"] * 3, "UpBlock2D"],
}
KL_DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [64],
    "scaling_factor": 0.18215,
}

# Fields without effect on the output of the networks.
_SILENT = {"num_train_timesteps", "sample_size", "force_upcast"}
_KL_BLOCKS = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}

# Fields of a scheduler that must agree with the training; the others can change.
TRAINED = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
)


def read_unet(source: Source, subfolder: str | None) -> tuple[str, UNet2DArguments]:
    """The U-Net of a source, the folder of a model or of a pipeline.

    Returns:
        The path of its ``config.json`` inside the source, and its arguments.

    Raises:
        ModelError: the model is missing, of another class, or of an unsupported variant.
        ModelReferenceError: the source does not exist.
        WeightsUnavailableError: the Hub cannot be reached.
    """
    return _read(source, subfolder, "UNet2DModel", "unet", UNet2DArguments, UNET_DEFAULTS)


def read_autoencoder(source: Source, subfolder: str | None) -> tuple[str, AutoencoderKLArguments]:
    """The AutoencoderKL of a source; see :func:`read_unet`."""
    return _read(source, subfolder, "AutoencoderKL", "vae", AutoencoderKLArguments, KL_DEFAULTS)


@dataclass(frozen=True, slots=True)
class SourceScheduler:
    """The scheduler of a source.

    Args:
        arguments: the supported arguments in its file.
        sampler: the corresponding sampler; None if it is not supported.
        name: the name of its class.
        raw: the content of the file.
        where: the path of the file.
    """

    arguments: SchedulerArguments
    sampler: str | None
    name: str
    raw: Mapping[str, Any]
    where: str


def read_scheduler(source: Source, config: str) -> SourceScheduler | None:
    """The scheduler of a source, in the folder of the model or of the pipeline.

    Args:
        source: the folder or repository.
        config: the path of the model's ``config.json`` inside the source.

    Raises:
        ModelError: the file cannot be read, or the scheduler has no betas.
        ModelReferenceError: the source does not exist.
        WeightsUnavailableError: the Hub cannot be reached.
    """
    own = config.removesuffix(CONFIG) + SCHEDULER
    match = find(source, list(dict.fromkeys([own, f"scheduler/{SCHEDULER}", SCHEDULER])))
    if match is None:
        return None
    where = f"{source}/{match[0]}"
    raw = read_json(match[1])
    name = str(raw.get("_class_name"))
    classes = {s.scheduler: s for s in SAMPLERS.values()}
    if name not in classes and not {"beta_schedule", "trained_betas"} & set(raw):
        known = ", ".join(sorted(classes))
        raise ModelError(
            f"{where} is a {name!r}, whose models are not trained with betas",
            hint=f"use a model of one of {known}",
            code="model-source-scheduler",
            path=where,
            name=name,
        )
    sampler = sampler_of(raw)
    spacing = classes[name].spacing if name in classes else "linspace"
    # Heun and KDPM2 have other default betas.
    betas = name.startswith(("Heun", "KDPM2"))
    start: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012} if betas else {}
    known_keys = {k: raw[k] for k in SchedulerArguments.model_fields if k in raw}
    if known_keys.get("variance_type", "") is None:
        del known_keys["variance_type"]
    stated = {"timestep_spacing": spacing, **start, **known_keys}
    return SourceScheduler(_model(SchedulerArguments, stated, where), sampler, name, raw, where)


def differences(
    config: BaseModel, stated: BaseModel, path: str, where: str, names: Iterable[str]
) -> Iterator[Problem]:
    """The differences between a config and the source of its weights, field by field.

    Args:
        config: the values of the config.
        stated: the values of the source.
        path: the path of ``config`` in the stage's config; empty for the config itself.
        where: the source's file.
        names: the fields to compare.
    """
    for name in names:
        mine, theirs = getattr(config, name), getattr(stated, name)
        if mine != theirs:
            yield Problem(
                f"{path}.{name}".removeprefix("."),
                f"is {json.dumps(mine)}, but {where} has {json.dumps(theirs)}",
                f'set "{name}": {json.dumps(theirs)}',
                code="source-differs",
            )


def check_same(problems: list[Problem], kind: str) -> None:
    """Check that a config agrees with its source.

    Raises:
        SpecError: with all of ``problems``.
    """
    if problems:
        raise SpecError(
            problems,
            source=f"the config of {kind}",
            hint="the source provides the fields that the spec omits",
        )


def _read(
    source: Source,
    subfolder: str | None,
    name: str,
    part: str,
    model: type[A],
    defaults: Mapping[str, Any],
) -> tuple[str, A]:
    names = [f"{subfolder.strip('/')}/{CONFIG}"] if subfolder else [CONFIG, f"{part}/{CONFIG}"]
    match = find(source, names)
    if match is None:
        inner = f"the folder {subfolder!r} of {source}" if subfolder else str(source)
        raise ModelError(
            f"{inner} has no {CONFIG}",
            hint=f"give the folder of a {name}, or of a pipeline with a {name} as its {part!r}",
            code="model-source-file-missing",
            path=str(source),
            name=CONFIG,
        )
    where = f"{source}/{match[0]}"
    raw = read_json(match[1])
    if raw.get("_class_name") != name:
        actual = f"of a {raw['_class_name']!r}" if "_class_name" in raw else "not of diffusers"
        raise ModelError(
            f"{where} is {actual}, but must be of a {name}",
            hint=f'give a {name}, or set "subfolder" to its folder in the source',
            code="model-source-foreign",
            path=where,
        )
    stated = {k: v for k, v in {**defaults, **raw}.items() if not k.startswith("_")}
    if model is AutoencoderKLArguments:
        for key, block in _KL_BLOCKS.items():
            if any(other != block for other in stated.pop(key, [])):
                raise ModelError(
                    f"{where} has {key} other than {block}",
                    hint="use an AutoencoderKL with plain down and up blocks",
                    code="model-source-variant",
                    name=key,
                )
    size = stated.get("sample_size")
    if isinstance(size, list):
        stated["sample_size"] = size[0] if len(set(map(str, size))) == 1 else None
    unknown = {
        k: v for k, v in stated.items() if k not in model.model_fields and k not in _SILENT and v
    }
    if unknown:
        listed = ", ".join(f"{k} = {v!r}" for k, v in unknown.items())
        raise ModelError(
            f"{where} has {listed}, which is not supported",
            hint="use a model without it, or a newer cascadezoo-diffusers",
            code="model-source-variant",
            path=where,
            names=list(unknown),
        )
    return match[0], _model(model, {k: stated[k] for k in model.model_fields if k in stated}, where)


M = TypeVar("M", bound=BaseModel)


def _model(model: type[M], raw: Mapping[str, Any], where: str) -> M:
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        row = error.errors()[0]
        field = ".".join(str(part) for part in row["loc"])
        raise ModelError(
            f"{where} is not supported: {field + ': ' if field else ''}{row['msg']}",
            hint="use a model of another variant, or a newer cascadezoo-diffusers",
            code="model-source-variant",
            path=where,
            name=field,
        ) from error
