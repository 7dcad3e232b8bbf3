"""The stage contract, which every kind implements, built-in or not.

Images are float tensors, NCHW, in [-1, 1]. Labels are int64 tensors of shape [N].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from cascadezoo.plugins.faults import Owner
from cascadezoo.spec.configs import ImageShape, StageConfig
from cascadezoo.util.rng import Draw, ImageDraw

__all__ = [
    "GROUP",
    "Edit",
    "GroupOptions",
    "Loss",
    "SampleRequest",
    "Stage",
    "StageGeometry",
    "StageInputs",
    "StageOutput",
    "StepContext",
    "TrainContext",
    "downsample",
    "enlarged_size",
]

GROUP = "generator"
"""The default parameter group of losses and parameters."""

_HALVES = (torch.bfloat16, torch.float16)

COMPILED = "_orig_mod."
"""The prefix that ``torch.compile(module)`` adds to the names of the module's parameters."""


@dataclass(frozen=True, slots=True)
class StageGeometry:
    """The place of a stage in its cascade.

    Args:
        output: the shape of the stage's image.
        input: the shape of the upstream image; None for a generator.
        num_classes: number of labels; None for data without labels.
    """

    output: ImageShape
    input: ImageShape | None = None
    num_classes: int | None = None


@dataclass(slots=True)
class TrainContext:
    """Information about a training step, passed to a stage.

    Args:
        draw: the random numbers of this step; use no others, so that a resumed run repeats them.
        labels: int64 [N], or None for data without labels.
        progress: the finished share of the phase, in [0, 1].
        step: the step within the phase, from 0.
        phase: the phase's name.
        noise: the noise that belongs to the target, with the target's shape; use it instead of
            drawing noise. None outside of reflow.
        paired: bool [N], True for upstream images that belong to their targets; None means that
            all do. Only stages whose config sets ``heeds_paired`` receive other images.
    """

    draw: Draw
    labels: Tensor | None = None
    progress: float = 0.0
    step: int = 0
    phase: str = ""
    noise: Tensor | None = None
    paired: Tensor | None = None


@dataclass(slots=True)
class StageInputs:
    """The output of :meth:`Stage.preprocess` and input of :meth:`Stage.forward`.

    Unused fields stay None.

    Args:
        target: the clean image to produce, [N, C, H, W].
        upstream: the image of the stage before, [N, C', H', W'].
        labels: int64 [N].
        noise: the added noise.
        times: [N], the timesteps or times of a diffusion or flow.
        noisy: the noised image, the input of the network.
        extra: other tensors that the stage needs, by name.
    """

    target: Tensor
    upstream: Tensor | None = None
    labels: Tensor | None = None
    noise: Tensor | None = None
    times: Tensor | None = None
    noisy: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)


@dataclass(slots=True)
class Loss:
    """A loss that trains only one parameter group.

    Args:
        value: a scalar tensor.
        group: the name of a group from :meth:`Stage.parameter_groups`.
    """

    value: Tensor
    group: str = GROUP


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """Training options of a parameter group. The spec can override them.

    Args:
        lr_factor: the factor of the stage's learning rate.
        betas: the betas of Adam; None uses the phase's.
        weight_decay: None uses the phase's.
        every: the group is updated once in this number of steps, at the last of them.
        averaged: whether ``training.ema`` averages the group. Set it to False for parameters that
            only training needs.
    """

    lr_factor: float = 1.0
    betas: tuple[float, float] | None = None
    weight_decay: float | None = None
    every: int = 1
    averaged: bool = True


@dataclass(slots=True)
class StageOutput:
    """The output of a stage for a training batch.

    Args:
        estimate: the differentiable prediction of the target, [N, C, H, W], which flows
            downstream.
        losses: scalar tensors by name; a :class:`Loss` for a group other than the default. Each
            must have a gradient.
        figures: further scalar tensors by name, such as an accuracy. They are recorded with the
            losses and train nothing.
        statistics: tensors by name for :meth:`Stage.after_step`, such as how often each code was
            used. If a batch is divided (``training.accumulate``), those of its parts are summed.
    """

    estimate: Tensor
    losses: dict[str, Tensor | Loss] = field(default_factory=dict)
    figures: dict[str, Tensor] = field(default_factory=dict)
    statistics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(slots=True)
class StepContext:
    """Information about a finished training step, passed to :meth:`Stage.after_step`.

    Args:
        draw: random numbers of this step, equal in all processes. The first dimension of a shape is
            the number of rows to draw.
        statistics: what ``forward`` returned in ``StageOutput.statistics``, detached, for this
            process's share of the batch.
        progress: the finished share of the phase, with this step, in (0, 1].
        step: the step within the phase, from 0.
        phase: the phase's name.
    """

    draw: Draw
    statistics: Mapping[str, Tensor] = field(default_factory=dict)
    progress: float = 0.0
    step: int = 0
    phase: str = ""

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes, the same in each of them.

        Every process must call this the same number of times, with tensors of the same shape.

        Args:
            tensor: any shape, floating or integer; unchanged.

        Returns:
            A new tensor without gradient.
        """
        total = tensor.detach().clone(memory_format=torch.contiguous_format)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(total)
        return total

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of a tensor over all processes, the same in each of them.

        All processes have equal shares of a batch: the mean of their means is that of the batch.

        Args:
            tensor: any shape, floating; unchanged.

        Returns:
            A new tensor without gradient.

        Raises:
            TypeError: the tensor is not floating.
        """
        if not tensor.is_floating_point():
            raise TypeError(f"context.mean needs a floating tensor, not {tensor.dtype}")
        world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        return self.sum(tensor).div_(world)


