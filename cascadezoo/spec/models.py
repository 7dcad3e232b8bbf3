"""The spec: what a cascade is and how it is trained, measured and published. Free of torch."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from cascadezoo.spec.configs import Model, Probability

__all__ = [
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
    "TeacherForcing",
    "TrainingSpec",
]

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
    """The registry key, e.g. `diffusion.v1`; `diffusion` takes the newest version."""
    config: dict[str, Any] = {}
    """The settings of that kind; `cascadezoo stages show KIND` lists them."""


class DataSpec(Model):
    """The dataset and how its images become the cascade's."""

    source: Annotated[str, Field(min_length=1, max_length=80)]
    """The registered name of the dataset."""
    config: dict[str, Any] = {}
    """The dataset's own settings."""
    size: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Height and width of the cascade's images in pixels; None is the dataset's own size."""
    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for RGB; None is what the dataset has."""
    num_classes: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """How many labels there are; 0 trains without labels; None is what the dataset has."""
    fit: Literal["resize", "pad", "crop"] = "resize"
    """How images of another size are brought to `size`."""
    flip: bool = False
    """Mirror training images left to right, half of the time."""


class OptimizerSpec(Model):
    """The optimizer of a phase."""

    kind: Literal["adamw", "adam"] = "adamw"
    lr: LearningRate = 2e-4
    """The learning rate at its highest."""
    betas: Betas = [0.9, 0.999]
    eps: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-8
    weight_decay: WeightDecay = 0.0


