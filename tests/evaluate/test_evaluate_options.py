"""``evaluation_options``: the options of a spec with overrides."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascadezoo.evaluate.options import (
    EvaluationOptions,
    EvaluationOverrides,
    evaluation_options,
)
from cascadezoo.spec.models import EvaluationSpec

SPEC = EvaluationSpec(
    extractor="small",
    precision="bf16",
    samples=400,
    subsets=20,
    subset_size=50,
    seed=3,
    batch_size=7,
    split="test",
)
VALUES = {
    "extractor": "small",
    "n": 400,
    "seed": 3,
    "subsets": 20,
    "subset_size": 50,
    "batch_size": 7,
    "precision": "bf16",
    "split": "test",
    "cache": None,
}
OVERRIDES: EvaluationOverrides = {
    "extractor": "inception",
    "n": 30,
    "seed": 0,
    "subsets": 5,
    "subset_size": 12,
    "batch_size": 11,
    "precision": "fp32",
    "split": "train",
    "cache": Path("features"),
}


def test_every_value_of_the_spec_is_used() -> None:
    assert asdict(evaluation_options(SPEC)) == VALUES


def test_every_value_can_be_overridden() -> None:
    assert OVERRIDES.keys() == VALUES.keys() == EvaluationOverrides.__annotations__.keys()
    assert asdict(evaluation_options(SPEC, **OVERRIDES)) == OVERRIDES


@pytest.mark.parametrize("key", list(OVERRIDES))
def test_one_override_changes_one_value(key: Any) -> None:
    options = evaluation_options(
        EvaluationSpec(**{**SPEC.model_dump(), "subset_size": 6}), **{key: OVERRIDES[key]}
    )
    assert asdict(options) == {**VALUES, "subset_size": 6, key: OVERRIDES[key]}


def test_none_keeps_the_value_of_the_spec() -> None:
    nothing: Any = dict.fromkeys(OVERRIDES)
    assert asdict(evaluation_options(SPEC, **nothing)) == VALUES


@pytest.mark.parametrize(("n", "size"), [(50, 50), (49, 24), (10, 5), (3, 2)])
def test_a_subset_size_of_the_spec_that_exceeds_n_becomes_half_of_n(n: int, size: int) -> None:
    assert evaluation_options(SPEC, n=n).subset_size == size


@given(n=st.integers(1, 5000), subset_size=st.integers(2, 5000))
def test_an_overriding_subset_size_never_changes(n: int, subset_size: int) -> None:
    assert evaluation_options(SPEC, n=n, subset_size=subset_size).subset_size == subset_size


@pytest.mark.parametrize(
    ("subset_size", "n", "n_real", "size"),
    [(None, 5000, 5000, 1000), (None, 300, 5000, 150), (None, 300, 100, 50), (70, 300, 100, 70)],
)
def test_the_subset_size_for_numbers_of_images(
    subset_size: int | None, n: int, n_real: int, size: int
) -> None:
    options = EvaluationOptions(subset_size=subset_size)
    assert options.subset_size_for(n, n_real) == size
