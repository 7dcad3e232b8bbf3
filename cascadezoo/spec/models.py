"""The spec: describes a cascade, its training, evaluation and publishing. Does not import torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from cascadezoo.errors import UnknownNameError
from cascadezoo.spec.configs import DataConfig, Model, Probability, StageConfig
from cascadezoo.spec.typed import config_data
from cascadezoo.util.limits import MOST_CLASSES, PROJECT_NAME, PROJECT_URL

__all__ = [
    "FROM_DATA",
    "CallbackSpec",
    "CascadeSpec",
    "DataSpec",
    "EmaSpec",
    "EvaluationSpec",
    "GroupTraining",
    "InLoopSpec",
    "LossSpec",
    "OptimizerSpec",
    "PhaseSpec",
    "PublishSpec",
    "ReflowSpec",
    "ScheduleSpec",
    "StageSpec",
    "StageTraining",
    "StreamSpec",
    "TeacherForcing",
    "TrainingSpec",
]

FROM_DATA = ("size", "channels", "num_classes")
"""The fields of ``data`` that a spec may leave to its dataset; a resolved spec states them."""

MOST_NAMES = 10_000
"""Largest number of class names that a spec states; more would make its file too large."""

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*([-_.][a-z0-9]+)*$", max_length=80)]
PartName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*([-_][a-z0-9]+)*$", max_length=40)]
Text = Annotated[str, Field(max_length=4000)]
LearningRate = Annotated[float, Field(ge=0.0, le=10.0)]
WeightDecay = Annotated[float, Field(ge=0.0, le=1.0)]
Betas = Annotated[list[Annotated[float, Field(ge=0.0, lt=1.0)]], Field(min_length=2, max_length=2)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]


class StageSpec(Model):
    """One stage: the envelope around the config of its kind."""

    name: PartName
    """The stage's name, unique in the cascade."""
    kind: Annotated[str, Field(min_length=1, max_length=80)]
    """The registry key, e.g. `diffusion.v1`; `diffusion` means the newest version."""
    config: dict[str, Any] = {}
    """The settings of that kind; `cascadezoo stages show KIND` lists them."""

    if TYPE_CHECKING:

        def __init__(
            self, *, name: str, kind: str, config: Mapping[str, Any] | StageConfig = ...
        ) -> None: ...

    @field_validator("config", mode="before")
    @classmethod
    def _typed_config(cls, config: Any, info: ValidationInfo) -> Any:
        return config_data(config, info.data.get("kind"), "stages")


class StreamSpec(Model):
    """How data that stay encoded are read; resident data ignore these settings."""

    buffer: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """Images are shuffled in blocks of this number, after the order of the shards."""
    workers: Annotated[int, Field(ge=0, le=128)] | None = None
    """Number of processes that decode for each training process; 0 decodes in the training
    process; None uses the other cores, at most 8. It does not affect the result."""
    max_bad: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    """The share of images, and of shards, that may be damaged. The next good image replaces a bad
    one; the model's card states how many were bad. 0 stops at the first."""


class DataSpec(Model):
    """The dataset, and how its images are adapted to the cascade."""

    source: Annotated[str, Field(min_length=1, max_length=80)]
    """The registered name of the dataset."""
    config: dict[str, Any] = {}
    """The dataset's own settings."""

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            source: str,
            config: Mapping[str, Any] | DataConfig = ...,
            size: int | None = ...,
            channels: Literal[1, 3] | None = ...,
            num_classes: int | None = ...,
            class_names: list[str] | None = ...,
            fit: Literal["resize", "pad", "crop"] = ...,
            streaming: Literal["auto"] | bool = ...,
            stream: StreamSpec = ...,
            flip: bool = ...,
        ) -> None: ...

    @field_validator("config", mode="before")
    @classmethod
    def _typed_config(cls, config: Any, info: ValidationInfo) -> Any:
        return config_data(config, info.data.get("source"), "datasets")

    size: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Height and width of the cascade's images in pixels; None uses the dataset's size."""
    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for RGB; None uses the dataset's channels."""
    num_classes: Annotated[int, Field(ge=0, le=MOST_CLASSES)] | None = None
    """Number of labels; 0 trains without labels; None uses the dataset's number."""
    class_names: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=200)]],
            Field(min_length=1, max_length=MOST_NAMES),
        ]
        | None
    ) = None
    """The names of the labels, from label 0 on; None uses the dataset's names, if it has any."""
    fit: Literal["resize", "pad", "crop"] = "resize"
    """How images of another size are converted to `size`."""
    streaming: Literal["auto"] | bool = "auto"
    """Whether images stay encoded and are decoded during the training. `auto` does so if the
    decoded images are larger than the limit of data in memory, or if `stream.max_bad` is set."""
    stream: StreamSpec = StreamSpec()
    """How to read such data."""
    flip: bool = False
    """Mirror each training image left to right with probability one half."""


