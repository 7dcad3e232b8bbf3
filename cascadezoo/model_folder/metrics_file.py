"""metrics.json: its content, its JSON Schema and its reader. Free of torch."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from cascadezoo.errors import ModelError, SpecError
from cascadezoo.model_folder.figures import Count, Figure
from cascadezoo.model_folder.files import METRICS, read_file
from cascadezoo.spec import parse_json
from cascadezoo.spec.configs import Model
from cascadezoo.spec.faults import problems_of
from cascadezoo.util.limits import LARGEST_METRICS

__all__ = [
    "AttributionRow",
    "CourseRow",
    "DataRow",
    "MetricsFile",
    "ProblemRow",
    "StageRow",
    "TrainingRow",
    "metrics_schema",
    "parse_metrics",
    "read_metrics",
]

Seconds = Annotated[float, Field(ge=0)]
_FAULTS = 10
"""Number of faults that an error shows."""


class StageRow(Model):
    """A stage of the cascade."""

    name: str
    """Its name in the spec."""

    kind: str
    """Registry key of its implementation: `flow.v1`."""

    output: str
    """Shape of its output: `3x32x32`."""

    parameters: Count
    """Number of parameters of the stage in a loaded model."""

    evaluations: Count | None = None
    """Forward passes to sample one image."""

    flops: Count | None = None
    """Floating-point operations to sample one image; a multiplication and an addition count as
    two. Absent if it cannot be traced."""


class TrainingRow(Model):
    """How the cascade was trained, and the cost of the training."""

    seconds_per_epoch: dict[str, Seconds] = {}
    """By phase; extrapolated for a phase shorter than an epoch."""

    losses: dict[str, dict[str, float]] = {}
    """The last mean losses of each phase, by `stage.loss`."""

    device: str = ""
    """Description of the hardware."""

    processes: Annotated[int, Field(ge=1)] = 1
    """Number of processes of the training."""

    images: Count | None = None
    """Number of training images."""

    data_digest: str | None = None
    """Digest of the training data."""

    skipped_images: Count | None = None
    """Number of training images that could not be used; absent if the data were in memory."""

    skipped_shards: Count | None = None
    """Number of damaged shards, used up to the damage; absent if the data were in memory."""

    seconds: Seconds = 0.0
    """Training time over all resumed runs, without evaluation."""

    precision: str = ""
    """Precision of the training: `fp32`, `bf16`, `fp16`."""

    device_peak_bytes: Count | None = None
    """Peak memory of torch's allocator on the GPU during training; absent on a CPU."""

    process_peak_bytes: Count | None = None
    """Largest resident set of the process until the end of the training, including Python, all
    libraries and the data. With several processes, that of the first."""

    warnings: Annotated[list[Annotated[str, Field(max_length=10_000)]], Field(max_length=1000)] = []
    """What the build found wrong with the trained model, such as a loss that still falls; absent
    if nothing."""


class DataRow(Model):
    """Information about the dataset at training time."""

    source: str
    """Its registered name."""

    title: str | None = None
    """Its display name."""

    license: str | None = None
    """Its licence, if known."""

    hub_id: str | None = None
    """Its repo on the Hub, if any."""


class CourseRow(Model):
    """A figure measured during training."""

    phase: str
    epoch: Annotated[float, Field(ge=0)]
    """Epoch of the phase."""

    step: Count
    """Step of the whole training."""

    figure: Figure


class AttributionRow(Model):
    """The quality of a stage on real and on generated upstream images."""

    stage: str
    role: str
    real: Figure | None = None
    """Figure of its output on downsampled real images; null for a generator."""

    generated: Figure
    """Figure of its output on the images of the stages before it."""

    mismatch: float | None = None
    """Difference of the two: the effect of training on real images; null for a generator."""

    share: float | None = None
    """Share of the whole cascade's figure that this stage introduces."""


class ProblemRow(Model):
    """A requested metric that could not be measured."""

    metric: str
    why: str


