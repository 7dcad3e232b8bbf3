"""Declared options of sampling: types, limits, texts."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cascadezoo.spec.configs import Option


@pytest.mark.parametrize(
    ("option", "allowed", "refused"),
    [
        (Option(float, 0.5, 2.0), [0.5, 1, 2.0], [0.4, 2.1, math.nan, True, "1", None]),
        (Option(float), [-1e9, 0, 3.5], [math.inf, math.nan, False]),
        (Option(int, 0), [0, 7, 10**400], [-1, 1.0, True, "1"]),
        (Option(int, None, 3), [-5, 3], [4]),
        (Option(bool), [True, False], [0, 1, "true"]),
        (Option(str), ["", "a"], [1, None]),
    ],
)
def test_values(option: Option, allowed: list[Any], refused: list[Any]) -> None:
    assert all(option.allows(value) for value in allowed)
    assert not any(option.allows(value) for value in refused)


def test_texts() -> None:
    assert Option(float).parse("0.5") == 0.5
    assert Option(int).parse("3") == 3
    assert Option(str).parse("3") == "3"
    assert [Option(bool).parse(text) for text in ("true", "False")] == [True, False]
    for option, text in ((Option(int), "1.5"), (Option(float), "a"), (Option(bool), "1")):
        with pytest.raises(ValueError, match="."):
            option.parse(text)
    shown = [Option(float, 0, 1), Option(int, 1), Option(int, None, 9), Option(bool)]
    assert list(map(str, shown)) == [
        "number, 0 to 1",
        "whole number, 1 or more",
        "whole number, at most 9",
        "true or false",
    ]


def test_what_is_no_option() -> None:
    with pytest.raises(ValueError, match="int, float, bool or str"):
        Option(list)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no limits"):
        Option(str, 0, 1)
