"""Labels of a sampling call: numbers or class names, one for all images or one per image."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, SupportsIndex

from torch import Tensor

from cascadezoo.errors import SampleError

__all__ = ["Labels", "label_number", "label_numbers", "labels_count"]

Labels = int | str | Sequence[int | str] | Tensor | None

_SHOWN = 20
"""Number of class names that an error lists."""


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


def label_number(label: object, num_classes: int, names: Sequence[str] | None) -> int:
    """The number of a label.

    Args:
        label: a number, or the name of a class.
        num_classes: number of labels.
        names: the class names; None if they are unknown.

    Raises:
        SampleError: no class has this name or number, or several have this name.
    """
    if isinstance(label, str):
        return _by_name(label, num_classes, names)
    if isinstance(label, bool) or not isinstance(label, SupportsIndex):
        raise SampleError(
            f"label {label!r} is neither a number nor a class name",
            hint=_known(num_classes, names),
            code="sample-label-type",
            label=label,
        )
    number = label.__index__()
    if not 0 <= number < num_classes:
        raise SampleError(
            f"label {number} is out of range",
            hint=_known(num_classes, names),
            code="sample-label-out-of-range",
            label=number,
        )
    return number


def _by_name(label: str, num_classes: int, names: Sequence[str] | None) -> int:
    if names is None:
        raise SampleError(
            f"label {label!r} is a name, but the names of the classes are unknown",
            hint=_known(num_classes, names),
            code="sample-class-names-unknown",
            label=label,
        )
    numbers = [number for number, name in enumerate(names) if name == label]
    if len(numbers) == 1:
        return numbers[0]
    if numbers:
        raise SampleError(
            f"{len(numbers)} classes have the name {label!r}",
            hint=f"use their numbers: {', '.join(map(str, numbers))}",
            code="sample-class-name-twice",
            label=label,
        )
    folded = {name.casefold(): name for name in names}
    close = difflib.get_close_matches(label.casefold(), list(folded), n=2, cutoff=0.6)
    guess = f"did you mean {' or '.join(repr(folded[name]) for name in close)}? " if close else ""
    raise SampleError(
        f"no class has the name {label!r}",
        hint=f"{guess}{_known(num_classes, names)}",
        code="sample-class-unknown",
        label=label,
    )


def _known(num_classes: int, names: Sequence[str] | None) -> str:
    if names is None:
        return f"use labels from 0 to {num_classes - 1}"
    listed = ", ".join(f"{number} {name!r}" for number, name in enumerate(names[:_SHOWN]))
    more = f", ... {num_classes - 1} {names[-1]!r}" if num_classes > _SHOWN else ""
    return f"the classes are {listed}{more}"
