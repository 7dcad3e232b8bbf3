"""Base classes of the configs that plugins write: stages and datasets. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic_core import CoreSchema

__all__ = [
    "ConfigError",
    "DataConfig",
    "DataInfo",
    "DecoderConfig",
    "EmptyConfig",
    "GeneratorConfig",
    "ImageShape",
    "Model",
    "Probability",
    "RefinerConfig",
    "StageConfig",
    "UpsamplerConfig",
    "Width",
]

# Wide enough for any network; what a machine can hold is for ``plan`` to say, from the meta device.
Width = Annotated[int, Field(ge=1, le=2**31 - 1)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class Model(BaseModel):
    """A pydantic model that forbids unknown keys, coercion between types, inf and nan."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        validate_default=True,
    )

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
    """The strings that stand under the fields of a model and its bases.

    Read from the source when a schema is asked for: pydantic's ``use_attribute_docstrings`` reads
    it whenever a model is imported, which costs a third of the start of ``cascadezoo validate``.
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
            continue  # a class without source, made at run time
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for field, text in itertools.pairwise(body):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                docs[field.target.id] = inspect.cleandoc(str(text.value.value))
    return docs


class ConfigError(ValueError):
    """A config cannot work where it stands; names the field so that the error gets a path.

    Args:
        field: the config's field at fault, dotted for nested ones, or "" for the config itself.
        message: what is wrong.
        code: which fault it is, in kebab-case.
    """

    def __init__(self, field: str, message: str, *, code: str = "invalid") -> None:
        super().__init__(message)
        self.field = field
        self.message = message
        self.code = code


@dataclass(frozen=True, slots=True)
class ImageShape:
    """What flows between stages: ``channels`` x ``size`` x ``size``.

    Pixels lie in [-1, 1]; ``latent`` marks an encoder's output, which has no such bounds.
    """

    channels: int
    size: int
    latent: bool = False

    def __str__(self) -> str:
        kind = " latents" if self.latent else ""
        return f"{self.channels}x{self.size}x{self.size}{kind}"


class StageConfig(Model):
    """Base of every stage's config.

    Sizes chain from the end of the cascade: the last stage makes the data's images, and each
    stage says by :meth:`upstream_shape` what it needs from the one before it.
    """

    frozen: ClassVar[bool] = False
    """Whether the stage's weights are never trained; phases cannot name such a stage."""

    reflows: ClassVar[bool] = False
    """Whether the stage can be trained on pairs of its own noise and images."""

    stops: ClassVar[bool] = False
    """Whether sampling can stop at a noise level: the stage heeds the option ``stop``."""

    paired: ClassVar[bool] = True
    """Whether the estimate of training is a guess of its own target; that of a GAN's is not."""

    heeds_paired: ClassVar[bool] = False
    """Whether the stage can learn from upstream images that are not of its targets: it heeds
    ``TrainContext.paired``."""

    parameterless: ClassVar[bool] = False
    """Whether the stage has nothing to train. Whether a phase names it makes no difference: it
    takes part where the stages around it do."""

    widths: ClassVar[tuple[str, ...]] = ()
    """The fields that scale the number of parameters: whole numbers, all scaled together by
    ``cascadezoo plan --match-params``; the first sets the grid, the others keep their ratio to it.
    More must never make fewer parameters. Empty: the number cannot be chosen."""

    def width_step(self, field: str) -> int:
        """What a width of :attr:`widths` must be a multiple of, e.g. the number of heads."""
        return 1

    def fit(self, output: ImageShape) -> Self:
        """This config with what follows from its place filled in.

        Args:
            output: the image that the stage must make.

        Raises:
            ConfigError: the config contradicts its place.
        """
        return self

    def upstream_shape(self, output: ImageShape) -> ImageShape | None:
        """The image that this stage needs from the one before it; None for a generator."""
        return output

    def check_upstream(self, upstream: StageConfig) -> None:
        """Look at the config of the stage before this one.

        Raises:
            ConfigError: this config asks for what that stage cannot do.
        """

    def advice(self, output: ImageShape, num_classes: int | None) -> Iterable[str]:
        """What an expert would warn of before training. Shown by ``cascadezoo plan``."""
        return ()


class GeneratorConfig(StageConfig):
    """Base config of a stage that draws an image from nothing."""

    size: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Height and width of the image in pixels; None takes what the next stage needs."""

    def fit(self, output: ImageShape) -> Self:
        """Fill ``size`` in, or check it.

        Raises:
            ConfigError: ``size`` is not what the next stage needs.
        """
        if self.size is None:
            return self.model_copy(update={"size": output.size})
        if self.size != output.size:
            message = f"is {self.size}, but what follows needs {output.size}x{output.size}"
            raise ConfigError("size", message, code="size")
        return self

    def upstream_shape(self, output: ImageShape) -> ImageShape | None:
        """None: a generator has no upstream."""
        return None


class UpsamplerConfig(StageConfig):
    """Base config of a stage that enlarges its upstream image by a whole factor."""

    factor: Annotated[int, Field(ge=2, le=64)] = 2
    """How many times larger the image becomes in each direction."""

    def upstream_shape(self, output: ImageShape) -> ImageShape:
        """The same image, ``factor`` times smaller.

        Raises:
            ConfigError: the output's size is not a multiple of ``factor``.
        """
        if output.size % self.factor:
            message = f"is {self.factor}, which does not divide the {output.size} pixels to make"
            raise ConfigError("factor", message, code="factor")
        return ImageShape(output.channels, output.size // self.factor, output.latent)


class RefinerConfig(StageConfig):
    """Base config of a stage that sharpens its upstream image and keeps its size."""


class DecoderConfig(StageConfig):
    """Base config of a stage that turns latents into an image, and makes the latents itself.

    Its :meth:`upstream_shape` is of latents; the stage's ``upstream_target`` encodes images.
    """


@dataclass(frozen=True, slots=True)
class DataInfo:
    """What is known of a dataset before it is read. None: only the data themselves tell."""

    size: int | None = None
    channels: int | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    title: str | None = None
    license: str | None = None
    hub_id: str | None = None


class DataConfig(Model):
    """Base of every dataset's config."""

    def info(self) -> DataInfo:
        """Native size, channels and classes, without reading images; may look at a file's header.

        Raises:
            DataError: the file or folder that the config names is not there or not readable.
        """
        return DataInfo()


class EmptyConfig(Model):
    """The config of a thing that has no settings."""