class MetricsFile(Model):
    """The content of metrics.json: every figure of a model and how it was computed."""

    format: Literal[1] = 1
    name: str
    """The model's name."""

    spec_digest: str
    """sha256 of the resolved spec in config.json."""

    figures: list[Figure] = []
    stages: list[StageRow] = []
    """From the generator on."""

    training: TrainingRow = TrainingRow()
    course: list[CourseRow] = []
    data: DataRow | None = None
    attribution: list[AttributionRow] | None = None
    """Where the cascade loses quality, stage by stage; absent if not measured."""

    problems: list[ProblemRow] = []
    environment: dict[str, str] = {}
    """Versions of the software by name."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        counts = Counter(figure.name for figure in self.figures)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise ValueError(f"two figures have the name {twice[0]!r}")
        return self

    def to_dict(self) -> dict[str, Any]:
        """The content of the file: every field that is set."""
        data = self.model_dump(mode="json", exclude_none=True)
        for row in data.get("attribution", ()):
            row |= {key: row.get(key) for key in ("real", "mismatch")}
        if not self.problems:
            del data["problems"]
        if not self.training.warnings:
            del data["training"]["warnings"]
        return data

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


class _LenientTraining(TrainingRow):
    """Accepts any number: the loss of a diverged model may be nan."""

    model_config = ConfigDict(allow_inf_nan=True)

    seconds_per_epoch: dict[str, float] = {}
    losses: dict[str, dict[str, float]] = {}


class _LenientAttribution(AttributionRow):
    stage: str = ""
    role: str = ""


class _LenientMetrics(MetricsFile):
    name: str = ""
    spec_digest: str = ""
    training: TrainingRow = _LenientTraining()

    @field_validator("training", mode="before")
    @classmethod
    def _lenient_training(cls, value: Any) -> Any:
        return _LenientTraining.model_validate(value)

    @field_validator("attribution", mode="before")
    @classmethod
    def _lenient_attribution(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return TypeAdapter(list[_LenientAttribution]).validate_python(value)


def parse_metrics(text: bytes, source: str, *, strict: bool = True) -> MetricsFile:
    """Validate the bytes of a metrics.json.

    Args:
        text: the content of the file.
        source: its name in error messages.
        strict: reject unknown keys and numbers that are not finite, and require the name and the
            spec's digest. False ignores unknown keys, accepts any training losses and times, and
            treats missing values as empty; every other value must still be valid.

    Raises:
        ModelError: it is not JSON, is too large, or has an invalid value; with the value's path.
    """
    hint = "pull or copy the model again; a newer cascadezoo may have written it"
    try:
        data = parse_json(text, source, max_bytes=LARGEST_METRICS, finite=strict)
    except SpecError as error:
        raise ModelError(error.what, hint=hint, code="model-metrics-not-json") from None
    try:
        if strict:
            return MetricsFile.model_validate(data)
        return _LenientMetrics.model_validate(_known_keys(data))
    except ValidationError as error:
        problems = list(problems_of(error, data, ""))
        lines = "\n".join(f"  {problem}" for problem in problems[:_FAULTS])
        raise ModelError(
            f"{source} does not validate:\n{lines}",
            hint=hint,
            code="model-metrics-invalid",
            problems={p.path: p.code for p in problems},
        ) from None


def read_metrics(folder: Path, *, strict: bool = True) -> MetricsFile:
    """Read the metrics.json of a model folder.

    Args:
        folder: the model folder.
        strict: see :func:`parse_metrics`.

    Raises:
        ModelError: it is missing, cannot be read, or does not validate.
    """
    try:
        text = read_file(folder, METRICS)
    except FileNotFoundError:
        raise ModelError(
            f"{folder} has no {METRICS}, so its figures are unknown",
            hint="give the run folder of a finished build, or measure the model: cascadezoo "
            "evaluate MODEL --save",
            code="model-no-metrics",
            path=folder,
        ) from None
    return parse_metrics(text, str(folder / METRICS), strict=strict)


def _known_keys(data: dict[str, Any]) -> dict[str, Any]:
    """Remove the keys that a lenient reader does not know."""
    try:
        _LenientMetrics.model_validate(data)
    except ValidationError as error:
        unknown = [row["loc"] for row in error.errors() if row["type"] == "extra_forbidden"]
        for *parents, key in unknown:
            node: Any = data
            for parent in parents:
                node = node[parent]
            del node[key]
    return data


def metrics_schema() -> dict[str, Any]:
    """The JSON Schema of metrics.json."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **MetricsFile.model_json_schema(),
        "title": "cascadezoo metrics.json",
    }
