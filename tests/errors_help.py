"""Asserts errors by class, code and fields. test_messages.py and messages/ test the wording."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, TypeVar

import click
import pytest

from cascadezoo import ConfigError
from cascadezoo.errors import CascadezooError, SpecError

E = TypeVar("E", bound=CascadezooError)


@contextmanager
def raises(
    cls: type[E], code: str, *, problems: Mapping[str, str] | None = None, **fields: object
) -> Iterator[pytest.ExceptionInfo[E]]:
    """Like ``pytest.raises``, for one code and its fields.

    Args:
        cls: the exact class.
        code: the code of the error.
        problems: codes of validation problems by path; the error may have further problems.
        fields: expected fields; of a path, the last parts.
    """
    with pytest.raises(cls) as caught:
        yield caught
    check_error(caught.value, cls, code, problems=problems, **fields)


def check_error(
    error: BaseException | None,
    cls: type[CascadezooError],
    code: str,
    *,
    problems: Mapping[str, str] | None = None,
    **fields: object,
) -> None:
    """Fail unless the error has that class, code and fields; see :func:`raises`."""
    assert isinstance(error, CascadezooError), error
    assert (type(error), error.code) == (cls, code), error
    for name, value in fields.items():
        assert name in error.fields, (name, error.fields)
        assert_field(name, error.fields[name], value)
        if isinstance(value, (str, int)) and name in ("path", "name", "kind"):
            shown = PurePath(value).name if name == "path" else str(value)
            assert shown.lower() in str(error).lower(), f"{name} {shown!r} is not shown: {error}"
    if problems is not None:
        if isinstance(error, SpecError):
            rows = {(p.path, p.code) for p in error.problems}
        else:
            rows = set(error.fields["problems"].items())
        assert set(problems.items()) <= rows, (problems, rows)


def assert_field(name: str, actual: Any, expected: object) -> None:
    """Fail unless a field has that value, or is a path that ends in it."""
    if name == "path" or isinstance(actual, PurePath):
        parts, end = Path(actual).parts, Path(str(expected)).parts
        assert parts[-len(end) :] == end, (actual, expected)
    elif isinstance(expected, Mapping):
        assert expected.items() <= dict(actual).items(), (actual, expected)
    elif isinstance(expected, (list, tuple)):
        assert list(actual) == list(expected), (actual, expected)
    else:
        assert actual == expected, (actual, expected)


@contextmanager
def raises_config(field: str, code: str) -> Iterator[pytest.ExceptionInfo[ConfigError]]:
    """Like :func:`raises`, for errors of a config's own methods, outside a spec."""
    with pytest.raises(ConfigError) as caught:
        yield caught
    assert (caught.value.field, caught.value.code) == (field, code), caught.value


def check_failed(
    result: Any,
    code: str,
    *,
    shown: str | None = None,
    problems: Mapping[str, str] | None = None,
    **fields: object,
) -> None:
    """Fail unless a command ended with that error.

    Args:
        result: the result of ``invoke``; its ``error`` is the reported error.
        code: the code of the error; "usage" for errors of click.
        shown: a value that stderr must contain.
        problems: see :func:`raises`.
        fields: see :func:`raises`.
    """
    if code == "usage":
        assert isinstance(result.error, click.UsageError), result.error
    else:
        assert isinstance(result.error, CascadezooError), result.error
        check_error(result.error, type(result.error), code, problems=problems, **fields)
    assert shown is None or shown in result.stderr, result.stderr
