"""The reader of metrics.json, strict and lenient."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from errors_help import raises

from cascadezoo.errors import ModelError
from cascadezoo.model_folder.metrics_file import MetricsFile, parse_metrics, read_metrics
from cascadezoo.util.limits import LARGEST_METRICS
from cascadezoo.zoo.list import bundled_folder, find

FIGURE = {"name": "kid.n4", "metric": "kid", "value": 1.0, "n": 4}
WHOLE = {"name": "m", "spec_digest": "d", "figures": [FIGURE]}


def parse(data, **options) -> MetricsFile:
    return parse_metrics(json.dumps(data).encode(), "m.json", **options)


@pytest.mark.parametrize("strict", [True, False])
def test_valid_files_are_read_the_same_way(strict):
    folder = bundled_folder(find("shapes-tiny"))
    assert folder is not None
    assert read_metrics(folder, strict=strict).to_json() == (folder / "metrics.json").read_text()


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"new": 1}, "new"),
        ({"figures": [{**FIGURE, "new": 1}]}, "figures.0.new"),
        ({"training": {"new": 1}}, "training.new"),
        ({"training": {"seconds_per_epoch": {"p": -1.0}}}, "training.seconds_per_epoch.p"),
    ],
)
def test_keys_of_a_newer_version_are_ignored_leniently(change, path):
    code = "greater-than-equal" if path.startswith("training.seconds") else "extra-forbidden"
    with raises(ModelError, "model-metrics-invalid", problems={path: code}):
        parse({**WHOLE, **change})
    metrics = parse({**WHOLE, **change}, strict=False)
    assert metrics.name == "m"
    assert metrics.figures[0].value == 1.0


def test_losses_that_are_not_finite_are_read_leniently():
    data = {"training": {"losses": {"p": {"l": math.nan}}, "seconds_per_epoch": {"p": math.inf}}}
    with raises(ModelError, "model-metrics-not-json"):
        parse({**WHOLE, **data})
    metrics = parse(data, strict=False)
    assert math.isnan(metrics.training.losses["p"]["l"])
    assert metrics.training.seconds_per_epoch == {"p": math.inf}
    assert (metrics.name, metrics.figures) == ("", [])


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("figures", "problems"),
    [
        ([{**FIGURE, "value": "1"}], {"figures.0.value": "float-type"}),
        ([{**FIGURE, "name": "fid.n4"}], {"figures.0": "value-error"}),
        ([FIGURE, FIGURE], {"": "value-error"}),
        ({}, {"figures": "list-type"}),
    ],
)
def test_wrong_figures_are_refused_with_their_path(figures, problems, strict):
    with raises(ModelError, "model-metrics-invalid", problems=problems):
        parse({**WHOLE, "figures": figures}, strict=strict)


@pytest.mark.parametrize("strict", [True, False])
def test_files_are_bounded(tmp_path: Path, strict):
    with raises(ModelError, "model-no-metrics", path=tmp_path):
        read_metrics(tmp_path, strict=strict)
    path = tmp_path / "metrics.json"
    text = json.dumps(WHOLE)
    path.write_text(text + " " * (LARGEST_METRICS - len(text)))
    assert read_metrics(tmp_path, strict=strict).name == "m"
    path.write_text(text + " " * (LARGEST_METRICS - len(text) + 1))
    with raises(ModelError, "model-file-too-large"):
        read_metrics(tmp_path, strict=strict)


def test_attribution_may_lack_the_role_leniently():
    data = {**WHOLE, "attribution": [{"stage": "a", "generated": FIGURE, "real": FIGURE}]}
    with raises(ModelError, "model-metrics-invalid", problems={"attribution.0.role": "missing"}):
        parse(data)
    rows = parse(data, strict=False).attribution
    assert rows is not None
    assert (rows[0].stage, rows[0].role) == ("a", "")
