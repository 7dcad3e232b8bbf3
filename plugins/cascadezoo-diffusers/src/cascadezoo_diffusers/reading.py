"""From the JSON files of a source to the arguments they state. Free of torch and diffusers."""

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
    "FoundScheduler",
    "check_same",
    "differences",
    "read_autoencoder",
    "read_scheduler",
    "read_unet",
]

A = TypeVar("A", UNet2DArguments, AutoencoderKLArguments)

# What diffusers takes where a config.json is silent, and these models take something else.
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

# What does not change what a network of these classes computes in one pass.
_SILENT = {"num_train_timesteps", "sample_size", "force_upcast"}
_KL_BLOCKS = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}

# By what a model was trained; everything else of a scheduler can be chosen anew.
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
    """The U-Net of a source: of a model's folder, or of a pipeline's.

    Returns:
        The path of its ``config.json`` inside the source, and what it states.

    Raises:
        ModelError: there is none, of another class, or of a variant that is not supported.
        ModelReferenceError: the source is not there.
        WeightsUnavailableError: the Hub cannot be reached.
    """
    return _read(source, subfolder, "UNet2DModel", "unet", UNet2DArguments, UNET_DEFAULTS)


def read_autoencoder(source: Source, subfolder: str | None) -> tuple[str, AutoencoderKLArguments]:
    """The AutoencoderKL of a source; as :func:`read_unet`."""
    return _read(source, subfolder, "AutoencoderKL", "vae", AutoencoderKLArguments, KL_DEFAULTS)


@dataclass(frozen=True, slots=True)
class FoundScheduler:
    """The scheduler of a source.

    Args:
        arguments: what its file states, as far as it is known here.
        sampler: the sampler that it is; None where there is none.
        name: the name of its class.
        raw: the file.
        where: the path of the file.
    """

    arguments: SchedulerArguments
    sampler: str | None
    name: str
    raw: Mapping[str, Any]
    where: str


def read_scheduler(source: Source, config: str) -> FoundScheduler | None:
    """The scheduler that a source has beside a model, or as a pipeline's.

    Args:
        source: where to look.
        config: the path of the model's ``config.json`` inside the source.

    Raises:
        ModelError: it cannot be read, or is not of a diffusion by betas.
        ModelReferenceError: the source is not there.
        WeightsUnavailableError: the Hub cannot be reached.
    """
    beside = config.removesuffix(CONFIG) + SCHEDULER
    found = find(source, list(dict.fromkeys([beside, f"scheduler/{SCHEDULER}", SCHEDULER])))
    if found is None:
        return None
    where = f"{source}/{found[0]}"
    raw = read_json(found[1])
    name = str(raw.get("_class_name"))
    classes = {s.scheduler: s for s in SAMPLERS.values()}
    if name not in classes and not {"beta_schedule", "trained_betas"} & set(raw):
        known = ", ".join(sorted(classes))
        raise ModelError(
            f"{where} is of {name!r}, whose models are not trained by betas",
            hint=f"use a model of one of {known}",
        )
    sampler = sampler_of(raw)
    spacing = classes[name].spacing if name in classes else "linspace"
    # Heun and KDPM2 have betas of their own where their file does not tell.
    betas = name.startswith(("Heun", "KDPM2"))
    start: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012} if betas else {}
    known_keys = {k: raw[k] for k in SchedulerArguments.model_fields if k in raw}
    if known_keys.get("variance_type", "") is None:
        del known_keys["variance_type"]
    stated = {"timestep_spacing": spacing, **start, **known_keys}
    return FoundScheduler(_model(SchedulerArguments, stated, where), sampler, name, raw, where)


def differences(
    asked: BaseModel, found: BaseModel, path: str, where: str, names: Iterable[str]
) -> Iterator[Problem]:
    """What a config says otherwise than the source of its weights, field by field.

    Args:
        asked: what the config says.
        found: what the source says.
        path: the field of the config that ``asked`` is; empty for the config itself.
        where: the source's file.
        names: the fields to look at.
    """
    for name in names:
        mine, theirs = getattr(asked, name), getattr(found, name)
        if mine != theirs:
            yield Problem(
                f"{path}.{name}".removeprefix("."),
                f"is {json.dumps(mine)}, but {where} has {json.dumps(theirs)}",
                f'write "{name}": {json.dumps(theirs)}',
                code="source-differs",
            )


def check_same(problems: list[Problem], kind: str) -> None:
    """See that a config says nothing otherwise than its source.

    Raises:
        SpecError: with all of ``problems``.
    """
    if problems:
        raise SpecError(
            problems,
            source=f"the config of {kind}",
            hint="what is left out of the spec is taken from the source",
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
    found = find(source, names)
    if found is None:
        inner = f"the folder {subfolder!r} of {source}" if subfolder else str(source)
        raise ModelError(
            f"there is no {CONFIG} in {inner}",
            hint=f"give the folder of a {name} or of a pipeline that has one as its {part!r}",
            code="model-source-file-missing",
            path=str(source),
            name=CONFIG,
        )
    where = f"{source}/{found[0]}"
    raw = read_json(found[1])
    if raw.get("_class_name") != name:
        what = f"of {raw['_class_name']!r}" if "_class_name" in raw else "of no model of diffusers"
        raise ModelError(
            f"{where} is {what}, not of {name}",
            hint=f'give a {name}, or its folder in the source as "subfolder"',
            code="model-source-foreign",
            path=where,
        )
    stated = {k: v for k, v in {**defaults, **raw}.items() if not k.startswith("_")}
    if model is AutoencoderKLArguments:
        for key, block in _KL_BLOCKS.items():
            if any(other != block for other in stated.pop(key, [])):
                raise ModelError(
                    f"{where} has other {key} than {block}",
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
            f"{where} has {listed}, which is not supported here",
            hint="use a model without it, or a newer cascadezoo-diffusers",
            code="model-source-variant",
            path=where,
            names=list(unknown),
        )
    return found[0], _model(model, {k: stated[k] for k in model.model_fields if k in stated}, where)


M = TypeVar("M", bound=BaseModel)


def _model(model: type[M], raw: Mapping[str, Any], where: str) -> M:
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        row = error.errors()[0]
        field = ".".join(str(part) for part in row["loc"])
        raise ModelError(
            f"{where} cannot be used: {field + ': ' if field else ''}{row['msg']}",
            hint="it is of a variant that cascadezoo-diffusers does not support",
            code="model-source-variant",
            path=where,
            name=field,
        ) from error
