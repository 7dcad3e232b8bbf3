"""The metric card: README.md of a model folder, made from its spec and its metrics.json.

A card shows only figures of metrics.json. Every text in it may be untrusted:
:mod:`cascadezoo.util.text` escapes it for Markdown.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from cascadezoo.model_folder.reproduction import command_of, metric_texts, why_not_reproducible
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

GIVEN = "python"
"""The dataset of images that were passed in Python; no command can open them."""

MOST_COURSE_ROWS = 12
"""Number of figures measured during training that a card shows."""

Row = Mapping[str, Any]

_ARGS = (
    *("extractor", "extractor_version", "precision", "n", "n_real", "resolution", "seed"),
    *("subsets", "subset_size", "split", "settings"),
)
"""Distinguish results of one metric on one dataset: of results with equal arguments, the Hub keeps
one."""


def render_card(spec: CascadeSpec, metrics: Mapping[str, Any], info: DataInfo) -> str:
    """Return the card: front matter for the Hub, then a body for people.

    Args:
        spec: the resolved spec.
        metrics: the content of metrics.json; the card shows only its figures.
        info: the dataset's own information; values in metrics.json have precedence.
    """
    recorded = metrics.get("data") or {}
    known = {k: recorded[k] for k in ("title", "license", "hub_id") if recorded.get(k) is not None}
    info = replace(info, **known)
    body = "\n\n".join(_body(spec, metrics, info))
    return f"---\n{_front_matter(spec, metrics, info)}\n---\n\n{body}\n"


def render_plain_card(spec: CascadeSpec) -> str:
    """Return a card for a model that was saved without figures.

    Args:
        spec: the resolved spec.
    """
    front = _front_matter(spec, {"figures": []}, DataInfo())
    body = "\n\n".join([*_head(spec), block("use", _use(spec))])
    return f"---\n{front}\n---\n\n{body}\n"


def block(name: str, text: str) -> str:
    """Return a part of the body that a new version of the model replaces unless it was edited.

    The first comment holds the beginning of the text's sha256. It distinguishes edited parts from
    generated ones; see :mod:`cascadezoo.cards.card_file`. Text outside the blocks is free.

    Args:
        name: name of the part: lower-case letters and ``-``.
        text: Markdown.
    """
    begin = f"<!-- cascadezoo:begin {name} {block_digest(text)} -->"
    return f"{begin}\n{text}\n<!-- cascadezoo:end {name} -->"


def block_digest(text: str) -> str:
    """Return the digest of a block's text, as in the comment before it: 16 hex digits."""
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
            metric_args={k: _escaped(figure[k]) for k in _ARGS if figure.get(k) is not None},
        )
        for figure in metrics["figures"]
        # A speed belongs to a machine, not to a dataset.
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


def _escaped(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {line(key): _escaped(item) for key, item in value.items()}
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
    head = ("stage", "kind", "output", "parameters", "FLOPs per image")
    total = sum(row["parameters"] for row in rows)
    built = metrics.get("environment", {}).get("cascadezoo")
    count = len(rows)
    text = f"A cascade of {count} stage{'' if count == 1 else 's'}, {total:,} parameters in total"
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
        f"## How to use it\n\nInstall with {code(f'pip install {needs}')}.{_projects(spec)}\n\n"
        f"{fenced('python', python)}\n\n{fenced('bash', shell)}"
    )


def _projects(spec: CascadeSpec) -> str:
    """The projects of the plugins that the model needs."""
    rows = [f"{code(name)} is <{url}>" for name, url in spec.project_urls.items()]
    return f" {', '.join(rows)}." if rows else ""


def _address(spec: CascadeSpec) -> str:
    """The model's address in the commands of a card until it is published."""
    return f"path/to/{spec.name}"


