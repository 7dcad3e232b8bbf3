"""The charts of a search over sampling settings."""

from __future__ import annotations

import io
import itertools

from PIL import Image

from cascadezoo.model_folder.figures import Figure
from cascadezoo.report.tuning_results import TuneRow, TuneTable, draw_tuning, tuning_charts


def figure(value: float) -> Figure:
    return Figure.from_dict(
        {
            "name": "kid.small.n100", "metric": "kid", "value": value, "std": 0.002, "n": 100,
            "n_real": 100, "split": "test", "extractor": "small", "extractor_version": "v1",
            "subsets": 10, "subset_size": 50, "seed": 0, "precision": "fp32",
        }
    )  # fmt: skip


def tuned() -> TuneTable:
    rows = [
        TuneRow(
            {"guidance": g, "sampler": s},
            figure(0.02 + 0.003 * (g - 2) ** 2 + 0.005 * (s == "heun")),
            1.0,
        )
        for g, s in itertools.product([4.0, 0.0, 2.0], ["heun", "euler"])
    ]
    return TuneTable("shapes", "generated", None, {"guidance": 1.0}, tuple(rows))


def test_charts_show_every_setting_and_the_best_ones():
    guidance, sampler = tuning_charts(tuned())
    every, best, top = guidance.series
    assert every.faint
    assert len(every.points) == 6
    assert [(p.x, round(p.y, 6), p.spread) for p in best.points] == [
        (0.0, 32.0, 2.0), (2.0, 20.0, 2.0), (4.0, 32.0, 2.0),
    ]  # fmt: skip
    assert best.joined
    assert [(p.x, p.y) for p in top.points] == [(2.0, 20.0)]
    assert top.name == "best: guidance 2, sampler euler"
    assert sampler.x.names == ["heun", "euler"]
    assert not sampler.series[1].joined
    assert [p.x for p in sampler.series[1].points] == [0.0, 1.0]
    assert len({(c.scales()[1].low, c.scales()[1].high) for c in (guidance, sampler)}) == 1


def test_the_picture_has_a_panel_for_each_parameter():
    with Image.open(io.BytesIO(draw_tuning(tuned()))) as picture:
        assert picture.format == "PNG"
        assert picture.width == 2 * 4 * 130
