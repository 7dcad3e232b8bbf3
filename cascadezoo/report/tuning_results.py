"""Results of a search over sampling settings, as Markdown, CSV, JSON and a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cascadezoo.model_folder.figures import Figure
from cascadezoo.report.charts import Axis, Chart, Point, Series
from cascadezoo.report.charts_png import draw_png
from cascadezoo.util.numbers import spread

__all__ = [
    "TuneRow",
    "TuneTable",
    "draw_tuning",
    "tuning_charts",
    "tuning_csv",
    "tuning_markdown",
]

_SCALE = 1000.0
"""Factor of the KIDs that are shown."""


@dataclass(frozen=True, slots=True)
class TuneRow:
    """One setting and its result.

    Args:
        setting: the value of each parameter.
        figure: its KID.
        seconds: time to sample its images from noise, including cached images of the first stages.
    """

    setting: Mapping[str, Any]
    figure: Figure
    seconds: float

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.figure.n / max(self.seconds, 1e-9)

    def to_dict(self) -> dict[str, Any]:
        """The row in tune.json."""
        return {
            "setting": dict(self.setting),
            "figure": self.figure.to_dict(),
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.rate, 3),
        }


@dataclass(frozen=True, slots=True)
class TuneTable:
    """The results of a search.

    Args:
        model: the model's name.
        upstream: ``generated``, or ``real`` if a stage received true images.
        fed_to: the stage that received true images.
        before: the model's settings before the search.
        rows: the result of every setting in the order of the search; at least one.
    """

    model: str
    upstream: str
    fed_to: str | None
    before: Mapping[str, Any]
    rows: tuple[TuneRow, ...]

    @property
    def best(self) -> TuneRow:
        """The setting with the lowest KID; of equal ones, the fastest."""
        return min(self.rows, key=lambda row: (row.figure.value, row.seconds))

    @property
    def names(self) -> list[str]:
        """The searched parameters."""
        return list(self.rows[0].setting)

    def close(self, row: TuneRow) -> bool:
        """Whether a row is within the spread of the best one."""
        best = self.best.figure
        return row.figure.value <= best.value + (best.std or 0.0)

    def to_dict(self) -> dict[str, Any]:
        """The content of tune.json."""
        return {
            "format": 1,
            "model": self.model,
            "upstream": self.upstream,
            "fed_to": self.fed_to,
            "before": dict(self.before),
            "best": self.best.to_dict(),
            "rows": [row.to_dict() for row in self.rows],
        }


def tuning_csv(table: TuneTable) -> str:
    """Return the rows as CSV: parameters, KID, spread, how it was measured, seconds, images/s."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    head = ["kid", "kid_std", "n", "extractor", "seed", "seconds", "images_per_second", "best"]
    writer.writerow([*table.names, *head])
    for row in table.rows:
        figure = row.figure
        writer.writerow(
            [
                *(_text(row.setting[name]) for name in table.names),
                repr(figure.value),
                "" if figure.std is None else repr(figure.std),
                figure.n,
                figure.extractor,
                figure.seed,
                f"{row.seconds:.3f}",
                f"{row.rate:.3f}",
                int(row is table.best),
            ]
        )
    return file.getvalue()


def tuning_markdown(table: TuneTable) -> str:
    """Return the table as Markdown, with the best setting and those within its spread marked."""
    best, figure = table.best, table.best.figure
    fed = (
        f" Stage `{table.fed_to}` received downsampled true images instead of generated ones."
        if table.fed_to
        else ""
    )
    before = ", ".join(f"{name} {_text(value)}" for name, value in table.before.items())
    how = (
        f"KID x 1000 (lower is better) of {figure.n} images, seed {figure.seed}, against "
        f"{figure.n_real} images of the {figure.split} split, with features of "
        f"`{figure.extractor}` ({figure.extractor_version}), {figure.subsets} subsets of "
        f"{figure.subset_size}.{fed} All settings use the same noise. Seconds are the time to "
        "sample all images from noise."
    )
    lines = [
        f"# Sampling settings of {table.model}",
        "",
        how,
        "",
        f"Best: **{_setting(best)}**, {_kid(best)}." + (f" Before: {before}." if before else ""),
        "",
        _head(table.names),
        "| --- |" + " ---: |" * (len(table.names) + 3),
    ]
    for row in table.rows:
        mark = "best" if row is best else "~" if table.close(row) else ""
        cells = [*(_text(row.setting[name]) for name in table.names), _kid(row)]
        cells += [f"{row.seconds:.1f}", f"{row.rate:.1f}"]
        if row is best:
            cells = [f"**{cell}**" for cell in cells]
        lines.append(f"| {mark} | {' | '.join(cells)} |")
    note = (
        "`~`: within the spread (over subsets) of the best setting, so the difference is not "
        "significant. The lowest of many figures is biased: measure the best setting again with "
        "another seed before you quote it."
    )
    lines += ["", note]
    return "\n".join(lines) + "\n"


def draw_tuning(table: TuneTable) -> bytes:
    """Draw :func:`tuning_charts` side by side.

    Returns:
        A PNG file.
    """
    figure = table.best.figure
    fed = f", {table.fed_to} on real images" if table.fed_to else ""
    title = f"{table.model}: n = {figure.n}, features of {figure.extractor}{fed}"
    charts = tuning_charts(table)
    return draw_png(charts, columns=len(charts), size=(4.0, 3.6), title=title)


def tuning_charts(table: TuneTable) -> list[Chart]:
    """Return charts of KID against each parameter, on one scale.

    Every setting is a pale point. The line joins the best setting of each value and shows its
    spread over subsets.
    """
    ends = [
        end * _SCALE
        for row in table.rows
        for end in (
            row.figure.value - (row.figure.std or 0.0),
            row.figure.value + (row.figure.std or 0.0),
        )
    ]
    margin = 0.06 * (max(ends) - min(ends))
    up = Axis("KID x 1000", low=min(ends) - margin, high=max(ends) + margin)
    return [_chart(table, name, up) for name in table.names]


def _chart(table: TuneTable, name: str, up: Axis) -> Chart:
    values = list(dict.fromkeys(row.setting[name] for row in table.rows))
    numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    if numeric:
        values.sort()
        margin = 0.06 * (values[-1] - values[0]) or 0.5
        across = Axis(name, low=values[0] - margin, high=values[-1] + margin)
    else:
        across = Axis(name, names=[_text(value) for value in values])

    def point(row: TuneRow, *, spread: bool = False) -> Point:
        value = row.setting[name]
        figure = row.figure
        std = figure.std * _SCALE if spread and figure.std is not None else None
        x = float(value if numeric else values.index(value))
        return Point(x, figure.value * _SCALE, std, _setting(row))

    best = [
        min((r for r in table.rows if r.setting[name] == v), key=lambda r: r.figure.value)
        for v in values
    ]
    series = [
        Series("every setting", [point(row) for row in table.rows], style=0, faint=True),
        Series(
            "best of each value", [point(row, spread=True) for row in best],
            joined=numeric, style=0,
        ),
        Series(f"best: {_setting(table.best)}", [point(table.best)], style=1),
    ]  # fmt: skip
    return Chart(f"KID by {name}", across, up, series)


def _head(names: list[str]) -> str:
    return f"| | {' | '.join([*names, 'KID x 1000', 'seconds', 'images/s'])} |"


def _setting(row: TuneRow) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in row.setting.items())


def _kid(row: TuneRow) -> str:
    return spread(row.figure.value, row.figure.std, 1000, decimals=2)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
