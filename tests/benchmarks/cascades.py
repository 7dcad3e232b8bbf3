"""Tables and charts of `docs/does-a-cascade-pay.md`, from finished sweeps over `cifar10-cascades`.

    cascadezoo sweep cifar10-cascades -o pay
    python tests/benchmarks/cascades.py pay -o pay/page

Several sweep folders are several budgets. Writes ``cascades.md`` (KID by contender, paired
differences and Tukey's intervals of each budget), ``does-a-cascade-pay.png`` (KID against training
FLOPs and against sampling FLOPs) and ``does-a-cascade-pay-samples.png`` (the first samples of
each contender with the first seed and the largest budget).

    python tests/benchmarks/cascades.py pay -o pay/page --halved 300

measures the same models again after a mean over 2x2 pixels, which removes grain, against real images
with the same mean: what KID says of the coarse image alone. Writes ``halved.json``, by cell.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from scipy import stats

from cascadezoo import Cascade
from cascadezoo.build.plan import make_plan
from cascadezoo.data.split import load_split
from cascadezoo.evaluate.features.base import load_extractor
from cascadezoo.evaluate.metrics.kid import kernel_inception_distance
from cascadezoo.evaluate.real_features import choose_real
from cascadezoo.report.charts import Axis, Chart, Point, Series
from cascadezoo.report.charts_png import write_png
from cascadezoo.spec import load_spec
from cascadezoo.sweep.results import SweepResults
from cascadezoo.sweep.variance import Rival, compare_with_best, paired_differences
from cascadezoo.util.numbers import human_count

AXIS = "cascade"
REFERENCE = "single"


@dataclass(frozen=True)
class Contender:
    """A contender at one budget: its costs, and its KID x 1000 by seed."""

    name: str
    parameters: int
    training_flops: float
    sampling_flops: float
    seconds: float
    kids: dict[str, float]

    @property
    def mean(self) -> float:
        return math.fsum(self.kids.values()) / len(self.kids)

    @property
    def reach(self) -> float:
        """Half of the 95 % interval of the mean, by Student's t; nan for one seed."""
        count = len(self.kids)
        if count < 2:
            return math.nan
        values = self.kids.values()
        std = math.sqrt(math.fsum((v - self.mean) ** 2 for v in values) / (count - 1))
        return float(stats.t.ppf(0.975, count - 1)) * std / math.sqrt(count)


def read(folder: Path) -> list[Contender]:
    """The contenders of a sweep, of the seeds that all of them have."""
    results = SweepResults.from_dict(json.loads((folder / "results.json").read_text()))
    (seed_axis,) = results.seed_axes
    cells: dict[str, dict[str, str]] = {}
    kids: dict[str, dict[str, float]] = {}
    seconds: dict[str, list[float]] = {}
    for cell in results.done:
        name = cell.labels[AXIS]
        if cell.kid is None:
            raise SystemExit(f"{folder}: {cell.name} has no KID")
        kids.setdefault(name, {})[cell.labels[seed_axis]] = 1000 * cell.kid
        cells.setdefault(name, {})[cell.labels[seed_axis]] = cell.name
        seconds.setdefault(name, []).append(cell.training_seconds or math.nan)
    common = set.intersection(*(set(rows) for rows in kids.values()))
    made = []
    for name, rows in kids.items():
        resolved = load_spec(folder / "specs" / f"{next(iter(cells[name].values()))}.json")
        plan = make_plan(resolved, "cpu")
        training = plan.total_flops
        if training is None or plan.sampling_flops is None:
            raise SystemExit(f"{folder}: the FLOPs of {name} are unknown")
        values = {seed: rows[seed] for seed in sorted(common)}
        took = math.fsum(seconds[name]) / len(seconds[name])
        made.append(Contender(name, plan.parameters, training, plan.sampling_flops, took, values))
    return made


def tables(rows: Sequence[Contender]) -> str:
    """The results of one budget as Markdown."""
    seeds = list(rows[0].kids)
    head = ["contender", "parameters", "training FLOPs", "FLOPs an image", "training, s"]
    head += [f"KID, {seed}" for seed in seeds] + ["mean, 95 % interval"]
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    for row in rows:
        shown = [f"`{row.name}`", f"{row.parameters:,}", human_count(row.training_flops)]
        shown += [human_count(row.sampling_flops), f"{row.seconds:.0f}"]
        shown += [f"{row.kids[seed]:.1f}" for seed in seeds]
        shown.append(f"{row.mean:.1f} +- {row.reach:.1f}")
        lines.append(f"| {' | '.join(shown)} |")
    groups = {row.name: row.kids for row in rows}
    paired = paired_differences(groups, REFERENCE)
    lines += ["", f"| minus `{REFERENCE}` | difference | 95 % interval, paired | p |"]
    lines += ["| --- | ---: | ---: | ---: |", *map(difference, paired)]
    best = compare_with_best({name: list(kids.values()) for name, kids in groups.items()})
    if best is not None:
        lines += ["", f"| minus `{best.name}` | difference | 95 % interval, Tukey | p |"]
        lines += ["| --- | ---: | ---: | ---: |", *map(difference, best.rivals)]
    return "\n".join(lines)