class OptimizerSpec(Model):
    """The optimizer of a phase."""

    kind: Literal["adamw", "adam"] = "adamw"
    lr: LearningRate = 2e-4
    """The peak learning rate."""
    betas: Betas = [0.9, 0.999]
    eps: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-8
    weight_decay: WeightDecay = 0.0


class ScheduleSpec(Model):
    """The learning rate over a phase, after a linear warm-up of `warmup_steps`."""

    kind: Literal["constant", "step", "cosine"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    step_epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 15
    """`step`: the rate is multiplied by `gamma` every `step_epochs` epochs."""
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    final: Probability = 0.0
    """`cosine`: the final learning rate, as a share of the peak."""


class GroupTraining(Model):
    """Training options of one parameter group of a stage; None uses the kind's own options."""

    lr: LearningRate | None = None
    """The learning rate; None uses the stage's rate, times the factor of its kind."""
    betas: Betas | None = None
    weight_decay: WeightDecay | None = None
    every: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """The group is updated once in this number of steps."""


class StageTraining(Model):
    """Training options of one stage that differ from its phase."""

    lr: LearningRate | None = None
    weight_decay: WeightDecay | None = None
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    """Overrides `training.ema.decay`, even if `training.ema` is null; 0 disables averaging."""
    groups: dict[Annotated[str, Field(min_length=1, max_length=80)], GroupTraining] = {}
    """Options of single parameter groups, such as a GAN's `discriminator`."""


class TeacherForcing(Model):
    """The probability that a stage receives the true downsampled image; linear over the phase."""

    start: Probability = 1.0
    end: Probability = 1.0
    per: Literal["sample", "batch"] = "sample"
    """Draw separately for each image, or once for the whole batch."""


class ReflowSpec(Model):
    """Training on pairs of noise and the image that the generator makes from it.

    Reflow straightens the paths of a rectified flow, so fewer steps are enough (Liu et al. 2023,
    section 3). The pairs are made when the phase begins and replace the dataset in it. `steps`,
    `guidance` and `sampler` default to the generator's own values.
    """

    pairs: Annotated[int, Field(ge=1, le=100_000_000)]
    """Number of pairs; an epoch of the phase visits each pair once."""
    steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    guidance: Annotated[float, Field(ge=0.0, le=1000.0)] | None = None
    sampler: Annotated[str, Field(min_length=1, max_length=80)] | None = None

    def settings(self) -> dict[str, Any]:
        """The sampling settings that are not None, by name."""
        settings = {name: getattr(self, name) for name in ("steps", "guidance", "sampler")}
        return {name: value for name, value in settings.items() if value is not None}


class PhaseSpec(Model):
    """One part of the training: which stages learn, and for how long."""

    name: PartName
    train: Annotated[list[PartName], Field(min_length=1)]
    """The stages that learn; the others are frozen."""
    epochs: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    steps: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    joint: bool = False
    """Let gradients flow from each trained stage into the ones before it."""
    teacher_forcing: TeacherForcing = TeacherForcing()
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Images per step of this phase, over all processes; None uses `training.batch_size`."""
    optimizer: OptimizerSpec | None = None
    """Overrides of `training.optimizer`."""
    schedule: ScheduleSpec | None = None
    """Overrides of `training.schedule`."""
    stages: dict[PartName, StageTraining] = {}
    """Overrides for single stages."""
    reflow: ReflowSpec | None = None
    """Train the generator on its own pairs, in a separate phase; not all kinds support this."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs and steps")
        return self