def _figures(spec: CascadeSpec, metrics: Row) -> str:
    """Every figure of metrics.json, how it was measured, and the command that reproduces it."""
    rows = metrics["figures"]
    parts = ["## Figures"]
    if rows:
        head = ("figure", "metric", "value", "how it was measured")
        cells = [(code(f["name"]), _title(f), _value_cell(f), _how(f)) for f in rows]
        parts.append(table(head, cells, right=(2,)))
    else:
        parts.append("No figures were requested.")
    if any(f.get("precision") and f.get("extractor") != "inception" for f in rows):
        parts.append(
            "Compare a figure only with figures of the same name: features other than Inception's "
            "give other values than the KID and FID in papers."
        )
    again = list(_again(spec, rows))
    if spec.data.source == GIVEN and any(f.get("data_digest") for f in rows):
        text = (
            "The figures that use real images are reproduced in Python, with the images that were "
            "given to the build; this checks the whole card:"
        )
        python = (
            "from cascadezoo import check_model",
            f'report = check_model("{_address(spec)}", data=...)',
        )
        parts += [text, fenced("python", python)]
    elif again:
        parts.append(
            f"Commands that reproduce each figure, and one that checks the whole card (if the data "
            f"have moved, add {code('--set data.config.path=...')}):"
        )
        check = f"cascadezoo evaluate {_address(spec)} --check"
        parts.append(fenced("bash", [*again, "# the whole card", check]))
    reasons: dict[str, list[str]] = {}
    for figure in rows:
        if (why := why_not_reproducible(figure)) is not None:
            reasons.setdefault(why, []).append(code(figure["name"]))
    parts += [f"{', '.join(names)}: {plain(why)}." for why, names in reasons.items()]
    problems = metrics.get("problems") or ()
    if problems:
        lines = [f"- {code(row['metric'])}: {plain(row['why'])}" for row in problems]
        parts.append("Requested but not measured:\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _again(spec: CascadeSpec, rows: Iterable[Row]) -> Iterator[str]:
    """Yield each command once, after the names of the figures that it measures."""
    names: dict[str, list[str]] = {}
    for figure in rows:
        command = command_of(figure, spec, _address(spec))
        if command is not None:
            names.setdefault(command, []).append(str(figure["name"]))
    for command, measured in names.items():
        yield f"# {', '.join(measured)}"
        yield command


def _title(figure: Row) -> str:
    texts = metric_texts(figure["metric"])
    better = f" ({texts.better} is better)" if texts.better else ""
    return f"{plain(texts.title)}{better}"


def _value_cell(figure: Row) -> str:
    """The value with its spread and unit: ``14.89 +- 1.96 x 10^-3``."""
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
    """The quality of each stage on real and on generated upstream images."""
    rows = list(rows)
    cells = []
    for row in rows:
        generated, real = row["generated"], row.get("real")
        scale = metric_texts(generated["metric"]).scale
        mismatch = row.get("mismatch")
        cells.append(
            (
                plain(row["stage"]),
                plain(row["role"]),
                "" if real is None else _value_cell(real),
                _value_cell(generated),
                "" if mismatch is None else f"{number(mismatch * scale)}{power(scale)}",
            )
        )
    head = ("stage", "role", "real input", "generated input", "mismatch")
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
        f"{plain(metric_texts(first['metric']).title)} of each stage's output, at that stage's "
        "size: for downsampled real images, and for the output of the stages before it. The "
        "mismatch is the difference: the effect of training on real images.\n\n"
        f"{table(head, cells, right=(2, 3, 4))}\n\n{fenced('bash', [shlex.join(command)])}"
    )


def _batches(spec: CascadeSpec) -> str:
    """The batch sizes of the phases, each once."""
    whole = spec.training.batch_size
    sizes = [phase.batch_size or whole for phase in spec.training.phases or []]
    return " and ".join(str(size) for size in dict.fromkeys(sizes or [whole]))


def _training(spec: CascadeSpec, metrics: Row) -> str:
    """Phases, time, hardware, memory, and the figures measured during training."""
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
    extra = f" Additional losses: {'; '.join(losses)}." if losses else ""
    count = row.get("processes", 1)
    together = f", {count} processes" if count > 1 else ""
    torch = metrics.get("environment", {}).get("torch")
    text = (
        f"{_seconds(row.get('seconds', 0))} in total on {plain(row.get('device', ''))}{together} "
        f"in {plain(row.get('precision', ''))}, batches of {_batches(spec)}, "
        f"seed {spec.seed}{f', torch {plain(torch)}' if torch else ''}."
        f"{_memory(row)}{extra}{_skipped(row)} "
        f"The whole spec is in config.json: {_repeat(spec)} repeats the training from it."
    )
    parts = ["## Training", table(head, cells, right=(4,)), text]
    if warnings := row.get("warnings"):
        listed = "\n".join(f"- {plain(warning)}" for warning in warnings)
        parts.append(f"The build warned:\n\n{listed}")
    course = metrics.get("course") or []
    if course:
        parts.append(_course(course))
    return "\n\n".join(parts)


