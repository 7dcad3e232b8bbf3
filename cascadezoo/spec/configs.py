"""Base classes for the configs of stages and datasets. Does not import torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from cascadezoo.spec.frozen import freeze

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic_core import CoreSchema

__all__ = [
    "CallbackConfig",
    "ConfigError",
    "DataConfig",
    "DataInfo",
    "DecoderConfig",
    "EmptyConfig",
    "GeneratorConfig",
    "ImageShape",
    "MeasurementPlan",
    "MetricConfig",
    "Model",
    "Option",
    "Probability",
    "RefinerConfig",
    "StageConfig",
    "UpsamplerConfig",
    "Width",
]

# Large enough for any network; ``plan`` compares the network with the machine's memory.
Width = Annotated[int, Field(ge=1, le=2**31 - 1)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class Model(BaseModel):
    """A pydantic model that forbids unknown keys, coercion between types, inf and nan."""

    model_config = ConfigDict(
        # Validators of a model include those of its parts; building both doubles the import time.
        defer_build=True,
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        validate_default=True,
    )

    def model_post_init(self, context: Any, /) -> None:
        """Make dicts and lists read-only, as ``frozen`` makes the fields themselves."""
        values = self.__dict__
        for name in [name for name, value in values.items() if type(value) in (dict, list)]:
            values[name] = freeze(values[name])

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with changed fields, which are not validated; see pydantic."""
        changed = {name: freeze(value) for name, value in (update or {}).items()}
        return super().model_copy(update=changed, deep=deep)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The JSON Schema, with the docstring of each field as its description."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in _field_docs(cls).items():
            if name in properties:
                properties[name].setdefault("description", text)
        return schema


