"""The metric card: README.md of a model folder, made from its spec and its metrics.json."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from cascadezoo.configs import DataInfo
from cascadezoo.spec import CascadeSpec

__all__ = ["block", "block_digest", "render_card", "render_plain_card"]

TASK = "unconditional-image-generation"

_METRICS = {
    "kid": ("Kernel Inception Distance", 1000.0, "x 10^-3, lower is better"),
    "images-per-second": ("Sampling speed", 1.0, "images/s"),
}


def render_card(spec: CascadeSpec, metrics: Mapping[str, Any], info: DataInfo) -> str:
    """The card's text: front matter that the Hub reads, then what people read.

    Args:
        spec: the resolved spec.
        metrics: the content of metrics.json; the card shows no figure that is not in it.
        info: what the dataset tells of itself.
    """
    body = "\n\n".join(_body(spec, metrics, info))
    return f"---\n{_front_matter(spec, metrics, info)}\n---\n\n{body}\n"


def _front_matter(spec: CascadeSpec, metrics: Mapping[str, Any], info: DataInfo) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=TASK,
            dataset_type=info.hub_id or spec.data.source,
            dataset_name=info.title or spec.data.source,
            dataset_split=figure.get("split"),
            metric_type=figure["metric"],
            metric_name=figure["name"],
            metric_value=figure["value"],
            metric_args={
                key: figure[key]
                for key in ("extractor", "n", "subset_size", "subsets", "resolution", "seed")
                if key in figure
            },
        )
        for figure in metrics["figures"]
        if "split" in figure
    ]
    card = ModelCardData(
        license=spec.license,
        library_name="cascadezoo",
        pipeline_tag=TASK,
        tags=sorted({"cascadezoo", "image-generation", *spec.tags}),
        datasets=[info.hub_id] if info.hub_id else None,
        model_name=spec.name,
        eval_results=results or None,
        ignore_metadata_errors=False,
    )
    text: str = card.to_yaml()
    return text.strip()


def render_plain_card(spec: CascadeSpec) -> str:
    """A card for a model that was saved without figures.

    Args:
        spec: the resolved spec.
    """
    front = _front_matter(spec, {"figures": []}, DataInfo())
    parts = [f"# {spec.name}"]
    if spec.description:
        parts.append(_plain(spec.description))
    parts.append(block("use", f"## How to use it\n\n{_use(spec)}"))
    body = "\n\n".join(parts)
    return f"---\n{front}\n---\n\n{body}\n"


def block(name: str, text: str) -> str:
    """A part of the body that a new version of the model replaces, as long as nobody edits it.

    The first comment holds the beginning of the text's sha256, by which a part that a person
    changed is told from one that is as it was written; see :mod:`cascadezoo.hub.card_merge`.
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


def _body(spec: CascadeSpec, metrics: Mapping[str, Any], info: DataInfo) -> Iterable[str]:
    yield f"# {spec.name}"
    if spec.description:
        yield _plain(spec.description)
    yield "![Samples of the cascade, and some of them stage by stage](samples.png)"
    yield block("what", f"## What it is\n\n{_stages(spec, metrics)}")
    yield block("use", f"## How to use it\n\n{_use(spec)}")
    yield block("figures", f"## Figures\n\n{_figures(metrics['figures'])}")
    yield block("training", f"## Training\n\n{_training(spec, metrics)}")
    yield block("limits", f"## Data and limits\n\n{_limits(spec, info)}")


def _stages(spec: CascadeSpec, metrics: Mapping[str, Any]) -> str:
    rows = ["| stage | kind | makes | parameters |", "| --- | --- | --- | ---: |"]
    rows += [
        f"| {row['name']} | `{row['kind']}` | {row['output']} | {row['parameters']:,} |"
        for row in metrics["stages"]
    ]
    total = sum(row["parameters"] for row in metrics["stages"])
    count = len(spec.stages)
    return (
        f"A cascade of {count} stage{'s' if count > 1 else ''}, {total:,} parameters in all, built "
        f"with cascadezoo {metrics['environment']['cascadezoo']}.\n\n" + "\n".join(rows)
    )