@dataclass(frozen=True, slots=True)
class Edit:
    """An existing image that a stage changes instead of drawing a new one.

    Args:
        image: the clean image in the space of the stage's output, [N, C, out_size, out_size].
        strength: how far it may move from the image, above 0; with 1 and no mask the stage samples
            as usual.
        mask: bool [N, 1, out_size, out_size], True for pixels to redraw; all others must equal the
            image in the result. None redraws all.
        resamplings: how often each step is repeated with a mask (Lugmayr et al. 2022).
    """

    image: Tensor
    strength: float = 1.0
    mask: Tensor | None = None
    resamplings: int = 1


@dataclass(slots=True)
class SampleRequest:
    """A request to a stage to sample images.

    Args:
        count: number of images, N.
        draw: their random numbers, one stream for each image.
        labels: int64 [N], or None.
        steps: number of steps of an iterative stage; None uses the config's.
        guidance: the scale of classifier-free guidance; None uses the config's.
        sampler: the name of the sampler; None uses the config's.
        options: other options by name; see :attr:`Stage.sampling_options`.
        watch: called with the image after each step of an iterative stage. The image is reused;
            copy it to keep it.
        edit: the image to change; only for stages with :attr:`Stage.edits`.
        labels_to: second labels, int64 [N]; only for stages with :attr:`Stage.mixes_labels`.
        mix: [N], the share of the second labels, from 0 to 1; set together with ``labels_to``.
    """

    count: int
    draw: ImageDraw
    labels: Tensor | None = None
    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    watch: Callable[[Tensor], None] | None = None
    edit: Edit | None = None
    labels_to: Tensor | None = None
    mix: Tensor | None = None