def _repeat(spec: CascadeSpec) -> str:
    if spec.data.source == GIVEN:
        return f"{code('build_cascade(spec, data=...)')}, with the same images,"
    return code("cascadezoo build")


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
    parts = []
    if row.get("device_peak_bytes") is not None:
        parts.append(f"{_bytes(row['device_peak_bytes'])} on the device")
    if row.get("process_peak_bytes") is not None:
        parts.append(f"{_bytes(row['process_peak_bytes'])} for the process, data included")
    return f" Peak memory: {' and '.join(parts)}." if parts else ""


def _skipped(row: Row) -> str:
    """What a training on streamed data left out."""
    images, shards = row.get("skipped_images") or 0, row.get("skipped_shards") or 0
    if not images and not shards:
        return ""
    rest = f", and the rest of {shards:,} damaged shards" if shards else ""
    return f" Left out: {images:,} images that could not be used{rest}."


def _course(rows: list[Row]) -> str:
    """Evenly spaced figures measured during training, including the last."""
    step = -(-len(rows) // MOST_COURSE_ROWS)
    shown = [row for place, row in enumerate(reversed(rows)) if place % step == 0][::-1]
    figures = [row["figure"] for row in shown]
    cells = [
        (plain(row["phase"]), f"{row['epoch']:g}", code(figure["name"]), _value_cell(figure))
        for row, figure in zip(shown, figures, strict=True)
    ]
    head = ("phase", "epoch", "figure", "value")
    text = "Measured during training"
    text += f" (1 of every {step} rows, {len(rows)} in total):" if step > 1 else ":"
    return f"{text}\n\n{table(head, cells, right=(1, 3))}"


def _limits(spec: CascadeSpec, info: DataInfo) -> str:
    """Licence of the data, intended use and limits."""
    source = plain(info.title) if info.title else f"the dataset {code(spec.data.source)}"
    if spec.data.source == GIVEN:
        source = _given(spec)
    licence = (
        f"Licence of the data: {plain(info.license)}."
        if info.license
        else "The licence of the data is not recorded: look it up before you publish images."
    )
    size = spec.data.size
    classes = spec.data.num_classes or 0
    kinds = f" of {classes} classes" if classes > 1 else ""
    names = info.class_names or spec.data.class_names or ()
    listed = f" ({', '.join(map(plain, names))})" if 1 < len(names) <= 20 else ""
    return (
        f"## Data, limits and intended use\n\nTrained on {source}. {licence} The weights are under "
        f"{plain(spec.license)}.\n\n"
        "Intended for research on cascades: sampling, evaluation, ablation and comparison. It "
        f"generates {size}x{size} pictures{kinds}{listed} that resemble its training images, "
        "including their flaws, and nothing else. Do not use it as a source of facts or of "
        "pictures of people. How close its samples are to single training images is known only if "
        "a figure above measures it."
    )


def _given(spec: CascadeSpec) -> str:
    """Images that were passed to the build, which nobody else can open."""
    config = spec.data.config
    row = config.get("train")
    row = row if isinstance(row, Mapping) else {}
    count, digest = row.get("count"), str(row.get("digest"))
    number = f"{count:,} images" if isinstance(count, int) else "images"
    sizes = [config.get(key) for key in ("height", "width")]
    pixels = f" of {sizes[0]}x{sizes[1]} pixels" if all(isinstance(n, int) for n in sizes) else ""
    return (
        f"{number}{pixels} that were given to the build in Python. This model does not contain "
        f"them, and nothing names a place where they are; their sha256 is {code(digest)}"
    )


def _count(value: int | None) -> str:
    """A count with a unit prefix: ``1.23 G``."""
    if value is None:
        return "unknown"
    size, units = float(value), ["", " k", " M", " G", " T", " P"]
    while size >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{value}" if units[0] == "" else f"{size:.3g}{units[0]}"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 100 else f"{value:,.0f} s"


def _bytes(value: int) -> str:
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"
