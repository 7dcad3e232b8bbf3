"""The dataset ``shapes``: procedural images of coloured shapes, without download, at any size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cascadezoo.spec.configs import DataConfig, DataInfo

if TYPE_CHECKING:
    from cascadezoo.data.base import ImageData, Split

__all__ = ["CLASSES", "ShapesConfig", "load"]

CLASSES = (
    "circle",
    "square",
    "triangle",
    "star",
    "ring",
    "cross",
    "heart",
    "crescent",
    "diamond",
    "hexagon",
    "bar",
    "half-disc",
)
"""The classes in the order of their labels; a config uses the first ``classes`` of them."""

Share = Annotated[float, Field(ge=0.05, le=0.95)]


class ShapesConfig(DataConfig):
    """One shape on each image; the class is the shape.

    An image depends on (seed, split, its number) and on the appearance settings. It does not
    depend on the number of images, and shows the same picture at every size.
    """

    paths: ClassVar[tuple[str, ...]] = ()

    size: Annotated[int, Field(ge=8, le=4096)] = 32
    """Height and width of the images in pixels."""
    count: Annotated[int, Field(ge=1, le=10_000_000)] = 8000
    """Number of training images."""
    test_count: Annotated[int, Field(ge=1, le=10_000_000)] = 2000
    """Number of test images; none of them is a training image."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """Seed of the images."""
    classes: Annotated[int, Field(ge=1, le=len(CLASSES))] = 8
    """Number of different shapes, equally frequent; the first 8 are easiest to distinguish."""
    background: Literal["white", "palette", "gradient"] = "white"
    """Plain white, a pale tint of another palette colour, or a gradient between two pale tints."""
    colors: Literal["palette", "free"] = "palette"
    """One of 8 saturated colours, or any saturated colour."""
    rotation: Annotated[float, Field(ge=0.0, le=180.0)] = 30.0
    """Maximum rotation of a shape in degrees, in either direction."""
    min_width: Share = 0.45
    """Width of the smallest shapes as a share of the image's."""
    max_width: Share = 0.85
    """Width of the largest shapes as a share of the image's."""

    @model_validator(mode="after")
    def _check_widths(self) -> Self:
        if self.min_width > self.max_width:
            raise ValueError(
                f"min_width ({self.min_width}) is more than max_width ({self.max_width})"
            )
        return self

    @property
    def class_names(self) -> tuple[str, ...]:
        """The drawn shapes, in the order of their labels."""
        return CLASSES[: self.classes]

    def info(self) -> DataInfo:
        """Size, 3 channels and the classes."""
        return DataInfo(
            size=self.size,
            channels=3,
            num_classes=self.classes,
            class_names=self.class_names,
            title="Shapes",
            license="Apache-2.0",
            train=self.count,
            test=self.test_count,
        )


def load(config: ShapesConfig, split: Split) -> ImageData:
    """Draw the images of a split.

    Args:
        config: number and appearance of the images.
        split: ``train`` or ``test``.

    Returns:
        RGB images, uint8 [N, 3, size, size]; image ``i`` has label ``i % classes``.

    Raises:
        ResourceError: the images are larger than the limit or the machine's memory.
    """
    from cascadezoo.data.base import ImageData
    from cascadezoo.data.memory import require_data
    from cascadezoo.data.shapes_images import draw_shapes

    count = config.count if split == "train" else config.test_count
    require_data(count * 3 * config.size**2, f"{count:,} shapes of {config.size}x{config.size}")
    images, labels = draw_shapes(config, split, count)
    return ImageData(images, labels, split)
