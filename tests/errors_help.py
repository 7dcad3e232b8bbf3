"""Errors as tests ask for them: by class, code and fields. The wording is in test_messages.py."""

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
    """Like ``pytest.raises``, for one case of a class and for the values that it names.

    Args:
        cls: the class, exactly.
        code: the error's code.
        problems: of what does not validate: the code of each path; others may be there besides.
        fields: what the error's fields are; a path is given by its last parts.
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
    """Fail unless the error is that case of that class; see :func:`raises`."""
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


def assert_field(name: str, have: Any, value: object) -> None:
    """Fail unless a field is that value, or a path that ends in it."""
    if name == "path" or isinstance(have, PurePath):
        parts, end = Path(have).parts, Path(str(value)).parts
        assert parts[-len(end) :] == end, (have, value)
    elif isinstance(value, Mapping):
        assert value.items() <= dict(have).items(), (have, value)
    elif isinstance(value, (list, tuple)):
        assert list(have) == list(value), (have, value)
    else:
        assert have == value, (have, value)


@contextmanager
def raises_config(field: str, code: str) -> Iterator[pytest.ExceptionInfo[ConfigError]]:
    """Like :func:`raises`, for what a config's own methods raise before it is part of a spec."""
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
    """Fail unless a command ended with that error; ``result`` is what ``invoke`` gives.

    Args:
        result: the result, whose ``error`` the command reported.
        code: the error's code; "usage" for what click finds.
        shown: a value that stderr must show.
        problems: see :func:`raises`.
        fields: see :func:`raises`.
    """
    if code == "usage":
        assert isinstance(result.error, click.UsageError), result.error
    else:
        assert isinstance(result.error, CascadezooError), result.error
        check_error(result.error, type(result.error), code, problems=problems, **fields)
    assert shown is None or shown in result.stderr, result.stderr