def _use(spec: CascadeSpec) -> str:
    needs = " ".join(f"'{text}'" for text in spec.requires) or "cascadezoo"
    return (
        f"```python\nfrom cascadezoo import Cascade\n\n"
        f'cascade = Cascade.from_pretrained("path/to/{spec.name}")\n'
        f"images = cascade.sample(16, seed=0)  # [16, C, H, W] in [-1, 1]\n```\n\n"
        f"```bash\npip install {needs}\n"
        f"cascadezoo sample path/to/{spec.name} -n 16 -o grid.png\n```"
    )


def _figures(figures: Iterable[Mapping[str, Any]]) -> str:
    rows = ["| figure | value | how it was got |", "| --- | ---: | --- |"]
    for figure in figures:
        _, scale, unit = _METRICS.get(figure["metric"], (figure["metric"], 1.0, ""))
        value = f"{figure['value'] * scale:.2f}"
        if "std" in figure:
            value += f" +- {figure['std'] * scale:.2f}"
        rows.append(f"| `{figure['name']}` | {value} {unit} | {_how(figure)} |")
    if len(rows) == 2:
        return "None were asked for."
    text = "\n".join(rows)
    if any(f.get("extractor") not in (None, "inception") for f in figures):
        text += (
            "\n\nA figure is comparable only with figures of the same name: features other than "
            "Inception's give other numbers than the KID that papers report."
        )
    return text


def _how(figure: Mapping[str, Any]) -> str:
    parts = [f"{figure['n']} samples"]
    if "seed" in figure:
        parts.append(f"seed {figure['seed']}")
    if "n_real" in figure:
        parts.append(f"against {figure['n_real']} images of the {figure.get('split')} split")
    if "subsets" in figure:
        parts.append(f"{figure['subsets']} subsets of {figure['subset_size']}")
    if figure.get("extractor") == "small":
        parts.append("features of the small network that ships with cascadezoo, not Inception")
    elif "extractor" in figure:
        parts.append(f"features of {figure['extractor']}")
    if figure.get("precision", "fp32") != "fp32":
        parts.append(f"in {figure['precision']}")
    if "note" in figure:
        parts.append(_plain(figure["note"]))
    return ", ".join(parts)


def _training(spec: CascadeSpec, metrics: Mapping[str, Any]) -> str:
    rows = [
        "| phase | trains | length | teacher forcing | seconds per epoch |",
        "| --- | --- | --- | --- | ---: |",
    ]
    seconds = metrics["training"]["seconds_per_epoch"]
    for phase in spec.training.phases or []:
        count, unit = (phase.epochs, "epoch") if phase.epochs else (phase.steps, "step")
        length = f"{count} {unit}{'' if count == 1 else 's'}"
        forcing = phase.teacher_forcing
        span = (
            f"{forcing.start:g} to {forcing.end:g}" if phase.train != [spec.stages[0].name] else ""
        )
        joint = " (jointly)" if phase.joint else ""
        took = seconds.get(phase.name)
        rows.append(
            f"| {phase.name} | {', '.join(phase.train)}{joint} | {length} | {span} | "
            f"{'' if took is None else f'{took:.2f}'} |"
        )
    training = metrics["training"]
    losses = [
        f"{loss.kind} ({loss.config.get('net', '')}) on {loss.stage}, weight {loss.weight:g}"
        for loss in spec.training.losses or []
        if loss.weight > 0
    ]
    beside = f" Besides the stages' own losses: {'; '.join(losses)}." if losses else ""
    return (
        "\n".join(rows) + f"\n\n{training['seconds']:.0f} s in all on {training['device']} in "
        f"{training['precision']}, batches of {spec.training.batch_size}, seed {spec.seed}, "
        f"torch {metrics['environment']['torch']}.{beside} "
        "The whole spec is in config.json: `cascadezoo build` repeats the training from it."
    )


def _limits(spec: CascadeSpec, info: DataInfo) -> str:
    source = info.title or f"the dataset `{spec.data.source}`"
    licence = f", licence {info.license}" if info.license else ", whose licence is not recorded"
    return (
        f"Trained on {source}{licence}. It makes {spec.data.size}x{spec.data.size} pictures like "
        "those and nothing else; use it to study cascades, not as a source of facts or of "
        "pictures of people."
    )


def _plain(text: str) -> str:
    """Text of a spec as Markdown that cannot be more than text."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>#|!" else c for c in " ".join(text.split()))
