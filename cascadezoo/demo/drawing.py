"""What the page draws with a model: samples, stages, trajectories, pictures. Free of Gradio."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from PIL import Image

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.cascade.pictures import picture_stages
from cascadezoo.errors import InputError, ModelError
from cascadezoo.hub.locate import locate
from cascadezoo.hub.refs import reference_of
from cascadezoo.model_folder.figures import Figure
from cascadezoo.model_folder.layout import CONFIG, read_config
from cascadezoo.model_folder.recipe import KEYWORD, model_digest, recipe_of
from cascadezoo.plugins.faults import Owner
from cascadezoo.report.images import grid, stage_strip
from cascadezoo.report.recorded_metrics import read_recorded
from cascadezoo.report.trajectory import sample_trajectory
from cascadezoo.spec import resolve
from cascadezoo.spec.labels import label_from_text
from cascadezoo.stages.base import Stage

__all__ = [
    "ALL_CLASSES",
    "MOST_IMAGES",
    "DemoModel",
    "DrawSettings",
    "draw_samples",
    "draw_trajectory",
    "inpaint_picture",
    "sample_for_editing",
    "upscale_picture",
]

ALL_CLASSES = "each class in turn"
MOST_IMAGES = 36
ROWS = 6
"""Images of a strip and of a trajectory."""

STATES = 7
MOST_PIXELS = 256 * 256
"""Largest picture to enlarge; a larger one takes minutes on a CPU."""

MOST_EDITED = 2**24
"""Pixels of the largest picture to inpaint: that of a camera. Copies of it need 30 times as many
bytes."""

EDITED = 256
"""Approximate width of a sample in the editor."""

_OPAQUE = [0] * 128 + [255] * 128


@dataclass(frozen=True, slots=True)
class DrawSettings:
    """The settings of the page.

    Args:
        label: name or number of a class; None draws each class in turn.
        n: number of images, 1 to 36.
        seed: seed of the noise.
        steps: of iterative stages; None uses the model's.
        guidance: scale of guidance; None uses the model's.
        sampler: of the stages that have it; None uses the model's.
    """

    label: str | None = None
    n: int = 16
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None


class DemoModel:
    """A model of the page. Its weights are loaded when it first draws.

    Args:
        reference: a run, a model folder, a zoo name or a repo on the Hub.
        device: the device of the weights.
        revision: branch, tag or commit of a repo.
        offline: True sends no request.
        digest: the digest that the model must have; None accepts any.

    Raises:
        CascadezooError: the model does not exist, or a plugin that it needs is not installed.
        ModelError: the model has another digest.
    """

    def __init__(
        self,
        reference: str,
        *,
        device: str = "cpu",
        revision: str | None = None,
        offline: bool | None = None,
        digest: str | None = None,
    ) -> None:
        self.reference = reference
        self.device = device
        self.folder = locate(reference, revision, offline)
        self.config = read_config(self.folder)
        source = str(self.folder / CONFIG)
        self.resolved = resolve(self.config.spec, source=source, for_training=False)
        self.digest = model_digest(self.config)
        if digest is not None and digest != self.digest:
            raise ModelError(
                f"{reference} has the digest {self.digest[:12]}, not {digest[:12]}",
                hint="restore the model, or export the page again with cascadezoo demo --export",
                code="model-not-of-digest",
                name=reference,
                digest=self.digest,
            )

    @property
    def name(self) -> str:
        """The name of its spec."""
        return self.resolved.spec.name

    @cached_property
    def cascade(self) -> Cascade:
        """The loaded model."""
        return Cascade.from_pretrained(self.folder, device=self.device)

    @property
    def labels(self) -> list[str]:
        """The names of its classes, or their numbers; empty without labels."""
        names = self.resolved.class_names
        return list(names) if names else list(map(str, range(self.resolved.num_classes or 0)))

    @property
    def samplers(self) -> list[str]:
        """The samplers of its stages."""
        return sorted({name for _, impl in self._stages() for name in impl.samplers})

    @property
    def iterative(self) -> list[str]:
        """The names of the stages that sample in steps."""
        return [name for name, impl in self._stages() if "steps" in impl.sampling_options]

    def _stages(self) -> Iterator[tuple[str, type[Stage]]]:
        for stage in self.resolved.stages:
            with Owner(stage.entry, stage.origin, stage.name).guard("to be imported"):
                yield stage.name, stage.entry.load()

    @property
    def figures(self) -> list[Figure]:
        """The figures of its card."""
        recorded = read_recorded(self.folder)
        return [] if recorded is None else recorded.figures


def draw_samples(model: DemoModel, settings: DrawSettings) -> list[Image.Image]:
    """Draw samples: a grid with captions, and the first of them stage by stage.

    The grid states how it was made, as pictures of ``cascadezoo sample`` do. The strip is missing
    if the cascade has a single stage.

    Raises:
        SampleError: the model does not support a setting.
        ResourceError: the memory does not suffice.
    """
    numbers = _numbers(model, settings)
    request = _request(model, settings)
    cascade = model.cascade
    outputs = cascade.sample(
        settings.n,
        seed=settings.seed,
        labels=numbers or None,
        return_stages=True,
        **request,
    )
    captions = _captions(model, settings, settings.n)
    picture = grid(outputs[cascade.names[-1]], names=captions)
    stated = {
        **request,
        "n": settings.n,
        "batch_size": 64,
        "labels": numbers[:1],
        "captions": captions is not None or None,
    }
    reference = reference_of(model.reference, model.folder)
    recipe = recipe_of(model.config, "sample", settings.seed, stated, reference=reference)
    picture.info[KEYWORD] = recipe.model_dump_json(exclude_none=True)
    shown = [s.name for s in cascade.resolved.stages if not s.output.latent]
    if len(shown) < 2:
        return [picture]
    rows = {name: outputs[name][:ROWS] for name in shown}
    return [picture, stage_strip(rows, names=captions[:ROWS] if captions else None)]


def draw_trajectory(
    model: DemoModel, settings: DrawSettings, stage: str | None = None
) -> list[Image.Image]:
    """Draw the states of a stage from noise to image.

    Args:
        model: the model.
        settings: the settings; at most six images are drawn.
        stage: the stage; None is the generator.

    Raises:
        SampleError: the stage does not sample in steps, or as for :func:`draw_samples`.
    """
    n = min(settings.n, ROWS)
    numbers = _numbers(model, settings)
    options = {
        **_request(model, settings),
        "seed": settings.seed,
        "labels": numbers[:n] or None,
    }
    states = sample_trajectory(model.cascade, n, stage=stage, columns=STATES, options=options)
    return [stage_strip(states, names=_captions(model, settings, n))]


def upscale_picture(
    model: DemoModel, settings: DrawSettings, picture: Image.Image | None
) -> list[Image.Image]:
    """Enlarge a picture by the model's upsamplers.

    Raises:
        InputError: there is no picture, or it is too large for the page.
        SampleError: the model has no upsampler of pictures.
    """
    if picture is None:
        raise _no_picture("upload a picture of up to 256x256 pixels")
    _require_small(picture, MOST_PIXELS, "upscale PICTURE -o large.png --model MODEL")
    names = picture_stages(model.cascade, "upsampler", None)
    large: list[Image.Image] = model.cascade.upscale(
        picture,
        seed=settings.seed,
        labels=_one(model, settings),
        **_request(model, settings, names),
    )
    return large


def inpaint_picture(
    model: DemoModel,
    settings: DrawSettings,
    picture: Image.Image | None,
    painted: Iterable[Image.Image],
    strength: float = 1.0,
) -> list[Image.Image]:
    """Redraw the painted part of a picture.

    Args:
        model: the model.
        settings: the settings; ``n`` is the number of results.
        picture: the picture; None is an error.
        painted: layers of paint, with transparency, of the picture's size.
        strength: below 1, the new part starts from the old one.

    Raises:
        InputError: there is no picture, it is too large for the page, or nothing is painted.
        SampleError: the model cannot edit pictures.
    """
    if picture is None:
        raise _no_picture("upload a picture, or press Draw a picture")
    _require_small(picture, MOST_EDITED, "inpaint MODEL PICTURE --mask MASK -o new.png")
    mask = Image.new("L", picture.size)
    for layer in painted:
        opaque = layer.convert("RGBA").getchannel("A").point(_OPAQUE)
        mask.paste(255, mask=opaque.resize(picture.size))
    if mask.getbbox() is None:
        raise InputError(
            "nothing is painted",
            hint="paint over the part that the model shall redraw",
            code="input-demo-no-mask",
        )
    size = model.resolved.image.size
    if picture.width == picture.height and picture.width % size == 0:
        # The exact inverse of an enlargement by square pixels, as in `sample_for_editing`.
        factor = picture.width // size
        picture = picture.reduce(factor)
        mask = mask.reduce(factor).point(_OPAQUE)
    images = model.cascade.inpaint(
        picture.convert("RGB"),
        mask,
        strength=strength,
        n=min(settings.n, 4),
        seed=settings.seed,
        labels=_one(model, settings),
        output_type="pt",
        **_request(model, settings),
    )
    return [grid(images)]


def sample_for_editing(model: DemoModel, settings: DrawSettings) -> Image.Image:
    """Draw one sample, enlarged so that one can paint on it. Raises as :func:`draw_samples`."""
    numbers = _numbers(model, settings)
    images = model.cascade.sample(
        1, seed=settings.seed, labels=numbers[:1] or None, output_type="pil",
        **_request(model, settings),
    )  # fmt: skip
    image: Image.Image = images[0]
    factor = max(1, EDITED // image.width)
    size = (image.width * factor, image.height * factor)
    return image.convert("RGB").resize(size, Image.Resampling.NEAREST)


def _require_small(picture: Image.Image, most: int, command: str) -> None:
    """Check the size of an uploaded picture, before anything is made of it."""
    if picture.width * picture.height > most:
        raise InputError(
            f"the picture of {picture.width}x{picture.height} pixels is too large for this page",
            hint=f"make it smaller, or use the command line: cascadezoo {command}",
            code="input-demo-picture-large",
            width=picture.width,
            height=picture.height,
        )


def _no_picture(hint: str) -> InputError:
    return InputError("there is no picture yet", hint=hint, code="input-demo-no-picture")


def _one(model: DemoModel, settings: DrawSettings) -> int | None:
    """The number of the chosen class; None for all."""
    if settings.label is None:
        return None
    resolved, label = model.resolved, settings.label
    # The page offers names, which may be numbers: "10" is then the class of that name.
    text = f"name:{label}" if label in (resolved.class_names or ()) else label
    return label_from_text(text, resolved.num_classes, resolved.class_names)


def _numbers(model: DemoModel, settings: DrawSettings) -> list[int]:
    """The label of each image; empty for each class in turn."""
    one = _one(model, settings)
    return [] if one is None else [one] * settings.n


def _captions(model: DemoModel, settings: DrawSettings, n: int) -> list[str] | None:
    names = model.labels
    if not names:
        return None
    one = _one(model, settings)
    return [names[i % len(names) if one is None else one] for i in range(n)]


def _request(
    model: DemoModel, settings: DrawSettings, names: Sequence[str] | None = None
) -> dict[str, Any]:
    """The keywords of ``Cascade.sample`` for steps, guidance and sampler.

    A sampler is for those stages (of ``names``, if given) that have it.

    Raises:
        InputError: too many images, which only a program can ask for.
    """
    if not 1 <= settings.n <= MOST_IMAGES:
        raise InputError(
            f"the page draws 1 to {MOST_IMAGES} images, not {settings.n}",
            hint="use the command line for more: cascadezoo sample MODEL -n N",
            code="input-demo-images",
            n=settings.n,
        )
    request: dict[str, Any] = {}
    if settings.steps is not None:
        request["steps"] = settings.steps
    if settings.guidance is not None:
        request["guidance"] = settings.guidance
    if settings.sampler is not None:
        stages = [row for row in model.cascade.named_stages() if names is None or row[0] in names]
        having = {n: settings.sampler for n, s in stages if settings.sampler in s.samplers}
        request["sampler"] = having or settings.sampler
    return request
