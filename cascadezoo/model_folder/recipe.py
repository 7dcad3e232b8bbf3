"""How a picture was made: the model and the settings, in a text chunk of its PNG file.

A picture may come from anyone. Its recipe is bounded, parsed strictly, and names models of a zoo or
of the Hub only: no path, no address, no code. Reading a recipe decodes no pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from cascadezoo._version import __version__
from cascadezoo.data.files import data_path, open_data
from cascadezoo.errors import InputError, ModelError, SpecError
from cascadezoo.model_folder.layout import ModelConfig, model_name
from cascadezoo.spec import parse_json
from cascadezoo.spec.configs import Model, Probability
from cascadezoo.spec.faults import problems_of
from cascadezoo.util.limits import SHA256
from cascadezoo.util.text import clean_remote

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngInfo

__all__ = [
    "KEYWORD",
    "Recipe",
    "SampleSettings",
    "check_model",
    "model_digest",
    "read_recipe",
    "recipe_of",
]

KEYWORD = "cascadezoo"
"""The keyword of the text chunk."""

LARGEST_RECIPE = 64 << 10
"""Maximum bytes of a recipe."""

MOST_CHUNKS = 100_000
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_REFERENCE = (
    r"^(zoo:[a-z][a-z0-9]*([-_.][a-z0-9]+)*"
    r"|hf://[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}@[0-9a-f]{40})$"
)
_MOST_STEPS = 100_000

_Stage = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,80}$")]
_Steps = Annotated[int, Field(ge=1, le=_MOST_STEPS)]
_Scale = Annotated[float, Field(ge=0, le=1000)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]{1,80}$")]
_Value = bool | int | float | _Name
_Label = Annotated[int, Field(ge=0, le=1_000_000)]
_Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
_Interval = Annotated[list[Probability], Field(min_length=2, max_length=2)]


class SampleSettings(Model):
    """The settings of ``cascadezoo sample`` that determine its pictures."""

    n: Annotated[int, Field(ge=1, le=1_000_000)]
    """Number of images."""
    first: Annotated[int, Field(ge=0, le=2**40)] = 0
    """The number of the first image."""
    index: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """The image among them that the picture shows; None for all."""
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    labels: Annotated[list[_Label], Field(max_length=10_000)] = []
    """The labels, used in turn; empty for all labels, or for a model without labels."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    strip: Literal["stages", "trajectory"] | None = None
    stage: _Stage | None = None
    captions: bool = False
    """Whether the classes are below the images of a grid."""
    columns: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Images in a row of a grid; None makes it about square."""
    steps: _Steps | dict[_Stage, _Steps] | None = None
    guidance: _Scale | dict[_Stage, _Scale] | None = None
    sampler: _Name | dict[_Stage, _Name] | None = None
    guidance_interval: _Interval | None = None
    negative_label: _Label | None = None
    eta: Probability | dict[_Stage, Probability] | None = None
    restart: Probability | dict[_Stage, Probability] | None = None
    sampling_schedule: _Name | dict[_Stage, _Name] | None = None
    s: Probability | dict[_Stage, Probability] | None = None
    truncated: bool | None = None
    option: Annotated[dict[_Name, _Value | dict[_Stage, _Value]], Field(max_length=100)] | None = (
        None
    )
    """Options that stages declare, by name."""

    @model_validator(mode="after")
    def _single_is_in_its_batch(self) -> Self:
        if self.index is not None and not self.index < self.n <= self.batch_size:
            raise ValueError(
                f"index {self.index} is not in a single batch: n is {self.n}, and batch_size "
                f"{self.batch_size}"
            )
        return self

    def arguments(self) -> dict[str, Any]:
        """The keywords of ``Cascade.sample`` for these images, without the seed."""
        turns = self.labels
        rows = [turns[i % len(turns)] for i in range(self.first, self.first + self.n)]
        further = (
            "guidance_interval",
            "negative_label",
            "eta",
            "restart",
            "sampling_schedule",
            "s",
            "truncated",
        )
        options = {key: getattr(self, key) for key in further}
        return {
            "n": self.n,
            "first": self.first,
            "batch_size": self.batch_size,
            "labels": rows if turns else None,
            "steps": self.steps,
            "guidance": self.guidance,
            "sampler": self.sampler,
            "precision": self.precision,
            "options": {
                **{key: value for key, value in options.items() if value is not None},
                **(self.option or {}),
            },
        }


class Recipe(Model):
    """How a picture was made.

    ``model`` is the model's name in its spec, ``reference`` its zoo name or Hub repo (None for a
    local folder), ``digest`` that of its spec and weights.
    """

    format: Literal[1] = 1
    command: Literal["sample", "upscale", "refine", "edit", "inpaint", "interpolate"]
    cascadezoo_version: Annotated[str, Field(max_length=80)] = __version__
    model: Annotated[str, Field(max_length=200)]
    reference: Annotated[str, Field(pattern=_REFERENCE)] | None = None
    digest: Annotated[str, Field(pattern=SHA256)]
    seed: _Seed
    settings: dict[str, Any] = {}

    def png_info(self) -> PngInfo:
        """The text chunk, for ``image.save(path, pnginfo=...)`` of Pillow."""
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_text(KEYWORD, json.dumps(self.model_dump(mode="json", exclude_none=True)))
        return info

    def sample_settings(self) -> SampleSettings:
        """The settings of a picture of ``cascadezoo sample``.

        Raises:
            InputError: another command made the picture, or the settings do not validate.
        """
        if self.command != "sample":
            raise InputError(
                f"the picture was made by cascadezoo {self.command}, which needs its input picture",
                hint=f"run cascadezoo {self.command} on that picture again",
                code="input-recipe-command",
                name=self.command,
            )
        try:
            return SampleSettings.model_validate(self.settings)
        except ValidationError as error:
            raise _invalid("the recipe of the picture", error, self.settings) from None

    def arguments(self) -> dict[str, Any]:
        """The keywords of ``Cascade.sample`` that repeat the images of the picture.

        Raises:
            InputError: see :meth:`sample_settings`.
        """
        return {**self.sample_settings().arguments(), "seed": self.seed}


def model_digest(config: ModelConfig) -> str:
    """The sha256 of a model's spec and weights; a new card or new figures do not change it."""
    weights = {n: row.sha256 for n, row in config.files.items() if n.startswith("stages/")}
    text = json.dumps([config.spec_digest, weights], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def recipe_of(
    config: ModelConfig,
    command: str,
    seed: int,
    settings: dict[str, Any],
    *,
    reference: str | None = None,
) -> Recipe:
    """The recipe of a picture that is being made; settings that are None are left out."""
    return Recipe.model_validate(
        {
            "command": command,
            "model": model_name(config)[:200],
            "reference": reference,
            "digest": model_digest(config),
            "seed": seed,
            "settings": {key: value for key, value in settings.items() if value is not None},
        }
    )


def check_model(recipe: Recipe, config: ModelConfig, source: str | Path) -> None:
    """Check that a model made a picture.

    Raises:
        ModelError: the picture was made by a model with another spec or other weights.
    """
    if recipe.digest != model_digest(config):
        raise ModelError(
            f"{source} was not made by this model: it names {clean_remote(recipe.model, 80)!r} "
            f"with the digest {recipe.digest[:12]}, this model has {model_digest(config)[:12]}",
            hint="give the model, or the revision of it, that made the picture",
            code="model-not-of-picture",
            path=source,
            digest=recipe.digest,
        )


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read how a PNG picture was made. No pixels are decoded, and no other file is opened.

    Args:
        path: a PNG file that a command of cascadezoo wrote.

    Raises:
        InputError: the file is missing, is not a PNG file, has no recipe, or one that is invalid.
        DataError: the path is not that of a regular file.
    """
    place = data_path(os.fspath(path))
    try:
        with open_data(place) as file:
            text = _chunk(file, place)
    except OSError as error:
        raise InputError(
            f"{place} cannot be read: {error.strerror}",
            hint="check the spelling of the path",
            code="input-recipe-unreadable",
            path=place,
        ) from error
    if text is None:
        raise InputError(
            f"{place} does not state how it was made",
            hint="use a PNG file that cascadezoo sample wrote; other programs may remove its text",
            code="input-recipe-missing",
            path=place,
        )
    source = f"the recipe in {place}"
    try:
        data = parse_json(text, source, max_bytes=LARGEST_RECIPE)
    except SpecError as error:
        raise InputError(
            error.what, hint="use the original file", code="input-recipe-not-json", path=place
        ) from None
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise _invalid(source, error, data) from None


def _invalid(source: str, error: ValidationError, data: dict[str, Any]) -> InputError:
    problems = list(problems_of(error, data, ""))[:5]
    lines = "\n".join(f"  {clean_remote(str(p), 300)}" for p in problems)
    return InputError(
        f"{source} does not validate:\n{lines}",
        hint="use the original file; a newer cascadezoo may have written it",
        code="input-recipe-invalid",
        problems={clean_remote(p.path, 80): p.code for p in problems},
    )


def _chunk(file: IO[bytes], path: Path) -> bytes | None:
    """The content of the text chunk; None if there is none."""
    if file.read(8) != _SIGNATURE:
        raise InputError(
            f"{path} is not a PNG file",
            hint="use a PNG file that cascadezoo sample wrote",
            code="input-recipe-not-png",
            path=path,
        )
    found: bytes | None = None
    prefix = KEYWORD.encode() + b"\0"
    for _ in range(MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return found
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return found
        start = file.read(min(length, len(prefix))) if kind == b"tEXt" else b""
        if start != prefix:
            file.seek(length - len(start) + 4, os.SEEK_CUR)
            continue
        size = length - len(prefix)
        if size > LARGEST_RECIPE or found is not None:
            raise _damaged(path, "too large" if found is None else "there twice")
        found = file.read(size)
        (stated,) = struct.unpack(">I", file.read(4).rjust(4, b"\0"))
        if len(found) != size or zlib.crc32(kind + prefix + found) != stated:
            raise _damaged(path, "damaged")
    raise _damaged(path, "behind too many others")


def _damaged(path: Path, how: str) -> InputError:
    return InputError(
        f"the recipe in {path} is {how}",
        hint="use the original file",
        code="input-recipe-damaged",
        path=path,
    )
