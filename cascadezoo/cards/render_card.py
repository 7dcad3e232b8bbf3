"""The metric card: README.md of a model folder, made from its spec and its metrics.json.

A card shows no figure that metrics.json does not hold, and every text in it may be a stranger's:
:mod:`cascadezoo.util.text` makes Markdown of it that cannot be more than that text.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from cascadezoo.model_folder.reproduction import command_of, metric_texts, why_not_again
from cascadezoo.spec import CascadeSpec, PhaseSpec
from cascadezoo.spec.configs import DataInfo
from cascadezoo.util.numbers import number, power, spread
from cascadezoo.util.text import front_line as line
from cascadezoo.util.text import markdown_code as code
from cascadezoo.util.text import markdown_fence as fenced
from cascadezoo.util.text import markdown_table as table
from cascadezoo.util.text import markdown_text as plain

__all__ = ["BLOCKS", "block", "block_digest", "render_card", "render_plain_card"]

TASK = "unconditional-image-generation"

BLOCKS = ("what", "use", "figures", "attribution", "training", "limits")
"""The generated parts of a card, in their order."""

MOST_COURSE_ROWS = 12

Row = Mapping[str, Any]

_ARGS = (
    *("extractor", "extractor_version", "precision", "n", "n_real", "resolution", "seed"),
    *("subsets", "subset_size", "split", "settings"),
)
"""What tells two results of one metric on one dataset apart: the Hub keeps one of those whose
arguments are the same."""


def render_card(spec: CascadeSpec, metrics: Mapping[str, Any], info: DataInfo) -> str:
    """The card's text: front matter that the Hub reads, then what people read.

    Args:
        spec: the resolved spec.
        metrics: the content of metrics.json; the card shows no figure that is not in it.
        info: what the dataset tells of itself, where metrics.json does not hold it.
    """
    told = metrics.get("data") or {}
    known = {k: told[k] for k in ("title", "license", "hub_id") if told.get(k) is not None}
    info = replace(info, **known)
    body = "\n\n".join(_body(spec, metrics, info))
    return f"---\n{_front_matter(spec, metrics, info)}\n---\n\n{body}\n"


def render_plain_card(spec: CascadeSpec) -> str:
    """A card for a model that was saved without figures.

    Args:
        spec: the resolved spec.
    """
    front = _front_matter(spec, {"figures": []}, DataInfo())
    body = "\n\n".join([*_head(spec), block("use", _use(spec))])
    return f"---\n{front}\n---\n\n{body}\n"


def block(name: str, text: str) -> str:
    """A part of the body that a new version of the model replaces, as long as nobody edits it.

    The first comment holds the beginning of the text's sha256, by which a part that a person
    changed is told from one that is as it was written; see :mod:`cascadezoo.cards.card_file`.
    What stands outside the blocks is anyone's.

    Args:
        name: of the part: lower-case letters and ``-``.
        text: Markdown.
    """
    begin = f"<!-- cascadezoo:begin {name} {block_digest(text)} -->"
    return f"{begin}\n{text}\n<!-- cascadezoo:end {name} -->"


def block_digest(text: str) -> str:
    """What the comment before a block says of its text: 16 hex digits."""
    return hashlib.sha256(text.replace("\r\n", "\n").encode()).hexdigest()[:16]


def _front_matter(spec: CascadeSpec, metrics: Mapping[str, Any], info: DataInfo) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=TASK,
            dataset_type=line(info.hub_id or spec.data.source),
            dataset_name=line(info.title or spec.data.source),
            dataset_split=line(figure["split"]) if figure.get("split") else None,
            metric_type=line(figure["metric"]),
            metric_name=line(figure["name"]),
            metric_value=figure["value"],
            metric_args={key: _told(figure[key]) for key in _ARGS if figure.get(key) is not None},
        )
        for figure in metrics["figures"]
        # A speed is of a machine, not of a dataset.
        if figure.get("seed") is not None or figure.get("split")
    ]
    card = ModelCardData(
        license=line(spec.license),
        library_name="cascadezoo",
        pipeline_tag=TASK,
        tags=sorted({"cascadezoo", "image-generation", *map(line, spec.tags)}),
        datasets=[line(info.hub_id)] if info.hub_id else None,
        model_name=line(spec.name),
        eval_results=results or None,
        ignore_metadata_errors=False,
    )
    text: str = card.to_yaml()
    return text.strip()


def _told(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {line(key): _told(one) for key, one in value.items()}
    return line(value) if isinstance(value, str) else value


def _head(spec: CascadeSpec) -> Iterable[str]:
    yield f"# {plain(spec.name)}"
    if spec.description.strip():
        yield plain(spec.description)


def _body(spec: CascadeSpec, metrics: Mapping[str, Any], info: DataInfo) -> Iterable[str]:
    yield from _head(spec)
    yield "![Samples of the cascade, and some of them stage by stage](samples.png)"
    yield block("what", _what(spec, metrics))
    yield block("use", _use(spec))
    yield block("figures", _figures(spec, metrics))
    if metrics.get("attribution"):
        yield block("attribution", _attribution(spec, metrics["attribution"]))
    yield block("training", _training(spec, metrics))
    yield block("limits", _limits(spec, info))


# --- the parts of the body


def _what(spec: CascadeSpec, metrics: Row) -> str:
    """The stages: kinds, sizes, parameters, FLOPs."""
    rows = metrics["stages"]
    cells = [
        (
            plain(row["name"]),
            code(row["kind"]),
            plain(row["output"]),
            f"{row['parameters']:,}",
            _count(row.get("flops")),
        )
        for row in rows
    ]
    head = ("stage", "kind", "makes", "parameters", "FLOPs to sample an image")
    total = sum(row["parameters"] for row in rows)
    built = metrics.get("environment", {}).get("cascadezoo")
    count = len(rows)
    text = f"A cascade of {count} stage{'' if count == 1 else 's'}, {total:,} parameters in all"
    text += f", built with cascadezoo {plain(built)}." if built else "."
    flops = [row.get("flops") for row in rows]
    if rows and None not in flops:
        text += f" One image takes {_count(sum(flops))} floating-point operations."
    return f"## What it is\n\n{text}\n\n{table(head, cells, right=(3, 4))}"


def _use(spec: CascadeSpec) -> str:
    """Three lines of Python, one of shell."""
    needs = " ".join(shlex.quote(text) for text in spec.requires) or "cascadezoo"
    python = (
        "from cascadezoo import Cascade",
        f'cascade = Cascade.from_pretrained("{_address(spec)}")',
        "images = cascade.sample(16, seed=0)  # [16, C, H, W] in [-1, 1]",
    )
    shell = (f"cascadezoo sample {_address(spec)} -n 16 -o grid.png",)
    return (
        f"## How to use it\n\nIt needs {code(f'pip install {needs}')}.\n\n"
        f"{fenced('python', python)}\n\n{fenced('bash', shell)}"
    )


def _address(spec: CascadeSpec) -> str:
    """How the commands of a card name the model until it is published."""
    return f"path/to/{spec.name}"


def _figures(spec: CascadeSpec, metrics: Row) -> str:
    """Every figure of metrics.json, how it was got and how to get it again."""
    rows = metrics["figures"]
    parts = ["## Figures"]
    if rows:
        head = ("figure", "what", "value", "how it was got")
        cells = [(code(f["name"]), _title(f), _value_cell(f), _how(f)) for f in rows]
        parts.append(table(head, cells, right=(2,)))
    else:
        parts.append("None were asked for.")
    if any(f.get("precision") and f.get("extractor") != "inception" for f in rows):
        parts.append(
            "A figure is comparable only with figures of the same name: features other than "
            "Inception's give other numbers than the KID and FID that papers report."
        )
    again = list(_again(spec, rows))
    if again:
        parts.append(
            f"Each of them again, and all that are on this card at once "
            f"({code('--set data.config.path=...')} says where the data are, if they moved):"
        )
        check = f"cascadezoo evaluate {_address(spec)} --check"
        parts.append(fenced("bash", [*again, "# all of them", check]))
    left: dict[str, list[str]] = {}
    for figure in rows:
        if (why := why_not_again(figure)) is not None:
            left.setdefault(why, []).append(code(figure["name"]))
    parts += [f"{', '.join(names)}: {plain(why)}." for why, names in left.items()]
    problems = metrics.get("problems") or ()
    if problems:
        lines = [f"- {code(row['metric'])}: {plain(row['why'])}" for row in problems]
        parts.append("Asked for and not measured:\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _again(spec: CascadeSpec, rows: Iterable[Row]) -> Iterator[str]:
    """Each command once, after the names of the figures that it gives."""
    names: dict[str, list[str]] = {}
    for figure in rows:
        command = command_of(figure, spec, _address(spec))
        if command is not None:
            names.setdefault(command, []).append(str(figure["name"]))
    for command, given in names.items():
        yield f"# {', '.join(given)}"
        yield command


def _title(figure: Row) -> str:
    texts = metric_texts(figure["metric"])
    better = f" ({texts.better} is better)" if texts.better else ""
    return f"{plain(texts.title)}{better}"


def _value_cell(figure: Row) -> str:
    """The value, its spread and its unit, as people read them: ``14.89 +- 1.96 x 10^-3``."""
    scale = metric_texts(figure["metric"]).scale
    text = spread(figure["value"], figure.get("std"), scale)
    unit = f" {plain(figure['unit'])}" if figure.get("unit") else ""
    return f"{text}{power(scale)}{unit}"


def _how(figure: Row) -> str:
    parts = [f"{figure['n']} samples"]
    if figure.get("seed") is not None:
        parts.append(f"seed {figure['seed']}")
    if figure.get("n_real") is not None:
        split = f" of the {plain(figure['split'])} split" if figure.get("split") else ""
        parts.append(f"{figure['n_real']} real images{split}")
    if figure.get("subsets") is not None:
        parts.append(f"{figure['subsets']} subsets of {figure.get('subset_size')}")
    if figure.get("resolution") is not None:
        parts.append(f"at {figure['resolution']}x{figure['resolution']}")
    extractor = figure.get("extractor")
    if extractor == "small":
        parts.append("features of the small network that ships with cascadezoo, not Inception")
    elif extractor is not None:
        version = figure.get("extractor_version")
        parts.append(f"network {code(extractor)}{f' {plain(version)}' if version else ''}")
    if figure.get("precision", "fp32") != "fp32":
        parts.append(f"in {plain(figure['precision'])}")
    for name, value in (figure.get("settings") or {}).items():
        parts.append(f"{plain(name)} {plain(value)}")
    if figure.get("note"):
        parts.append(plain(figure["note"]))
    return ", ".join(parts)


def _attribution(spec: CascadeSpec, rows: Iterable[Row]) -> str:
    """What each stage makes of real and of generated upstream images."""
    rows = list(rows)
    cells = []
    for row in rows:
        made, real = row["generated"], row.get("real")
        scale = metric_texts(made["metric"]).scale
        mismatch = row.get("mismatch")
        cells.append(
            (
                plain(row["stage"]),
                plain(row["role"]),
                "" if real is None else _value_cell(real),
                _value_cell(made),
                "" if mismatch is None else f"{number(mismatch * scale)}{power(scale)}",
            )
        )
    head = ("stage", "role", "fed real images", "fed generated images", "mismatch")
    first = rows[0]["generated"]
    command = [
        *("cascadezoo", "evaluate", _address(spec), "--stages"),
        *("--extractor", str(first.get("extractor")), "-n", str(first["n"])),
        *("--seed", str(first.get("seed", 0))),
    ]
    if first["metric"] != "kid":
        command += ["--metrics", str(first["metric"])]
    if first.get("precision", "fp32") != spec.evaluation.precision:
        command += ["--precision", str(first["precision"])]
    if first.get("split", "train") != spec.evaluation.split:
        command += ["--split", str(first["split"])]
    return (
        "## Where it loses quality\n\n"
        f"{plain(metric_texts(first['metric']).title)} of what each stage makes, at that stage's "
        "size: where it is fed real images made small, and where it is fed what the stages before "
        "it drew. The mismatch is the difference: what training on real images hides.\n\n"
        f"{table(head, cells, right=(2, 3, 4))}\n\n{fenced('bash', [shlex.join(command)])}"
    )


def _training(spec: CascadeSpec, metrics: Row) -> str:
    """Phases, time, hardware, memory, and the figures in the course of it."""
    row = metrics.get("training", {})
    seconds = row.get("seconds_per_epoch", {})
    cells = [_phase(spec, phase, seconds.get(phase.name)) for phase in spec.training.phases or []]
    head = ("phase", "trains", "length", "teacher forcing", "seconds per epoch")
    losses = [
        f"{plain(loss.kind)} ({plain(loss.config.get('net', ''))}) on {plain(loss.stage)}, weight "
        f"{loss.weight:g}"
        for loss in spec.training.losses or []
        if loss.weight > 0
    ]
    beside = f" Besides the stages' own losses: {'; '.join(losses)}." if losses else ""
    count = row.get("processes", 1)
    together = f", {count} processes" if count > 1 else ""
    torch = metrics.get("environment", {}).get("torch")
    text = (
        f"{_seconds(row.get('seconds', 0))} in all on {plain(row.get('device', ''))}{together} in "
        f"{plain(row.get('precision', ''))}, batches of {spec.training.batch_size}, "
        f"seed {spec.seed}{f', torch {plain(torch)}' if torch else ''}.{_memory(row)}{beside} "
        "The whole spec is in config.json: `cascadezoo build` repeats the training from it."
    )
    parts = ["## Training", table(head, cells, right=(4,)), text]
    course = metrics.get("course") or []
    if course:
        parts.append(_course(course))
    return "\n\n".join(parts)


def _phase(spec: CascadeSpec, phase: PhaseSpec, seconds: float | None) -> tuple[str, ...]:
    count, unit = (phase.epochs, "epoch") if phase.epochs else (phase.steps, "step")
    forcing = phase.teacher_forcing
    alone = phase.train == [spec.stages[0].name]
    return (
        plain(phase.name),
        ", ".join(map(plain, phase.train)) + (" (jointly)" if phase.joint else ""),
        f"{count} {unit}{'' if count == 1 else 's'}",
        "" if alone else f"{forcing.start:g} to {forcing.end:g}",
        "" if seconds is None else f"{seconds:.2f}",
    )


def _memory(row: Row) -> str:
    found = []
    if row.get("device_peak_bytes") is not None:
        found.append(f"{_bytes(row['device_peak_bytes'])} on the device")
    if row.get("process_peak_bytes") is not None:
        found.append(f"{_bytes(row['process_peak_bytes'])} for the process, data included")
    return f" Peak memory: {' and '.join(found)}." if found else ""


def _course(rows: list[Row]) -> str:
    """Some of the figures in the course of training, the last among them."""
    step = -(-len(rows) // MOST_COURSE_ROWS)
    shown = [row for place, row in enumerate(reversed(rows)) if place % step == 0][::-1]
    figures = [row["figure"] for row in shown]
    cells = [
        (plain(row["phase"]), f"{row['epoch']:g}", code(figure["name"]), _value_cell(figure))
        for row, figure in zip(shown, figures, strict=True)
    ]
    head = ("phase", "epoch", "figure", "value")
    text = "Measured in the course of it"
    text += f" (every {step} of {len(rows)}):" if step > 1 else ":"
    return f"{text}\n\n{table(head, cells, right=(1, 3))}"


def _limits(spec: CascadeSpec, info: DataInfo) -> str:
    """Licence of the data, what the model is for, and what it is not for."""
    source = plain(info.title) if info.title else f"the dataset {code(spec.data.source)}"
    licence = (
        f"Licence of the data: {plain(info.license)}."
        if info.license
        else "The licence of the data is not recorded: look it up before you publish images."
    )
    size = spec.data.size
    classes = spec.data.num_classes or 0
    kinds = f" of {classes} classes" if classes > 1 else ""
    names = info.class_names or ()
    listed = f" ({', '.join(map(plain, names))})" if 1 < len(names) <= 20 else ""
    return (
        f"## Data, limits and intended use\n\nTrained on {source}. {licence} The weights are under "
        f"{plain(spec.license)}.\n\n"
        f"It is meant for the study of cascades: to be sampled, measured, taken apart and compared "
        f"with others. It makes {size}x{size} pictures{kinds}{listed} like those that it was "
        "trained on and nothing else, and repeats what is odd about them. It is no source of facts "
        "or of pictures of people, and how near its samples come to single training images is "
        "known only where a figure above says so."
    )


def _count(value: int | None) -> str:
    """A count in words: ``1.23 G``."""
    if value is None:
        return "not known"
    size, units = float(value), ["", " k", " M", " G", " T", " P"]
    while size >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{value}" if units[0] == "" else f"{size:.3g}{units[0]}"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 100 else f"{value:,.0f} s"


def _bytes(value: int) -> str:
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"