class LossSpec(Model):
    """A loss on a stage's estimate, in addition to the losses of its kind."""

    kind: Annotated[str, Field(min_length=1, max_length=80)] = "lpips"
    """The registered name of the loss."""
    stage: PartName
    """The stage whose estimate is compared with its target."""
    weight: Annotated[float, Field(ge=0.0, le=1e6)] = 1.0
    """The factor of the loss; with 0 the loss is neither loaded nor computed."""
    config: dict[str, Any] = {}

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            stage: str,
            kind: str = ...,
            weight: float = ...,
            config: Mapping[str, Any] | Model = ...,
        ) -> None: ...

    @field_validator("config", mode="before")
    @classmethod
    def _typed_config(cls, config: Any, info: ValidationInfo) -> Any:
        return config_data(config, info.data.get("kind"), "losses")


class CallbackSpec(Model):
    """A receiver of training events, for example a tracker. It does not affect the training.

    The config is part of the published spec: it must not contain passwords or tokens.
    """

    kind: Annotated[str, Field(min_length=1, max_length=80)]
    """The registered name of the callback."""
    config: dict[str, Any] = {}

    if TYPE_CHECKING:

        def __init__(self, *, kind: str, config: Mapping[str, Any] | Model = ...) -> None: ...

    @field_validator("config", mode="before")
    @classmethod
    def _typed_config(cls, config: Any, info: ValidationInfo) -> Any:
        return config_data(config, info.data.get("kind"), "callbacks")


class EmaSpec(Model):
    """Exponential moving average of the weights in a phase; it replaces them at the end."""

    decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    warmup: bool = True
    """Use min(decay, (1 + step) / (10 + step)), so that averaging also works in short phases."""


class TrainingSpec(Model):
    """How the cascade is trained."""

    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 128
    """Images per step, over all processes."""
    accumulate: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Number of equal parts of each batch. The gradients of the parts are added before the
    optimizer's step, so only one part must fit in memory. `batch_size` must be a multiple of it."""
    recompute: bool = False
    """Recompute the activations of residual, attention and DiT blocks in the backward pass, which
    needs less memory and about a third more time (Chen et al. 2016)."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`auto` uses bf16 on GPUs and CPUs with instructions for it (CPUs: avx512_bf16 or AMX), and
    fp32 otherwise. A resumed training keeps its precision. Builds on different machines can
    only be equal bit for bit in `fp32`."""
    compile: Literal["auto", "blocks", "network", "graphs"] | bool = "auto"
    """How training steps are accelerated. `blocks` (or true) compiles each kind of block with
    `torch.compile`. `network` compiles each network as one, which takes longer and runs faster.
    `graphs` replays networks from CUDA graphs. `auto` uses `graphs` on CUDA; on a CPU it compiles
    if the training is long enough to gain more time than the compilation takes."""
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    """How several processes (`torchrun`) share a training. `ddp` keeps all weights in each process
    and exchanges gradients. `fsdp` divides weights, gradients, optimizer and average among the
    processes, which needs less memory and more communication. `auto` is `ddp`. It does not change
    the results, and has no effect on a single process."""
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    ema: EmaSpec | None = EmaSpec()
    clip_norm: Annotated[float, Field(gt=0.0, le=1e9)] | None = 1.0
    """The maximum norm of all gradients together; None disables clipping."""
    losses: list[LossSpec] | None = None
    """Additional losses; None adds LPIPS (vgg, weight 1) to each refiner; [] adds none."""
    phases: list[PhaseSpec] | None = None
    """None uses the study's phases: generator, then the rest, then all jointly (35+35+30 epochs).

    Decoders are trained first, each in a separate phase (35 epochs), and not again."""
    callbacks: Annotated[list[CallbackSpec], Field(max_length=16)] = []
    """Receivers of phases, steps, epochs and figures, in addition to the run folder."""
    log_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """Number of steps between logged losses."""
    checkpoint_seconds: Annotated[float, Field(ge=0.0, le=1e6)] = 300.0
    """Seconds between checkpoints; each phase also ends with one."""

    @field_validator("accumulate")
    @classmethod
    def _splits_evenly(cls, accumulate: int, info: ValidationInfo) -> int:
        batch_size = info.data.get("batch_size")
        if batch_size is not None and batch_size % accumulate:
            raise ValueError(f"is {accumulate}, which does not divide batch_size, {batch_size}")
        return accumulate


