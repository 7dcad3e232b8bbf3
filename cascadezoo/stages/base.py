"""The stage contract: what every kind implements, built-in or not.

Images are float tensors, NCHW, in [-1, 1]. Labels are int64 tensors of shape [N].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from cascadezoo.spec.configs import ImageShape, StageConfig
from cascadezoo.util.rng import Draw, ImageDraw

__all__ = [
    "GROUP",
    "GroupOptions",
    "Loss",
    "SampleRequest",
    "Stage",
    "StageGeometry",
    "StageInputs",
    "StageOutput",
    "TrainContext",
    "downsample",
]

GROUP = "generator"
"""The parameter group that losses and parameters belong to unless a stage says otherwise."""

COMPILED = "_orig_mod."
"""What ``torch.compile(module)`` puts before the names of the module's parameters."""


@dataclass(frozen=True, slots=True)
class StageGeometry:
    """Where a stage stands in its cascade.

    Args:
        output: the image that the stage makes.
        input: the image that it receives; None for a generator.
        num_classes: how many labels the data have; None where they have none.
    """

    output: ImageShape
    input: ImageShape | None = None
    num_classes: int | None = None


@dataclass(slots=True)
class TrainContext:
    """What a stage may know of the training step it takes part in.

    Args:
        draw: this step's random numbers; use no others, so that a resumed run repeats itself.
        labels: int64 [N], or None where the data have none.
        progress: the share of the phase that is done, in [0, 1].
        step: the step within the phase, from 0.
        phase: the phase's name.
        noise: the noise that belongs to the target, of its shape, to be used and not drawn; None
            outside of reflow.
        paired: bool [N], which upstream images are of their targets; None where all are. Others
            reach only stages whose config sets ``heeds_paired``.
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
    """What :meth:`Stage.preprocess` hands to :meth:`Stage.forward`. Unused fields stay None.

    Args:
        target: the clean image to produce, [N, C, H, W].
        upstream: the image of the stage before, [N, C', H', W'].
        labels: int64 [N].
        noise: the noise that was mixed in.
        times: [N], the timesteps or times of a diffusion or flow.
        noisy: the noised image that the network sees.
        extra: anything else that the stage needs, by name.
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
    """A loss that trains one parameter group only.

    Args:
        value: a scalar tensor.
        group: the name of a group that :meth:`Stage.parameter_groups` gives.
    """

    value: Tensor
    group: str = GROUP


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """How a parameter group is trained where the spec does not say otherwise.

    Args:
        lr_factor: what the stage's learning rate is multiplied by.
        betas: of Adam; None takes the phase's.
        weight_decay: None takes the phase's.
        every: the group learns in one of so many steps, the last of them.
        averaged: whether ``training.ema`` averages it; what only training needs is not.
    """

    lr_factor: float = 1.0
    betas: tuple[float, float] | None = None
    weight_decay: float | None = None
    every: int = 1
    averaged: bool = True


@dataclass(slots=True)
class StageOutput:
    """What a stage makes of a training batch.

    Args:
        estimate: the differentiable guess of the target, [N, C, H, W]; flows downstream.
        losses: scalar tensors by name; a :class:`Loss` where it is not of the usual group.
    """

    estimate: Tensor
    losses: dict[str, Tensor | Loss] = field(default_factory=dict)


@dataclass(slots=True)
class SampleRequest:
    """What a stage shall sample.

    Args:
        count: how many images, N.
        draw: their random numbers, one stream for each image.
        labels: int64 [N], or None.
        steps: how many steps an iterative stage takes; None is its config's number.
        guidance: the scale of classifier-free guidance; None is the config's.
        sampler: the name of the sampler; None is the config's.
        options: anything else, by name; see :attr:`Stage.sampling_options`.
        watch: called with the image after each step of an iterative stage; keep a copy of what is
            to be kept.
    """

    count: int
    draw: ImageDraw
    labels: Tensor | None = None
    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    watch: Callable[[Tensor], None] | None = None


class Stage(nn.Module, ABC):
    """One trainable step of a cascade.

    Subclasses set ``Config`` and build their layers in ``__init__(config, geometry)`` after
    calling ``super().__init__``. A cascade is first built on the meta device, so constant
    tensors that are not saved (``register_buffer(..., persistent=False)``) must be made with
    ``device="cpu"`` written out.

    Args:
        config: the validated config of the kind.
        geometry: sizes, channels and number of classes.
    """

    Config: ClassVar[type[StageConfig]]

    sampling_options: ClassVar[frozenset[str]] = frozenset()
    """Which of ``steps``, ``guidance``, ``sampler`` and which ``options`` the stage heeds."""

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
        """Height and width of the image that the stage makes."""
        return self.geometry.output.size

    def upstream_target(self, images: Tensor) -> Tensor:
        """What the stage before this one must learn to produce.

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

        Noise, timesteps, augmentation and dropped labels are decided here, by ``context.draw``.
        """

    @abstractmethod
    def forward(self, inputs: StageInputs) -> StageOutput:
        """Named losses, and the differentiable estimate of the target that flows downstream."""

    @abstractmethod
    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """Draw the stage's images, [N, C, out_size, out_size]."""

    def upstream_request(self, request: SampleRequest) -> SampleRequest:
        """How the stage before this one shall sample. Default: as this one was asked to."""
        return request

    def finish_phase(self, images: Iterable[Tensor]) -> None:
        """Called without gradients when a phase has ended whose first trained stage this is.

        Not after a phase that trained a stage before it too, which has learned by what was measured
        earlier. Whatever is measured here belongs into persistent buffers. Default: nothing.

        Args:
            images: the stage's targets over the whole training set, in batches
                [N, C, out_size, out_size]; made when they are asked for.
        """

    def load_initial_weights(self) -> None:
        """Take the weights that the training starts from, where the config names any.

        Called once when a cascade is built from a spec, on the CPU; never when a trained model is
        loaded. Default: nothing.
        """

    def make_pairs(self, noise: Tensor, request: SampleRequest) -> Tensor:
        """The images that the stage makes of given noise; for reflow.

        Args:
            noise: standard normal, of the images' shape.
            request: labels, steps and the like.
        """
        raise NotImplementedError(f"{type(self).__name__} has no reflow")

    def network_evaluations(self, steps: int | None = None, guidance: float | None = None) -> int:
        """How many times :meth:`sample` runs the network on an image. For FLOP counts."""
        return 1

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters by group; each group has an optimizer of its own.

        A :class:`Loss` reaches the parameters of its group alone, whatever it is computed through.
        Each parameter that learns belongs to exactly one group.
        """
        return {GROUP: list(self.parameters())}

    def group_options(self) -> Mapping[str, GroupOptions]:
        """How groups are trained that want it otherwise than the phase says. Default: none does.

        A spec has the last word: ``training.phases.N.stages.NAME.groups.GROUP``.
        """
        return {}

    def training_only(self) -> Collection[str]:
        """Names of child modules that sampling does without. Default: none.

        They are in checkpoints and not in saved models: a model is loaded with None in their
        places. An adversary is one.
        """
        return ()

    def saved_state(self) -> dict[str, Tensor]:
        """The tensors of a saved model: the state without what only training needs.

        A network that was replaced by ``torch.compile(network)`` is saved under its own names.
        """
        left_out = tuple(f"{name}." for name in self.training_only())
        state = {k.replace(COMPILED, ""): v for k, v in self.state_dict().items()}
        return {k: v for k, v in state.items() if not k.startswith(left_out)}

    def drop_training_only(self) -> None:
        """Forget what only training needs, as a stage that is loaded does."""
        for name in self.training_only():
            setattr(self, name, None)


def downsample(images: Tensor, size: int) -> Tensor:
    """Resize to a smaller ``size`` by averaging areas, which keeps the range of the values."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="area")