def _field_docs(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings under the fields of a model and its bases.

    They are read from the source for a schema only: pydantic's ``use_attribute_docstrings`` reads
    them at every import, which takes a third of the start of ``cascadezoo validate``.
    """
    import ast
    import inspect
    import itertools
    import textwrap

    docs: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not issubclass(cls, BaseModel) or cls is BaseModel:
            continue
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        except (OSError, TypeError, SyntaxError):
            continue  # a class without source, created at run time
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for field, text in itertools.pairwise(body):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                docs[field.target.id] = inspect.cleandoc(str(text.value.value))
    return docs


class ConfigError(ValueError):
    """A config does not fit its place in the cascade. The field gives the error its path.

    Args:
        field: the invalid field, with dots for nested fields, or "" for the config itself.
        message: the error.
        code: the kind of error, in kebab-case.
    """

    def __init__(self, field: str, message: str, *, code: str = "invalid") -> None:
        super().__init__(message)
        self.field = field
        self.message = message
        self.code = code


OptionType: TypeAlias = type[int] | type[float] | type[bool] | type[str]
_TYPES = {int: "whole number", float: "number", bool: "true or false", str: "text"}


@dataclass(frozen=True, slots=True)
class Option:
    """A setting of a stage's sampling, besides steps, guidance and sampler.

    Args:
        type: ``int``, ``float``, ``bool`` or ``str``.
        low: the lowest number; None has no limit.
        high: the highest number; None has no limit.
        help: what it does, in one sentence.

    Raises:
        ValueError: the type is another one, or a limit belongs to no number.
    """

    type: OptionType
    low: float | None = None
    high: float | None = None
    help: str = ""

    def __post_init__(self) -> None:
        if self.type not in _TYPES:
            raise ValueError(f"the type of an option is int, float, bool or str, not {self.type}")
        if self.type in (bool, str) and (self.low, self.high) != (None, None):
            raise ValueError(f"an option of type {self.type.__name__} has no limits")

    def __str__(self) -> str:
        text = _TYPES[self.type]
        if self.low is not None and self.high is not None:
            return f"{text}, {self.low:g} to {self.high:g}"
        if self.low is not None:
            return f"{text}, {self.low:g} or more"
        return text if self.high is None else f"{text}, at most {self.high:g}"

    def allows(self, value: Any) -> bool:
        """Whether a value has the type and is within the limits."""
        if self.type in (bool, str):
            return isinstance(value, self.type)
        known = (int, float) if self.type is float else int
        if isinstance(value, bool) or not isinstance(value, known):
            return False
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        finite = isinstance(value, int) or math.isfinite(value)  # whole numbers exceed floats
        return finite and low <= value <= high

    def parse(self, text: str) -> int | float | bool | str:
        """The value of a text, as on a command line.

        Raises:
            ValueError: the text has another type. Limits are not checked.
        """
        if self.type is bool:
            if text.lower() not in ("true", "false"):
                raise ValueError(f"{text!r} is neither true nor false")
            return text.lower() == "true"
        return self.type(text)


@dataclass(frozen=True, slots=True)
class ImageShape:
    """The shape of an image between stages: ``channels`` x ``size`` x ``size``.

    Pixels are in [-1, 1]. ``latent`` marks the output of an encoder, which is not bounded. With
    ``tokens``, the latents are discrete: float tensors of whole numbers from 0 to ``tokens - 1``.
    Gradients end at them.

    Args:
        channels: number of channels; for tokens, the number of tokens at each place.
        size: height and width.
        latent: whether it is the output of an encoder.
        tokens: the size of the vocabulary; None for images and continuous latents.

    Raises:
        ValueError: ``tokens`` is below 1, or is set without ``latent``.
    """

    channels: int
    size: int
    latent: bool = False
    tokens: int | None = None

    def __post_init__(self) -> None:
        if self.tokens is not None and (self.tokens < 1 or not self.latent):
            raise ValueError("tokens must be 1 or more, and are latents: set latent=True")

    def __str__(self) -> str:
        kind = " latents" if self.latent else ""
        if self.tokens is not None:
            kind = f" tokens of {self.tokens}"
        return f"{self.channels}x{self.size}x{self.size}{kind}"


class StageConfig(Model):
    """Base class of all stage configs.

    Sizes follow from the end of the cascade: the last stage makes images of the data's size, and
    :meth:`upstream_shape` of each stage defines the image that the previous stage must make.
    """

    frozen: ClassVar[bool] = False
    """Whether the stage's weights are never trained; phases cannot name such a stage."""

    reflows: ClassVar[bool] = False
    """Whether the stage can be trained on pairs of its own noise and images."""

    stops: ClassVar[bool] = False
    """Whether sampling can stop at a noise level: the stage supports the option ``stop``."""

    paired: ClassVar[bool] = True
    """Whether the training estimate predicts the stage's own target; for a GAN it does not."""

    heeds_paired: ClassVar[bool] = False
    """Whether the stage can learn from upstream images that do not belong to its targets. It then
    must respect ``TrainContext.paired``."""

    sampling_options: ClassVar[Mapping[str, Option]] = {}
    """Settings of the stage's sampling by name, which ``SampleRequest.options`` contains. They are
    validated, shown by ``stages show``, and set by ``sample --option``."""

    makes_tokens: ClassVar[bool] = False
    """Whether the stage's output is tokens. Only such a stage may stand where tokens are needed,
    and it may stand nowhere else."""

    parameterless: ClassVar[bool] = False
    """Whether the stage has nothing to train. It makes no difference whether a phase names it: it
    takes part if the stages around it do."""

    widths: ClassVar[tuple[str, ...]] = ()
    """The integer fields that scale the number of parameters. ``cascadezoo plan --match-params``
    scales them together: it searches over the first, and the others keep their ratio to it. A
    larger value must not give fewer parameters. Empty: the number cannot be matched."""

    repeated: ClassVar[Mapping[str, int]] = {}
    """Integer fields that repeat a part of the network or of a training pass, such as its blocks.
    Each has the lowest value from which FLOPs and memory grow linearly. ``cascadezoo plan`` then
    traces that value and the next, not a thousand blocks."""

    def width_step(self, field: str) -> int:
        """The number that a field of :attr:`widths` must be a multiple of, e.g. the heads."""
        return 1

    def fit(self, output: ImageShape) -> Self:
        """Return this config with the values that follow from its place filled in.

        Args:
            output: the shape of the stage's image.

        Raises:
            ConfigError: the config contradicts its place.
        """
        return self

    def upstream_shape(self, output: ImageShape) -> ImageShape | None:
        """The image that this stage needs from the stage before it; None for a generator."""
        return output

    def unresolved(self) -> Iterable[str]:
        """The missing fields that :meth:`fit` would read from files or from the Hub.

        The spec of a trained model states them. One that does not is refused before :meth:`fit`,
        so that loading a model never opens files that its config names.
        """
        return ()

    def check_upstream(self, upstream: StageConfig) -> None:
        """Check the config of the stage before this one.

        Raises:
            ConfigError: this config requires something that the other stage does not support.
        """

    def check_downstream(self, downstream: StageConfig) -> None:
        """Check the config of the stage after this one.

        Raises:
            ConfigError: this config requires something that the other stage does not support.
        """

    def advice(self, output: ImageShape, num_classes: int | None) -> Iterable[str]:
        """Warnings before training, shown by ``cascadezoo plan``."""
        return ()


class GeneratorConfig(StageConfig):
    """Base config of a stage that draws an image without an upstream image."""

    size: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Height and width of the image in pixels; None uses the size that the next stage needs."""

    def fit(self, output: ImageShape) -> Self:
        """Fill in ``size``, or check it.

        Raises:
            ConfigError: ``size`` differs from the size that the next stage needs.
        """
        if self.size is None:
            return self.model_copy(update={"size": output.size})
        if self.size != output.size:
            message = f"is {self.size}, but the next stage needs {output.size}x{output.size}"
            raise ConfigError("size", message, code="size")
        return self

    def upstream_shape(self, output: ImageShape) -> ImageShape | None:
        """None: a generator has no upstream."""
        return None


class UpsamplerConfig(StageConfig):
    """Base config of a stage that enlarges its upstream image by an integer factor."""

    factor: Annotated[int, Field(ge=2, le=64)] = 2
    """The enlargement in each direction."""

    def upstream_shape(self, output: ImageShape) -> ImageShape:
        """The shape of the output, ``factor`` times smaller.

        Raises:
            ConfigError: the output's size is not a multiple of ``factor``.
        """
        if output.size % self.factor:
            message = f"is {self.factor}, which does not divide {output.size} pixels"
            raise ConfigError("factor", message, code="factor")
        return ImageShape(output.channels, output.size // self.factor, output.latent, output.tokens)


class RefinerConfig(StageConfig):
    """Base config of a stage that refines its upstream image and keeps the size."""


class DecoderConfig(StageConfig):
    """Base config of a stage that decodes latents into an image, and also encodes images.

    Its :meth:`upstream_shape` is a shape of latents or of tokens. The stage's ``upstream_target``
    encodes images.
    """


@dataclass(frozen=True, slots=True)
class DataInfo:
    """Information about a dataset before it is read. None: unknown until the data are read.

    Args:
        size: height and width of the images in pixels.
        channels: 1 or 3.
        num_classes: number of labels; 0 for images without labels.
        class_names: the names of the labels, from label 0 on.
        title: the dataset's name, for cards.
        license: its licence, for cards.
        hub_id: its repo on the Hub, for cards.
        train: number of training images.
        test: number of test images; 0 without a test split.
    """

    size: int | None = None
    channels: int | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    title: str | None = None
    license: str | None = None
    hub_id: str | None = None
    train: int | None = None
    test: int | None = None


class DataConfig(Model):
    """Base class of all dataset configs."""

    paths: ClassVar[tuple[str, ...] | None] = None
    """The fields that name files, folders or addresses; () if there are none.

    Paths in the config of a trained model from elsewhere are not opened unless the user confirms
    them. None: every text in the config may be a path."""

    def info(self) -> DataInfo:
        """Native size, channels and classes, without reading images; may read a file's header.

        Raises:
            DataError: the file or folder of the config is missing or not readable.
        """
        return DataInfo()

    def advice(self) -> Iterable[str]:
        """Warnings before training, shown by ``cascadezoo validate`` and ``plan``."""
        return ()


class CallbackConfig(Model):
    """Base config of a callback that needs packages that cascadezoo does not install."""

    packages: ClassVar[Mapping[str, str]] = {}
    """The distributions that must be installed, with the pip requirement of each. ``validate``,
    ``plan`` and ``build`` refuse the callback if one is missing."""


class EmptyConfig(Model):
    """The config of an entry without settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementPlan:
    """What is known of a measurement before anything is trained or sampled. None: not yet known.

    Args:
        size: height and width of the cascade's images in pixels.
        stages: number of stages.
        num_classes: number of labels; None without labels.
        n: number of images to sample.
        real: number of real images of the requested split.
        test: number of real images of the test split; 0 without one.
        subset_size: number of images in each subset.
        num_features: the length of the extractor's vectors.
    """

    size: int
    stages: int
    num_classes: int | None
    n: int
    real: int | None = None
    test: int | None = None
    subset_size: int
    num_features: int | None = None


class MetricConfig(Model):
    """Base config of a metric that refuses what it cannot measure before anything is trained."""

    splits: ClassVar[tuple[str, ...]] = ()
    """The splits of the data that the metric reads, besides the requested one."""

    preparation: ClassVar[str | None] = None
    """``package.module:function`` that ``build`` calls before training, with the config, the loaded
    extractor and the size of the images. It loads what the measurement needs, such as weights, and
    raises a ``CascadezooError`` if something is unavailable."""

    def check(self, plan: MeasurementPlan) -> None:
        """Check a measurement; ``validate`` and ``build`` call this before training.

        Args:
            plan: what is known so far. It is checked again when more is known.

        Raises:
            ConfigError: the metric cannot be measured so. The field is the name of a field of the
                spec's ``evaluation``, or "" for the metric itself.
        """