def _check_subset(subset_size: int, samples: int) -> None:
    if subset_size > samples:
        raise ValueError(
            f"subset_size {subset_size} is more than the {samples} samples; "
            "lower it or raise samples"
        )


class InLoopSpec(Model):
    """A figure on few samples during training, to monitor progress."""

    every_epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 5
    extractor: Annotated[str, Field(min_length=1, max_length=120)] = "small"
    samples: Annotated[int, Field(ge=10, le=1_000_000)] = 500
    subsets: Annotated[int, Field(ge=1, le=10_000)] = 20
    subset_size: Annotated[int, Field(ge=5, le=1_000_000)] = 250
    metric: Literal["kid", "fid"] = "kid"
    """The figure; subsets are those of KID. FID needs more samples than the extractor has
    features."""
    pictures: Annotated[int, Field(ge=0, le=64)] = 0
    """Number of samples to draw beside each figure, for the run folder and its report. A decoder's
    reconstructions of real images are drawn too."""
    keep: Literal["last", "best"] = "last"
    """The weights of the model: those at the end of the training, or those with the lowest figure
    in its last phase (Ho et al. 2021, section 4, choose by FID of 10,000 samples)."""

    @model_validator(mode="after")
    def _subset_fits(self) -> Self:
        _check_subset(self.subset_size, self.samples)
        return self


class EvaluationSpec(Model):
    """The figures of the metric card, and how they are computed."""

    metrics: list[Annotated[str, Field(min_length=1, max_length=80)]] = ["kid"]
    extractor: Annotated[str, Field(min_length=1, max_length=120)] = "inception"
    """The registered feature extractor."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """The precision of the extractor; bf16 is faster, and is part of the figure's name."""
    samples: Annotated[int, Field(ge=10, le=10_000_000)] = 2000
    """Number of sampled images, and the maximum number of real images to compare with."""
    subsets: Annotated[int, Field(ge=1, le=10_000)] = 100
    subset_size: Annotated[int, Field(ge=5, le=1_000_000)] = 1000
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    batch_size: Count = 100
    split: Literal["train", "test"] = "train"
    """The real images to compare the samples with."""
    in_loop: InLoopSpec | None = None

    @model_validator(mode="after")
    def _subset_fits(self) -> Self:
        _check_subset(self.subset_size, self.samples)
        return self


class PublishSpec(Model):
    """Where to publish the model after the build."""

    to: Annotated[str, Field(min_length=1, max_length=4096)]
    """A folder, or `org/name` on the Hub."""
    private: bool = False