class ScheduleSpec(Model):
    """How the learning rate goes over a phase, after `warmup_steps` of linear rise."""

    kind: Literal["constant", "step", "cosine"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    step_epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 15
    """`step`: the rate is multiplied by `gamma` each time so many epochs have passed."""
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    final: Probability = 0.0
    """`cosine`: the share of the rate that is left at the end of the phase."""


class GroupTraining(Model):
    """How one parameter group of a stage is trained; None is as its kind wants it."""

    lr: LearningRate | None = None
    """Left out, it is the stage's, times the factor of its kind."""
    betas: Betas | None = None
    weight_decay: WeightDecay | None = None
    every: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """The group learns in one of so many steps."""


class StageTraining(Model):
    """What one stage does differently from the others of its phase."""

    lr: LearningRate | None = None
    weight_decay: WeightDecay | None = None
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    """In place of `training.ema.decay`, also where `training.ema` is null; 0 averages nothing."""
    groups: dict[Annotated[str, Field(min_length=1, max_length=80)], GroupTraining] = {}
    """What differs for single parameter groups, as a GAN's `discriminator`."""


class TeacherForcing(Model):
    """The probability that a stage gets the true downsampled image, linear over the phase."""

    start: Probability = 1.0
    end: Probability = 1.0
    per: Literal["sample", "batch"] = "sample"
    """Whether each image draws for itself or the batch as one."""


class ReflowSpec(Model):
    """Training on pairs of noise and the image that the generator itself makes of it.

    Straightens the paths of a rectified flow, so that fewer steps do (Liu et al. 2023, section
    3). The pairs are made when the phase begins and take the place of the dataset in it; `steps`,
    `guidance` and `sampler` are the generator's own unless they are given.
    """

    pairs: Annotated[int, Field(ge=1, le=100_000_000)]
    """How many pairs are made; an epoch of the phase goes once through them."""
    steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    guidance: Annotated[float, Field(ge=0.0, le=1000.0)] | None = None
    sampler: Annotated[str, Field(min_length=1, max_length=80)] | None = None

    def settings(self) -> dict[str, Any]:
        """What is asked of the generator: the settings that are given, by name."""
        asked = {name: getattr(self, name) for name in ("steps", "guidance", "sampler")}
        return {name: value for name, value in asked.items() if value is not None}


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
    optimizer: OptimizerSpec | None = None
    """What differs from `training.optimizer`."""
    schedule: ScheduleSpec | None = None
    """What differs from `training.schedule`."""
    stages: dict[PartName, StageTraining] = {}
    """What differs for single stages."""
    reflow: ReflowSpec | None = None
    """Train the generator on its own pairs; for kinds that can, in a phase of their own."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs and steps")
        return self


class LossSpec(Model):
    """A loss on a stage's estimate, besides the ones that its kind has."""

    kind: Annotated[str, Field(min_length=1, max_length=80)] = "lpips"
    """The registered name of the loss."""
    stage: PartName
    """The stage whose estimate is compared with its target."""
    weight: Annotated[float, Field(ge=0.0, le=1e6)] = 1.0
    """What the loss is multiplied by; at 0 it is neither loaded nor computed."""
    config: dict[str, Any] = {}


class CallbackSpec(Model):
    """Who is told of the training, as a tracker. It changes nothing of what is trained.

    The config is part of the published spec: it must hold no passwords and no tokens.
    """

    kind: Annotated[str, Field(min_length=1, max_length=80)]
    """The registered name of the callback."""
    config: dict[str, Any] = {}


class EmaSpec(Model):
    """Exponential moving average of the weights, per phase; a phase ends on the averaged ones."""

    decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    warmup: bool = True
    """Use min(decay, (1 + step) / (10 + step)), so that short phases are averaged too."""


class TrainingSpec(Model):
    """How the cascade is trained."""

    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 128
    """Images in a step, over all processes together."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`auto` takes bf16 where the hardware computes in it, else fp32."""
    compile: Literal["auto", "blocks", "network", "graphs"] | bool = "auto"
    """What makes training steps faster. `blocks` (or true) compiles each kind of block by
    `torch.compile`, `network` each network as one, which takes longer and runs faster; `graphs`
    replays networks from CUDA graphs. `auto` takes `graphs` on CUDA; on a CPU it compiles when the
    training is long enough to gain more time than the compilation takes."""
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    ema: EmaSpec | None = EmaSpec()
    clip_norm: Annotated[float, Field(gt=0.0, le=1e9)] | None = 1.0
    """The largest norm of all gradients together; None does not clip."""
    losses: list[LossSpec] | None = None
    """Further losses; None puts LPIPS (vgg, weight 1) on each refiner; [] has none."""
    phases: list[PhaseSpec] | None = None
    """None trains as the study did: generator, then the rest, then all jointly (35+35+30 epochs).

    Decoders are trained first, in a phase of their own (35 epochs), and not again."""
    callbacks: Annotated[list[CallbackSpec], Field(max_length=16)] = []
    """Who is told of phases, steps, epochs and figures, besides the run folder."""
    log_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """Losses are read from the device and written down every so many steps."""
    checkpoint_seconds: Annotated[float, Field(ge=0.0, le=1e6)] = 300.0
    """A checkpoint is written after so many seconds, and at the end of each phase."""


def _check_subset(subset_size: int, samples: int) -> None:
    if subset_size > samples:
        raise ValueError(
            f"subset_size {subset_size} is more than the {samples} samples; "
            "lower it or raise samples"
        )


class InLoopSpec(Model):
    """A figure during training, on few samples, to see the course of it."""

    every_epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 5
    extractor: Annotated[str, Field(min_length=1, max_length=120)] = "small"
    samples: Annotated[int, Field(ge=10, le=1_000_000)] = 500
    subsets: Annotated[int, Field(ge=1, le=10_000)] = 20
    subset_size: Annotated[int, Field(ge=5, le=1_000_000)] = 250

    @model_validator(mode="after")
    def _subset_fits(self) -> Self:
        _check_subset(self.subset_size, self.samples)
        return self


class EvaluationSpec(Model):
    """Which figures the metric card shows and how they are got."""

    metrics: list[Annotated[str, Field(min_length=1, max_length=80)]] = ["kid"]
    extractor: Annotated[str, Field(min_length=1, max_length=120)] = "inception"
    """The registered feature extractor."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """The extractor's arithmetic; bf16 is faster, and its figures have names of their own."""
    samples: Annotated[int, Field(ge=10, le=10_000_000)] = 2000
    """How many images are sampled, and at most how many real ones they are held against."""
    subsets: Annotated[int, Field(ge=1, le=10_000)] = 100
    subset_size: Annotated[int, Field(ge=5, le=1_000_000)] = 1000
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    batch_size: Count = 100
    split: Literal["train", "test"] = "train"
    """The real images that the samples are held against."""
    in_loop: InLoopSpec | None = None

    @model_validator(mode="after")
    def _subset_fits(self) -> Self:
        _check_subset(self.subset_size, self.samples)
        return self


class PublishSpec(Model):
    """Where the model goes when it is built."""

    to: Annotated[str, Field(min_length=1, max_length=4096)]
    """A folder, or `org/name` on the Hub."""
    private: bool = False


class CascadeSpec(Model):
    """A cascade: its data, its stages from coarse to fine, its training and its figures."""

    schema_uri: Annotated[str, Field(max_length=4096)] | None = Field(default=None, alias="$schema")
    spec_version: Literal[1] = 1
    name: Name
    """The model's name, and the run folder's."""
    description: Text = ""
    license: Annotated[str, Field(max_length=80)] = "apache-2.0"
    """The licence of the trained weights, as the Hub abbreviates it."""
    tags: Annotated[list[Annotated[str, Field(max_length=80)]], Field(max_length=50)] = []
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    data: DataSpec
    stages: Annotated[list[StageSpec], Field(min_length=1, max_length=16)]
    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    publish: PublishSpec | None = None
    requires: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=64)] = []
    """The distributions that the kinds come from, as pip names them; derived when left out."""

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON holds it; every default written out."""
        data = self.model_dump(mode="json", by_alias=True)
        if self.schema_uri is None:
            del data["$schema"]
        return data

    def to_json(self) -> str:
        """The spec as JSON text, indented, with a newline at its end."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    def digest(self) -> str:
        """sha256 over the whole spec in canonical JSON."""
        return _digest(_without_later_keys(self.to_dict()))

    def training_digest(self) -> str:
        """sha256 over what the trained weights follow from.

        Leaves out texts, final evaluation and publishing, so that changing those does not ask
        for another training.
        """
        data = self.to_dict()
        for key in ("$schema", "description", "license", "tags", "publish", "requires"):
            data.pop(key, None)
        data["evaluation"] = data["evaluation"]["in_loop"]
        for key in ("log_steps", "checkpoint_seconds", "callbacks"):
            data["training"].pop(key)
        return _digest(_without_later_keys(data))


def _without_later_keys(data: dict[str, Any]) -> dict[str, Any]:
    """Drop keys that specs did not always have where they say nothing, so that digests last."""
    # The training's digest looks at the evaluation in the course of it alone.
    if (data["evaluation"] or {}).get("precision") == "fp32":
        del data["evaluation"]["precision"]
    if not data["training"].get("callbacks", True):
        del data["training"]["callbacks"]
    if data["training"]["compile"] == "auto":
        del data["training"]["compile"]
    for phase in data["training"]["phases"] or []:
        if phase["reflow"] is None:
            del phase["reflow"]
        for stage in phase["stages"].values():
            if stage["ema_decay"] is None:
                del stage["ema_decay"]
            if not stage["groups"]:
                del stage["groups"]
    return data


def _digest(data: dict[str, Any]) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
