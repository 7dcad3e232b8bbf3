"""A stage with the inputs that the checks give it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cascadezoo.cascade.assemble import adopt_buffers
from cascadezoo.plugins.registry import StageEntry
from cascadezoo.spec.configs import ConfigError, ImageShape, StageConfig
from cascadezoo.stages.base import SampleRequest, Stage, StageGeometry, StageOutput, TrainContext
from cascadezoo.testing.check_report import CheckError
from cascadezoo.testing.import_checks import validated_config
from cascadezoo.util.rng import Draw, ImageDraw

__all__ = ["SIZES", "Place", "find_place"]

SIZES = (16, 32, 64)
COUNT = 4


@dataclass(frozen=True)
class Place:
    """A kind with its config and geometry.

    Args:
        entry: the entry of the kind.
        config: the config after ``fit``.
        geometry: sizes, channels and labels.
        neighbour: kind and config of the stage beside it; None chooses a built-in one.
        image_size: the size of a cascade's images if the stage is a generator; None is twice its
            own.
    """

    entry: StageEntry
    config: StageConfig
    geometry: StageGeometry
    neighbour: Mapping[str, Any] | None = None
    image_size: int | None = None

    def dump(self) -> dict[str, Any]:
        """The place as JSON data, without the entry."""
        shapes = (self.geometry.output, self.geometry.input)
        return {
            "config": self.config.model_dump(mode="json"),
            "shapes": [None if s is None else list(astuple(s)) for s in shapes],
            "num_classes": self.geometry.num_classes,
            "neighbour": None if self.neighbour is None else dict(self.neighbour),
            "image_size": self.image_size,
        }

    @classmethod
    def load(cls, entry: StageEntry, data: Mapping[str, Any]) -> Place:
        """The place of :meth:`dump`."""
        output, upstream = (None if s is None else ImageShape(*s) for s in data["shapes"])
        if output is None:
            raise ValueError("the place has no output")
        geometry = StageGeometry(output, upstream, data["num_classes"])
        config = entry.load_config().model_validate(data["config"])
        return cls(entry, config, geometry, data["neighbour"], data["image_size"])

    def build(self, device: str = "cpu") -> Stage:
        """Build the stage as a cascade does, with the same weights each time.

        Raises:
            CheckError: the implementation is not a stage.
        """
        impl = self.entry.load()
        if not (isinstance(impl, type) and issubclass(impl, Stage)):
            raise CheckError(f"{self.entry.impl} is not a subclass of cascadezoo.Stage")
        torch.manual_seed(0)
        with torch.device(device):
            stage: Stage = impl(self.config, self.geometry)
        if device != "meta":
            with torch.device("meta"):
                adopt_buffers(stage, impl(self.config, self.geometry))
        else:
            adopt_buffers(stage, stage)
        return stage

    def stage(self) -> Stage:
        """The stage without zero weights, as after some training."""
        stage = self.build()
        with torch.no_grad():
            for parameter in stage.parameters():
                if parameter.is_floating_point():
                    parameter.add_(0.03 * torch.randn_like(parameter))
        return stage

    def unlabelled(self) -> Place:
        """The same place without labels."""
        geometry = StageGeometry(self.geometry.output, self.geometry.input, None)
        return replace(self, geometry=geometry)

    def upstream(self, count: int = COUNT, device: str = "cpu") -> Tensor | None:
        """Images of the stage before it; None for a generator."""
        shape = self.geometry.input
        return None if shape is None else _images("upstream", shape, count, device)

    def target(self, count: int = COUNT, device: str = "cpu") -> Tensor:
        """Target images of the stage."""
        return _images("target", self.geometry.output, count, device)

    def labels(self, count: int = COUNT, device: str = "cpu") -> Tensor | None:
        """Labels in turn; None without labels."""
        classes = self.geometry.num_classes
        return None if classes is None else torch.arange(count, device=device) % classes

    def train(
        self,
        stage: Stage,
        *,
        step: int = 0,
        upstream: Tensor | None = None,
        device: str = "cpu",
    ) -> StageOutput:
        """One forward pass of training.

        Raises:
            CheckError: the stage does not return a ``StageOutput``.
        """
        upstream = self.upstream(device=device) if upstream is None else upstream
        draw = Draw(0, "check", step, "stage", device=device)
        context = TrainContext(draw, labels=self.labels(device=device), step=step, phase="check")
        output = stage(stage.preprocess(self.target(device=device), upstream, context))
        if not isinstance(output, StageOutput):
            raise CheckError(f"forward returns {type(output).__name__}, not StageOutput")
        return output

    def sample(
        self, stage: Stage, first: int = 0, count: int = COUNT, *, device: str = "cpu"
    ) -> Tensor:
        """Images ``first`` to ``first + count`` of one seed, without gradients, in eval mode."""
        upstream = self.upstream(first + count, device)
        labels = self.labels(first + count, device)
        request = SampleRequest(
            count,
            ImageDraw(7, "stage", first, count, device),
            labels=None if labels is None else labels[first:],
        )
        training = stage.training
        stage.eval()
        try:
            with torch.no_grad():
                images: Tensor = stage.sample(
                    None if upstream is None else upstream[first:], request
                )
        finally:
            stage.train(training)
        return images

    def groups(self, stage: Stage) -> dict[str, list[nn.Parameter]]:
        """The trainable parameters by group."""
        return {
            name: [p for p in rows if p.requires_grad]
            for name, rows in stage.parameter_groups().items()
        }


def find_place(
    entry: StageEntry,
    settings: Mapping[str, Any],
    *,
    size: int | None,
    channels: int,
    num_classes: int | None,
    output: ImageShape | None = None,
    neighbour: Mapping[str, Any] | None = None,
) -> Place:
    """The smallest place that fits a config.

    Args:
        entry: the entry of the kind.
        settings: its settings.
        size: height and width of its images; None tries several.
        channels: channels of its images.
        num_classes: number of labels; None without labels.
        output: the shape of its images or latents, instead of size and channels.
        neighbour: kind and config of the stage beside it.

    Raises:
        CheckError: the config does not validate, or fits no place.
    """
    config = validated_config(entry, settings, StageConfig)
    problem: ConfigError | None = None
    shapes = [ImageShape(channels, side) for side in (SIZES if size is None else (size,))]
    if output is None and config.makes_tokens:
        shapes = [ImageShape(1, side // 4, latent=True, tokens=16) for side in SIZES]
    elif output is None and size is None and entry.role == "generator":
        # A generator that makes only latents.
        shapes += [ImageShape(4, side // 2, latent=True) for side in SIZES]
    elif output is not None:
        shapes = [output]
    for shape in shapes:
        if config.makes_tokens != (shape.tokens is not None):
            what = "makes tokens" if config.makes_tokens else "makes no tokens"
            problem = problem or ConfigError("makes_tokens", f"says that it {what}")
            continue
        try:
            fitted = config.fit(shape)
            upstream = fitted.upstream_shape(shape)
        except ConfigError as error:
            problem = problem or error
            continue
        _check_config(entry, config, fitted, shape, upstream)
        return Place(entry, fitted, StageGeometry(shape, upstream, num_classes), neighbour)
    tried = ", ".join(map(str, shapes))
    raise CheckError(
        f"fits no images of {tried}: {problem and problem.field} {problem}; pass size= or output="
    )


def _check_config(
    entry: StageEntry,
    config: StageConfig,
    fitted: StageConfig,
    output: ImageShape,
    upstream: ImageShape | None,
) -> None:
    """Check that a resolved config is JSON and resolves to itself, as a spec requires."""
    data = json.loads(json.dumps(fitted.model_dump(mode="json")))
    again = type(config).model_validate(data)
    if again != fitted or again.fit(output) != fitted:
        raise CheckError(
            f"a resolved config does not resolve to itself: {fitted!r} becomes {again!r}"
        )
    if (upstream is None) != (entry.role == "generator"):
        needs = "no upstream" if upstream is None else f"an upstream of {upstream}"
        raise CheckError(f"the role is {entry.role}, but the config needs {needs}")
    if entry.role == "decoder" and upstream is not None and not upstream.latent:
        raise CheckError("the role is decoder, but upstream_shape() does not return latent=True")


def _images(name: str, shape: ImageShape, count: int, device: str) -> Tensor:
    # Separate draws, because torch's first normal numbers depend on the number drawn at once.
    size = (1, shape.channels, shape.size, shape.size)
    draws = [Draw(name, index, device=device) for index in range(count)]
    if shape.tokens is not None:
        return torch.cat([draw.randint(0, shape.tokens, *size).float() for draw in draws])
    if shape.latent:
        return torch.cat([draw.randn(*size) for draw in draws])
    return torch.cat([draw.rand(*size) * 2 - 1 for draw in draws])