class CascadeSpec(Model):
    """A cascade: its data, its stages from coarse to fine, its training and its figures."""

    schema_uri: Annotated[str, Field(max_length=4096)] | None = Field(default=None, alias="$schema")
    spec_version: Literal[1] = 1
    name: Name
    """The name of the model and of the run folder."""
    description: Text = ""
    license: Annotated[str, Field(max_length=80)] = "apache-2.0"
    """The licence of the trained weights, as a Hub identifier."""
    tags: Annotated[list[Annotated[str, Field(max_length=80)]], Field(max_length=50)] = []
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    data: DataSpec
    stages: Annotated[list[StageSpec], Field(min_length=1, max_length=16)]
    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    publish: PublishSpec | None = None
    requires: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=64)] = []
    """The distributions that provide the kinds, as pip requirements; derived if omitted."""
    project_urls: Annotated[
        dict[
            Annotated[str, Field(pattern=PROJECT_NAME, max_length=100)],
            Annotated[str, Field(pattern=PROJECT_URL, max_length=200)],
        ],
        Field(max_length=64),
    ] = {}
    """The address of each distribution's project, from its metadata; derived if omitted."""

    def with_stage(self, stage: StageSpec) -> Self:
        """A copy with another stage in the place of the one of the same name.

        Args:
            stage: the new stage.

        Raises:
            UnknownNameError: no stage has this name.
        """
        names = [row.name for row in self.stages]
        if stage.name not in names:
            raise UnknownNameError(
                f"the spec {self.name!r} has no stage {stage.name!r}",
                hint=f"use one of {', '.join(map(repr, names))}",
                code="lookup-stage",
                name=stage.name,
            )
        stages = [stage if row.name == stage.name else row for row in self.stages]
        return self.model_copy(update={"stages": stages})

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON data, with every default written out."""
        data = self.model_dump(mode="json", by_alias=True)
        if self.schema_uri is None:
            del data["$schema"]
        if self.data.class_names is None:
            del data["data"]["class_names"]
        if not self.project_urls:
            del data["project_urls"]
        return data

    def to_json(self) -> str:
        """The spec as indented JSON text with a final newline."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    def digest(self) -> str:
        """The sha256 of the whole spec in canonical JSON."""
        return _digest(_without_later_keys(self.to_dict()))

    def training_digest(self) -> str:
        """The sha256 of everything that determines the trained weights.

        It excludes texts, final evaluation and publishing, so changes of those do not require
        another training.
        """
        data = self.to_dict()
        for key in ("$schema", "description", "license", "tags", "publish", "requires"):
            data.pop(key, None)
        data["evaluation"] = data["evaluation"]["in_loop"]
        for key in ("log_steps", "checkpoint_seconds", "callbacks", "parallel"):
            data["training"].pop(key)
        data["data"]["stream"].pop("workers")
        return _digest(_without_later_keys(data))


_LATER_SETTINGS: dict[str, object] = {
    "blur_probability": 0.5,
    "blur_sigma": [0.4, 0.6],
    "cosine_offset": 0.008,
    "dynamic_threshold": None,
    "restart": 0.0,
    "s_min": 0.0,
    "sampling_schedule": "trained",
}
"""Settings of stages that kinds got after models of them were published, with their defaults."""


def _without_later_keys(data: dict[str, Any]) -> dict[str, Any]:
    """Drop keys of later versions at their defaults, so that digests do not change."""
    # Names and addresses change neither the training nor the images.
    data["data"].pop("class_names", None)
    data.pop("project_urls", None)
    # The training digest only includes the evaluation during training.
    if (data["evaluation"] or {}).get("precision") == "fp32":
        del data["evaluation"]["precision"]
    evaluation = data["evaluation"] or {}
    in_loop = evaluation.get("in_loop", evaluation) or {}
    for key, default in {"metric": "kid", "keep": "last", "pictures": 0}.items():
        if in_loop.get(key) == default:
            del in_loop[key]
    if not data["training"].get("callbacks", True):
        del data["training"]["callbacks"]
    later = {"compile": "auto", "accumulate": 1, "recompute": False, "parallel": "auto"}
    for key, default in later.items():
        if data["training"].get(key, ...) == default:
            del data["training"][key]
    if data["data"]["streaming"] == "auto":
        del data["data"]["streaming"]
    stream = data["data"]["stream"]
    defaults = StreamSpec().model_dump(mode="json")
    if all(value == defaults[key] for key, value in stream.items()):
        del data["data"]["stream"]
    for stage in data["stages"]:
        if stage["config"].get("pad_to", 0) is None:
            del stage["config"]["pad_to"]
        if stage["config"].get("halve_last") is False:
            del stage["config"]["halve_last"]
        for key, default in _LATER_SETTINGS.items():
            if key in stage["config"] and stage["config"][key] == default:
                del stage["config"][key]
    for phase in data["training"]["phases"] or []:
        if phase["reflow"] is None:
            del phase["reflow"]
        if phase["batch_size"] is None:
            del phase["batch_size"]
        for stage in phase["stages"].values():
            if stage["ema_decay"] is None:
                del stage["ema_decay"]
            if not stage["groups"]:
                del stage["groups"]
    return data


def _digest(data: dict[str, Any]) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
