from __future__ import annotations

import json
import subprocess
import sys

import pytest
from errors_help import raises
from hypothesis import given
from hypothesis import strategies as st

from cascadezoo.errors import ModelError
from cascadezoo.model_folder.figures import Figure, figure_name

KID = {
    "name": "kid.small.n2000",
    "metric": "kid",
    "extractor": "small",
    "n": 2000,
    "value": 0.0123,
    "std": 0.0011,
    "seed": 3,
    "precision": "fp32",
}


@given(
    st.builds(
        dict,
        value=st.floats(allow_nan=False, allow_infinity=False),
        std=st.none() | st.floats(0, 1e9),
        n=st.integers(0, 10**9),
        n_real=st.none() | st.integers(0, 10**9),
        precision=st.none() | st.sampled_from(["fp32", "bf16"]),
        extractor=st.none() | st.sampled_from(["inception", "small"]),
        note=st.none() | st.text(),
    )
)
def test_figures_survive_json(fields):
    name = figure_name("kid", fields["n"], fields["extractor"], fields["precision"])
    figure = Figure(name=name, metric="kid", **fields)
    assert Figure.from_dict(json.loads(json.dumps(figure.to_dict()))) == figure


@pytest.mark.parametrize(
    ("changes", "field", "code", "shown"),
    [
        ({"name": "kid"}, "", "value-error", "'kid.small.n2000'"),
        ({"name": "kid.inception.n2000"}, "", "value-error", "'kid.small.n2000'"),
        ({"n": 1999}, "", "value-error", "'kid.small.n1999'"),
        ({"precision": "bf16"}, "", "value-error", "'kid.small-bf16.n2000'"),
        ({"value": "0.1"}, "value", "float-type", "value"),
        ({"value": float("nan")}, "value", "finite-number", "value"),
        ({"std": -1.0}, "std", "greater-than-equal", "std"),
        ({"flavour": 1}, "flavour", "extra-forbidden", "flavour"),
    ],
)
def test_invalid_figures(changes, field, code, shown):
    with raises(ModelError, "model-figure-invalid", problems={field: code}) as caught:
        Figure.from_dict({**KID, **changes}, source="run/metrics.json")
    assert shown in caught.value.what
    assert "run/metrics.json" in str(caught.value)


def test_a_name_may_have_a_suffix():
    assert Figure.from_dict({**KID, "name": "kid.small.n2000.test"}).name.endswith(".test")


def test_text_and_speed():
    figure = Figure.from_dict({**KID, "sampling_seconds": 4.0})
    assert str(figure) == "kid.small.n2000: 12.30 +- 1.10 x 10^-3"
    assert figure.images_per_second == 500
    assert Figure.from_dict(KID).images_per_second is None


def test_reading_figures_needs_no_torch():
    code = (
        "import sys, cascadezoo.model_folder.figures, cascadezoo.evaluate, cascadezoo.report, "
        "cascadezoo.report.course; "
        "print([m for m in ('torch', 'PIL', 'matplotlib', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
