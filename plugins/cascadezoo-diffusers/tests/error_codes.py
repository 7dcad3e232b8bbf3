"""Assertions on errors by class, code and fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from cascadezoo import ConfigError
from cascadezoo.errors import CascadezooError, SpecError

E = TypeVar("E", bound=CascadezooError)


@contextmanager
def raises(
    cls: type[E], code: str, *, problems: Mapping[str, str] | None = None, **fields: object
) -> Iterator[pytest.ExceptionInfo[E]]:
    """Like ``pytest.raises``, with the code of the error.

    Args:
        cls: the exact class.
        code: the error's code.
        problems: the code of each path of a SpecError.
        fields: values of the error's fields; of ``path`` only the last part.
    """
    with pytest.raises(cls) as caught:
        yield caught
    error = caught.value
    assert (type(error), error.code) == (cls, code), error
    for name, value in fields.items():
        actual = error.fields[name]
        assert (Path(actual).name if name == "path" else actual) == value, error.fields
    if problems is not None:
        assert isinstance(error, SpecError)
        assert dict(problems) == {p.path: p.code for p in error.problems}


@contextmanager
def raises_config(field: str, code: str) -> Iterator[pytest.ExceptionInfo[ConfigError]]:
    """Like :func:`raises`, for a ConfigError of one field."""
    with pytest.raises(ConfigError) as caught:
        yield caught
    assert (caught.value.field, caught.value.code) == (field, code), caught.value
