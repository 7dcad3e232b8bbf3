"""A figure of metrics.json: a number and how it was computed. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from cascadezoo.errors import ModelError
from cascadezoo.model_folder.reproduction import metric_texts
from cascadezoo.spec.configs import Model
from cascadezoo.util.numbers import power, spread

__all__ = ["Figure", "figure_name"]

Count = Annotated[int, Field(ge=0)]


def figure_name(
    metric: str, n: int, extractor: str | None = None, precision: str | None = None
) -> str:
    """Return the name of a figure; figures of the same name are comparable.

    >>> figure_name("kid", 10000, "inception")
    'kid.inception.n10000'
    >>> figure_name("kid", 2000, "small", "bf16")
    'kid.small-bf16.n2000'
    >>> figure_name("images-per-second", 64)
    'images-per-second.n64'
    """
    parts = [metric]
    if extractor is not None:
        parts.append(extractor if precision in (None, "fp32") else f"{extractor}-{precision}")
    return ".".join([*parts, f"n{n}"])


class Figure(Model):
    """A measured number and everything that is needed to measure it again."""

    name: str
    """Metric, extractor and sample count: ``kid.inception.n10000``. A suffix names a part of the
    metric (``psnr.n1000.up``) and a split other than ``train`` (``fid.inception.n10000.test``).
    """

    metric: str
    """The metric: ``kid``."""

    value: float
    """The number, in the metric's own unit."""

    n: Count
    """Number of generated images."""

    std: Annotated[float, Field(ge=0)] | None = None
    """Spread of the value: over subsets, or its standard error; see the metric's page."""

    tolerance: Annotated[float, Field(ge=0)] | None = None
    """Accepted difference when the value is recomputed; None if that is meaningless, for example
    for a speed."""

    unit: str | None = None
    """Unit of the value, if any: ``dB``, ``images/s``."""

    extractor: str | None = None
    """Registry key of the feature extractor."""

    extractor_version: str | None = None
    """Version of the feature extractor."""

    extractor_sha256: str | None = None
    """Digest of the feature extractor's weights."""

    precision: Literal["fp32", "bf16"] | None = None
    """Precision of the feature extractor."""

    n_real: Count | None = None
    """Number of real images."""

    subsets: Count | None = None
    """Number of random subsets."""

    subset_size: Count | None = None
    """Number of generated images, and of real images, in each subset."""

    seed: int | None = None
    """Seed of the generated images and of the subsets."""

    split: str | None = None
    """Split of the real images: ``train`` or ``test``."""

    data_digest: str | None = None
    """Digest of the real data."""

    resolution: Annotated[int, Field(ge=1)] | None = None
    """Height and width of the images in pixels, before the extractor resizes them."""

    seconds: Annotated[float, Field(ge=0)] | None = None
    """Seconds of the measurement, without sampling."""

    sampling_seconds: Annotated[float, Field(ge=0)] | None = None
    """Seconds of sampling the generated images."""

    device: str | None = None
    """Device of the measurement: ``cpu``, ``cuda``."""

    settings: dict[str, bool | int | float | str] | None = None
    """Everything else that the value depends on, by name."""

    note: str | None = None
    """What a reader must know besides the number."""

    @model_validator(mode="after")
    def _name_tells_how(self) -> Self:
        """Check that the name fits the fields, so that figures of one name are comparable."""
        name = figure_name(self.metric, self.n, self.extractor, self.precision)
        if self.name != name and not self.name.startswith(f"{name}."):
            raise ValueError(f"the name {self.name!r} does not fit the fields, which give {name!r}")
        return self

    @property
    def images_per_second(self) -> float | None:
        """Sampling speed; None if it was not measured."""
        return self.n / self.sampling_seconds if self.sampling_seconds else None

    def to_dict(self) -> dict[str, Any]:
        """The figure as in metrics.json: every field that is set."""
        return self.model_dump(exclude_none=True)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, source: str = "metrics.json") -> Self:
        """Restore a figure from :meth:`to_dict`.

        Raises:
            ModelError: keys are missing, unknown or of the wrong type, or the name does not
                fit the fields.
        """
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            faults = "; ".join(
                ": ".join([*(str(part) for part in fault["loc"]), fault["msg"]])
                for fault in error.errors()
            )
            raise ModelError(
                f"{source} contains an invalid figure: {faults}",
                hint="pull the model again; a newer cascadezoo may have written it",
                code="model-figure-invalid",
                problems={
                    ".".join(map(str, fault["loc"])): fault["type"].replace("_", "-")
                    for fault in error.errors()
                },
            ) from error

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"

    @property
    def text(self) -> str:
        """Value, spread and unit in the metric's display scale."""
        scale = metric_texts(self.metric).scale
        value = spread(self.value, self.std, scale)
        return f"{value}{power(scale)}" + (f" {self.unit}" if self.unit else "")
