"""The results of a finished cell."""

from __future__ import annotations

import json

from cascadezoo.build.run_folder import RunFolder, RunState
from cascadezoo.sweep.cell_reader import read_cell
from cascadezoo.sweep.cells import Cell


def test_lpips_is_the_figure_of_the_whole_cascade(tmp_path):
    """Not one of the other parts of the metric: each stage, and plain interpolation."""
    spec = {"stages": [{"name": "coarse", "kind": "dae.v1"}]}
    cell = Cell("one", {}, spec, "d" * 64, "t" * 64)
    run = RunFolder(tmp_path / "cells" / "one")
    run.model.mkdir(parents=True)
    state = RunState("one", "t" * 64, "d" * 64, "done", "0.1.0")
    run.write_state(state)
    names = ["lpips.vgg.n9.up", "lpips.vgg.n9.refine", "lpips.vgg.n9", "lpips.vgg.n9.bicubic"]
    figures = [
        {"name": name, "metric": "lpips", "n": 9, "extractor": "vgg", "value": float(number)}
        for number, name in enumerate(names)
    ]
    metrics = {
        "name": "one",
        "spec_digest": cell.digest,
        "figures": figures,
        "stages": [{"name": "coarse", "kind": "dae.v1", "output": "3x32x32", "parameters": 5}],
        "training": {"seconds": 1.0, "seconds_per_epoch": {}},
    }
    (run.model / "metrics.json").write_text(json.dumps(metrics))
    result = read_cell(tmp_path, cell)
    assert (result.state, result.error) == ("done", None)
    assert (result.lpips, result.lpips_name) == (2.0, "lpips.vgg.n9")