class Stage(nn.Module, ABC):
    """One trainable step of a cascade.

    Subclasses set ``Config`` and build their layers in ``__init__(config, geometry)`` after
    calling ``super().__init__``. A cascade is first built on the meta device. Make constant
    tensors that are not saved (``register_buffer(..., persistent=False)``) with an explicit
    ``device="cpu"``.

    Args:
        config: the validated config of the kind.
        geometry: sizes, channels and number of classes.
    """

    Config: ClassVar[type[StageConfig]]

    samplers: ClassVar[Collection[str]] = ()
    """The names that the option ``sampler`` accepts; empty: not known before sampling."""

    sampling_options: ClassVar[frozenset[str]] = frozenset()
    """The supported options: any of ``steps``, ``guidance``, ``sampler`` and further names.

    Those that the config declares (``StageConfig.sampling_options``) are added.
    """

    edits: ClassVar[bool] = False
    """Whether :meth:`sample` supports ``SampleRequest.edit``."""

    mixes_labels: ClassVar[bool] = False
    """Whether :meth:`sample` supports ``SampleRequest.labels_to`` and ``mix``."""

    traced_images: ClassVar[int] = 1
    """Number of training images of which ``plan`` states the mean cost; more than one if a stage
    treats a share of the images in another way."""

    sync_buffers: ClassVar[Literal["mean", "broadcast"] | None] = None
    """How processes share the persistent buffers that a training step changes: ``"mean"`` averages
    them after each step, ``"broadcast"`` copies those of the first process. None: they are equal
    anyway, because only :meth:`after_step` changes them. A difference is then an error."""

    averaged_buffers: ClassVar[Collection[str]] = ()
    """The names of floating persistent buffers that ``training.ema`` averages like parameters."""

    _owner: Owner | None = None  # set by the cascade; None for a stage that is used on its own

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        declared = getattr(getattr(cls, "Config", None), "sampling_options", {})
        if declared:
            cls.sampling_options = frozenset(cls.sampling_options) | frozenset(declared)

    def __init__(self, config: Any, geometry: StageGeometry) -> None:
        super().__init__()
        self.config = config
        self.geometry = geometry

    @property
    def in_size(self) -> int | None:
        """Height and width of the upstream image; None for a generator."""
        return None if self.geometry.input is None else self.geometry.input.size

    @property
    def out_size(self) -> int:
        """Height and width of the stage's image."""
        return self.geometry.output.size

    @property
    def any_size(self) -> bool:
        """Whether :meth:`sample` accepts upstream images of any height and width. Default: no.

        The result of such a stage is ``out_size // in_size`` times as high and wide as the
        upstream image. Large pictures are passed to the other stages in tiles of ``in_size``.
        """
        return False

    def upstream_target(self, images: Tensor) -> Tensor:
        """Compute the target of the stage before this one.

        Args:
            images: this stage's target, [N, C, out_size, out_size].

        Returns:
            The images resized to ``in_size``, [N, C, in_size, in_size].
        """
        return images if self.in_size is None else downsample(images, self.in_size)

    @abstractmethod
    def preprocess(
        self, target: Tensor, upstream: Tensor | None, context: TrainContext
    ) -> StageInputs:
        """Turn a clean target and the upstream image into training inputs.

        Draw noise, timesteps, augmentation and dropped labels here, from ``context.draw``.
        """

    @abstractmethod
    def forward(self, inputs: StageInputs) -> StageOutput:
        """Compute named losses and the differentiable estimate of the target.

        The estimate flows downstream.
        """

    @abstractmethod
    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """Sample the stage's images, [N, C, out_size, out_size]."""

    def upstream_request(self, request: SampleRequest) -> SampleRequest:
        """Return the request for the stage before this one. Default: the same request."""
        return request

    def after_step(self, context: StepContext) -> None:
        """Called without gradients after the optimizer's step, before ``training.ema`` averages.

        Move teachers, codebooks and schedules here: parameters that no optimizer trains, and
        persistent buffers. Use ``context.sum`` and ``context.mean`` for numbers that depend on the
        batch, so that all processes compute the same. Called once for each step of a phase that
        trains the stage, also if the batch is divided. Default: nothing.

        Args:
            context: the step.
        """

    def finish_phase(self, images: Iterable[Tensor]) -> None:
        """Called without gradients at the end of a phase if this is its first trained stage.

        It is not called if the phase also trained an earlier stage, because that stage has learned
        with the previous measurements. Store measurements in persistent buffers. Default: nothing.

        Args:
            images: the stage's targets over the whole training set, in batches
                [N, C, out_size, out_size]; computed during iteration.
        """

    def load_initial_weights(self) -> None:
        """Load initial weights for the training, if the config names any.

        Called once on the CPU when a cascade is built from a spec, and never when a trained model
        is loaded. Default: nothing.
        """

    def make_pairs(self, noise: Tensor, request: SampleRequest) -> Tensor:
        """Sample images from given noise, for reflow.

        Args:
            noise: standard normal, with the images' shape.
            request: labels, steps and other options.
        """
        raise NotImplementedError(f"{type(self).__name__} does not support reflow")

    def network_evaluations(self, steps: int | None = None, guidance: float | None = None) -> int:
        """Number of network evaluations per image in :meth:`sample`. Used for FLOP counts."""
        return 1

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters by group; each group has its own optimizer.

        A :class:`Loss` only updates the parameters of its group, even if others contribute to it.
        Each trainable parameter belongs to exactly one group.
        """
        return {GROUP: list(self.parameters())}

    def group_options(self) -> Mapping[str, GroupOptions]:
        """Training options for groups that differ from the phase. Empty by default.

        The spec overrides them: ``training.phases.N.stages.NAME.groups.GROUP``.
        """
        return {}

    def training_only(self) -> Collection[str]:
        """Names of child modules that sampling does not need, such as an adversary. Default: none.

        They are saved in checkpoints but not in models. A loaded model has None in their place.
        """
        return ()

    def saved_state(self) -> dict[str, Tensor]:
        """The state of a saved model, without modules that only training needs.

        A network that was replaced by ``torch.compile(network)`` is saved under its own names.
        """
        left_out = tuple(f"{name}." for name in self.training_only())
        state = {k.replace(COMPILED, ""): v for k, v in self.state_dict().items()}
        return {k: v for k, v in state.items() if not k.startswith(left_out)}

    def drop_training_only(self) -> None:
        """Remove modules that only training needs, as in a loaded stage."""
        for name in self.training_only():
            setattr(self, name, None)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Convert or move all tensors; called by ``to``, ``half``, ``bfloat16`` and others.

        Half precision is for weights with two dimensions or more, which hold nearly all numbers.
        Biases, norms, and buffers such as noise schedules and statistics stay float32.
        """
        buffers = {id(buffer) for buffer in self.buffers()}

        def converted(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            small = tensor.ndim < 2 or id(tensor) in buffers
            if small and tensor.dtype == torch.float32 and new.dtype in _HALVES:
                return tensor.to(new.device)
            return new

        applied: Self = super()._apply(converted, recurse)  # type: ignore[no-untyped-call]
        return applied


def enlarged_size(stage: Stage, upstream: Tensor | None) -> tuple[int, int]:
    """Height and width of a stage's image; ``out_size`` for upstream images of ``in_size``."""
    if upstream is None or stage.in_size is None:
        return stage.out_size, stage.out_size
    height, width = upstream.shape[-2:]
    return height * stage.out_size // stage.in_size, width * stage.out_size // stage.in_size


def downsample(images: Tensor, size: int) -> Tensor:
    """Resize to a smaller ``size`` by averaging areas, which keeps the range of the values."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="area")