def difference(row: Rival) -> str:
    ends = f"{row.low:+.1f} to {row.high:+.1f}"
    return f"| `{row.name}` | {row.difference:+.1f} | {ends} | {row.p:.2g} |"


def charts(budgets: Sequence[Sequence[Contender]]) -> list[Chart]:
    """KID against training FLOPs, if there are several budgets, and against sampling FLOPs."""
    names = list(dict.fromkeys(row.name for rows in budgets for row in rows))
    made = []
    for what, attribute, joined in (
        ("training", "training_flops", True),
        ("sampling an image", "sampling_flops", False),
    ):
        if joined and len(budgets) == 1:
            continue
        chosen = budgets if joined else budgets[-1:]
        series = [
            Series(
                name,
                [
                    Point(getattr(row, attribute), row.mean, row.reach, row.name)
                    for rows in chosen
                    for row in rows
                    if row.name == name
                ],
                joined=joined,
            )
            for name in names
        ]
        x = Axis(f"FLOPs of {what}", log=joined, zero=not joined)
        y = Axis("KID x 1000", zero=True)
        made.append(Chart(f"KID against FLOPs of {what}", x, y, series, labelled=not joined))
    return made


def samples(
    folder: Path, rows: Sequence[Contender], count: int = 10, scale: int = 2
) -> Image.Image:
    """The first samples of each contender with the first seed, a row each."""
    size, gap, left = 32 * scale, 4, 110
    seed = next(iter(rows[0].kids))
    sheet = Image.new("RGB", (left + count * (size + gap), len(rows) * (size + gap)), "white")
    pen = ImageDraw.Draw(sheet)
    for line, row in enumerate(rows):
        top = line * (size + gap)
        pen.text((4, top + size // 2 - 6), row.name, fill="black")
        (run,) = (p for p in (folder / "cells").iterdir() if p.name == f"{seed}-{row.name}")
        cascade = Cascade.from_pretrained(run / "model", device="cpu")
        for place, image in enumerate(cascade.sample(count, seed=0, output_type="pil")):
            large = image.resize((size, size), Image.Resampling.NEAREST)
            sheet.paste(large, (left + place * (size + gap), top))
    return sheet


def halved_kids(folder: Path, count: int, out: Path) -> dict[str, float]:
    """KID x 1000 of the images at half the size, by cell; continues what ``out`` has."""
    known: dict[str, float] = json.loads(out.read_text()) if out.is_file() else {}
    results = SweepResults.from_dict(json.loads((folder / "results.json").read_text()))
    extractor = load_extractor("inception")
    real = None
    for cell in results.done:
        if cell.name in known:
            continue
        resolved = load_spec(folder / "specs" / f"{cell.name}.json")
        if real is None:
            data = load_split(resolved, "train")
            chosen = data.images[choose_real(len(data), count)]
            real = extractor(halve(torch.from_numpy(chosen).float() / 127.5 - 1), precision="bf16")
        cascade = Cascade.from_pretrained(folder / cell.run / "model", device="cpu")
        images = halve(cascade.sample(count, seed=0, batch_size=100))
        kid = kernel_inception_distance(
            extractor(images, precision="bf16"), real, subset_size=count // 2
        )
        known[cell.name] = 1000 * kid.mean
        out.write_text(json.dumps(known, indent=2) + "\n")
        print(f"{cell.name}: {1000 * kid.mean:.1f} +- {1000 * kid.std:.1f}", flush=True)
    return known


def halve(images: torch.Tensor) -> torch.Tensor:
    """The mean over 2x2 pixels, of images [N, C, H, W]."""
    return torch.nn.functional.avg_pool2d(images, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweeps", type=Path, nargs="+", help="folders of finished sweeps")
    parser.add_argument("-o", "--out", type=Path, default=Path("pay-page"))
    parser.add_argument("--no-samples", action="store_true")
    parser.add_argument("--halved", type=int, metavar="N", help="only measure N halved images")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.halved is not None:
        for folder in arguments.sweeps:
            halved_kids(folder, arguments.halved, arguments.out / "halved.json")
        return
    read_all = [(read(folder), folder) for folder in arguments.sweeps]
    read_all.sort(key=lambda pair: pair[0][0].training_flops)
    budgets = [rows for rows, _ in read_all]
    text = "\n\n".join(tables(rows) for rows in budgets) + "\n"
    (arguments.out / "cascades.md").write_text(text)
    print(text)
    write_png(charts(budgets), arguments.out / "does-a-cascade-pay.png", columns=2)
    if not arguments.no_samples:
        sheet = samples(read_all[-1][1], budgets[-1])
        sheet.save(arguments.out / "does-a-cascade-pay-samples.png", optimize=True)


if __name__ == "__main__":
    main()
