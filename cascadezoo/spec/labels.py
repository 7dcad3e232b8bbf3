"""The number of a label that is given as a number or as a class name. Free of torch."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import SupportsIndex

from cascadezoo.errors import SampleError

__all__ = ["label_from_text", "label_number"]

_SHOWN = 20
"""Number of class names that an error lists."""

_NUMBER = re.compile(r"[0-9]{1,19}")


def label_from_text(text: str, num_classes: int | None, names: Sequence[str] | None) -> int:
    """The number of a label of the command line.

    Args:
        text: a number, or the name of a class. ``number:1`` is always a number and ``name:1``
            always a name.
        num_classes: number of labels; None without labels.
        names: the class names; None if they are unknown.

    Raises:
        SampleError: no class has this name or number, or the text is a number and also the name of
            a class with another number.
    """
    form, colon, rest = text.partition(":")
    stated = form if colon and form in ("name", "number") else None
    value = rest if stated else text
    is_number = _NUMBER.fullmatch(value) is not None and stated != "name"
    if num_classes is None:
        raise SampleError(
            f"label {text!r} was given, but the model was trained without labels",
            hint="leave labels out",
            code="sample-no-labels",
        )
    if not is_number:
        return label_number(value, num_classes, names)
    number = int(value)
    if stated is None and names is not None and value in names and names.index(value) != number:
        raise SampleError(
            f"label {text!r} is ambiguous: the class of this name has the number "
            f"{names.index(value)}",
            hint=f"write name:{value} or number:{value}",
            code="sample-label-ambiguous",
            label=text,
        )
    return label_number(number, num_classes, names)


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
