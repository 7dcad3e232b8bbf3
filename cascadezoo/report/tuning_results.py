"""What a search over sampling settings found: as a table, as CSV, as JSON and as a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

from cascadezoo.model_folder.figures import Figure
from cascadezoo.util.numbers import spread

__all__ = ["Tried", "TuneTable", "draw_tuning", "tuning_csv", "tuning_markdown"]

_BEST = "#D55E00"
_LINE = "#0072B2"
_INK = "#333333"
_DPI = 110


@dataclass(frozen=True, slots=True)
class Tried:
    """One setting and what it gave.

    Args:
        setting: the value of each parameter.
        figure: its KID.
        seconds: how long drawing its images takes from noise on, also where images of the first
            stages were there already.
    """

    setting: Mapping[str, Any]
    figure: Figure
    seconds: float

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.figure.n / max(self.seconds, 1e-9)

    def to_dict(self) -> dict[str, Any]:
        """What tune.json holds."""
        return {
            "setting": dict(self.setting),
            "figure": self.figure.to_dict(),
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.rate, 3),
        }


@dataclass(frozen=True, slots=True)
class TuneTable:
    """A whole search.

    Args:
        model: the model's name.
        upstream: ``generated``, or ``real`` where true images stood before a stage.
        fed_to: the stage that got them.
        before: the model's own settings while it was searched.
        rows: every setting, in the order in which they were tried; at least one.
    """

    model: str
    upstream: str
    fed_to: str | None
    before: Mapping[str, Any]
    rows: tuple[Tried, ...]

    @property
    def best(self) -> Tried:
        """The setting of the lowest KID; of equals the one that draws fastest."""
        return min(self.rows, key=lambda row: (row.figure.value, row.seconds))

    @property
    def names(self) -> list[str]:
        """The searched parameters."""
        return list(self.rows[0].setting)

    def close(self, row: Tried) -> bool:
        """Whether a row is no worse than the best one by more than that one's spread."""
        best = self.best.figure
        return row.figure.value <= best.value + (best.std or 0.0)

    def to_dict(self) -> dict[str, Any]:
        """What tune.json holds."""
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
    """The rows as CSV: parameters, KID and its spread, how it was got, seconds, images/s."""
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
    """The table for people: the best setting in bold, those within its spread marked."""
    best, figure = table.best, table.best.figure
    fed = (
        f" Stage `{table.fed_to}` was given true images, made small, and not generated ones."
        if table.fed_to
        else ""
    )
    before = ", ".join(f"{name} {_text(value)}" for name, value in table.before.items())
    how = (
        f"KID x 1000 (lower is better) of {figure.n} images, seed {figure.seed}, against "
        f"{figure.n_real} images of the {figure.split} split, with features of "
        f"`{figure.extractor}` ({figure.extractor_version}), {figure.subsets} subsets of "
        f"{figure.subset_size}.{fed} Every setting drew from the same noise. Seconds are those "
        "of drawing all the images from noise on."
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
    said = (
        "`~`: within the spread (over subsets) of the best, so not told apart from it. "
        "The lowest of many figures flatters itself: measure the best one again with another "
        "seed before you quote it."
    )
    lines += ["", said]
    return "\n".join(lines) + "\n"


def draw_tuning(table: TuneTable, file: IO[bytes]) -> None:
    """Write a PNG: KID against each parameter, with error bars.

    Points are settings; the line goes through the best setting of each value.
    """
    names = table.names
    canvas = Canvas(figsize=(0.8 + 3.6 * len(names), 3.4), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(canvas)
    panels = canvas.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        _panel(axes, table, name)
    panels[0].set_ylabel("KID x 1000", color=_INK)
    figure = table.best.figure
    fed = f", {table.fed_to} on real images" if table.fed_to else ""
    canvas.suptitle(
        f"{table.model}: n = {figure.n}, features of {figure.extractor}{fed}",
        fontsize=10,
        color=_INK,
    )
    canvas.savefig(file, format="png", metadata={"Software": "cascadezoo"})


def _panel(axes: Axes, table: TuneTable, name: str) -> None:
    values = list(dict.fromkeys(row.setting[name] for row in table.rows))
    numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    if numeric:
        values.sort()
    place = {value: value if numeric else number for number, value in enumerate(values)}
    axes.scatter(
        [place[row.setting[name]] for row in table.rows],
        [row.figure.value * 1000 for row in table.rows],
        color=_LINE,
        alpha=0.3,
        s=14,
        linewidths=0,
    )
    best = [
        min((r for r in table.rows if r.setting[name] == v), key=lambda r: r.figure.value)
        for v in values
    ]
    axes.errorbar(
        [place[value] for value in values],
        [row.figure.value * 1000 for row in best],
        [(row.figure.std or 0.0) * 1000 for row in best],
        color=_LINE,
        marker="o",
        markersize=4,
        linewidth=1.5 if numeric else 0,
        elinewidth=1.0,
        capsize=2.5,
    )
    top = table.best
    axes.plot(
        [place[top.setting[name]]],
        [top.figure.value * 1000],
        marker="o",
        markersize=10,
        markerfacecolor="none",
        markeredgecolor=_BEST,
        markeredgewidth=1.6,
    )
    if len(values) <= 8:
        axes.set_xticks([place[value] for value in values], [_text(value) for value in values])
    axes.set_xlabel(name, color=_INK)
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=8, length=2)
    axes.margins(x=0.08)


def _head(names: list[str]) -> str:
    return f"| | {' | '.join([*names, 'KID x 1000', 'seconds', 'images/s'])} |"


def _setting(row: Tried) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in row.setting.items())


def _kid(row: Tried) -> str:
    return spread(row.figure.value, row.figure.std, 1000, decimals=2)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
