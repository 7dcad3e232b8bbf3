"""Labels of a sampling call: numbers or class names, one for all images or one per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from cascadezoo.errors import SampleError
from cascadezoo.spec.labels import label_number

__all__ = ["Labels", "label_numbers", "labels_count"]

Labels = int | str | Sequence[int | str] | Tensor | None


def labels_count(labels: Labels) -> int | None:
    """The number of images that the labels are for; None if one label is for all images.

    >>> labels_count(["star", "ring"]), labels_count("star"), labels_count(None)
    (2, None, None)
    """
    if isinstance(labels, Tensor):
        return len(labels) if labels.ndim else None
    return None if labels is None or isinstance(labels, (str, int)) else len(labels)


def label_numbers(
    labels: Labels, n: int, num_classes: int, names: Sequence[str] | None, first: int = 0
) -> list[int]:
    """One number for each image.

    Args:
        labels: see :meth:`~cascadezoo.Cascade.sample`.
        n: number of images.
        num_classes: number of labels.
        names: the class names; None if they are unknown.
        first: the number of the first image.

    Raises:
        SampleError: another number of labels than images, or a label that does not exist.
    """
    if labels is None:
        return [(first + i) % num_classes for i in range(n)]
    if labels_count(labels) is None:
        one = labels.item() if isinstance(labels, Tensor) else labels
        return [label_number(one, num_classes, names)] * n
    listed: Sequence[Any] = labels.tolist() if isinstance(labels, Tensor) else labels  # type: ignore[assignment]
    if len(listed) != n:
        raise SampleError(
            f"{len(listed)} labels do not match {n} images",
            hint="give one label for all images or one per image",
            code="sample-label-count",
            labels=len(listed),
            n=n,
        )
    return [label_number(label, num_classes, names) for label in listed]
