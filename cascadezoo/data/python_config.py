"""The dataset ``python``: images that were passed to a function, and that no file contains."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, ClassVar, NoReturn

from pydantic import Field

from cascadezoo.errors import DataError
from cascadezoo.spec.configs import DataConfig, DataInfo, Model
from cascadezoo.util.limits import MOST_CLASSES

if TYPE_CHECKING:
    from cascadezoo.data.base import ImageData, Split
    from cascadezoo.data.source import ImageSource

__all__ = ["LARGEST_SIDE", "GivenSplit", "PythonConfig", "load", "not_given", "open_source"]

SHOWN_DIGEST = 12
"""Number of digits of a digest that a message shows."""

LARGEST_SIDE = 65536
"""Largest height and width of images that are passed."""

Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]


class GivenSplit(Model):
    """The images of one split."""

    count: Annotated[int, Field(ge=1, le=2**53)]
    """Their number."""
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """The sha256 of their shape, pixels and labels, before they are fitted to the cascade."""

    def __str__(self) -> str:
        return f"{self.count:,} images with the sha256 {self.digest[:SHOWN_DIGEST]}..."


class PythonConfig(DataConfig):
    """What is known of images that only the program had which passed them.

    ``build_cascade(spec, data=...)`` writes it. The images themselves are not saved.
    """

    paths: ClassVar[tuple[str, ...]] = ()

    height: Side | None = None
    """Height of the images in pixels."""
    width: Side | None = None
    """Width of the images in pixels."""
    channels: Annotated[int, Field(ge=1, le=3)] | None = None
    """1 for grey, 3 for RGB."""
    classes: Annotated[int, Field(ge=0, le=MOST_CLASSES)] | None = None
    """Number of classes; 0 for images without labels."""
    train: GivenSplit | None = None
    """The training images; None until `build_cascade` is called with `data`."""
    test: GivenSplit | None = None
    """The test images, if any were given."""

    def info(self) -> DataInfo:
        """Size, channels, classes and numbers, as recorded.

        Raises:
            DataError: nothing is recorded, because the images were not given yet.
        """
        if self.train is None:
            not_given(self, "train")
        return DataInfo(
            size=self.height if self.height == self.width else None,
            channels=self.channels,
            num_classes=self.classes,
            title="Images given in Python",
            train=self.train.count,
            test=0 if self.test is None else self.test.count,
        )

    def advice(self) -> Iterable[str]:
        """Commands cannot train or measure this spec."""
        yield (
            "data: the images are given in Python: train this spec by "
            "cascadezoo.build_cascade(spec, data=...); a command cannot"
        )


def not_given(config: PythonConfig, split: Split) -> NoReturn:
    """Raise the error for images that are needed and were not passed.

    Raises:
        DataError: always.
    """
    row = config.train if split == "train" else config.test
    described = "" if row is None else f" ({row})"
    pair = 'data={"train": ..., "test": ...}' if split == "test" else "data=..."
    raise DataError(
        f"the {split} images are given in Python{described}: no file contains them",
        hint=f"pass the {'same ' if row else ''}images: build_cascade(spec, {pair}), "
        f"evaluate_model(model, {pair}); a command cannot use them",
        code="data-given-in-python",
        split=split,
        count=None if row is None else row.count,
        digest=None if row is None else row.digest,
    )


def load(config: PythonConfig, split: Split) -> ImageData:
    """Refuse: the images are not stored anywhere.

    Raises:
        DataError: always.
    """
    not_given(config, split)


def open_source(config: PythonConfig, split: Split) -> ImageSource:
    """Refuse, as :func:`load`.

    Raises:
        DataError: always.
    """
    not_given(config, split)
