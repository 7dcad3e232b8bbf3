"""Formatting of numbers, and the examples in docstrings."""

from __future__ import annotations

import doctest

import pytest

from cascadezoo.util import limits, numbers, text
from cascadezoo.util.numbers import spread


@pytest.mark.parametrize("module", [limits, numbers, text])
def test_examples(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    ("args", "decimals", "shown"),
    [
        ((0.0148882, 0.0019563, 1000), None, "14.89 +- 1.96"),
        ((0.0148882, None, 1000), None, "14.89"),
        ((0.0148882, 0.0019563, 1000), 2, "14.89 +- 1.96"),
        ((12.0, 0.5), 0, "12 +- 0"),
        ((0.25, 0.0), None, "0.2500 +- 0.0000"),
        ((-0.25, 0.1, 10), 3, "-2.500 +- 1.000"),
    ],
)
def test_spread(args, decimals, shown):
    assert spread(*args, decimals=decimals) == shown
