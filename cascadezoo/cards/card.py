"""The metric card: README.md of a model folder, made from its spec and its metrics.json.

A card shows no figure that metrics.json does not hold, and every text in it may be a stranger's:
:mod:`cascadezoo.util.markdown` makes Markdown of it that cannot be more than that text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from cascadezoo.cards import sections as parts
from cascadezoo.spec import CascadeSpec
from cascadezoo.spec.configs import DataInfo
from cascadezoo.util.text import front_line as line
from cascadezoo.util.text import markdown_text as plain

__all__ = ["BLOCKS", "block", "block_digest", "render_card", "render_plain_card"]

TASK = "unconditional-image-generation"

BLOCKS = ("what", "use", "figures", "attribution", "training", "limits")
"""The generated parts of a card, in their order."""

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
    body = "\n\n".join([*_head(spec), block("use", parts.use(spec))])
    return f"---\n{front}\n---\n\n{body}\n"


def block(name: str, text: str) -> str:
    """A part of the body that a new version of the model replaces, as long as nobody edits it.

    The first comment holds the beginning of the text's sha256, by which a part that a person
    changed is told from one that is as it was written; see :mod:`cascadezoo.cards.merge`.
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
    yield block("what", parts.what(spec, metrics))
    yield block("use", parts.use(spec))
    yield block("figures", parts.figures(spec, metrics))
    if metrics.get("attribution"):
        yield block("attribution", parts.attribution(spec, metrics["attribution"]))
    yield block("training", parts.training(spec, metrics))
    yield block("limits", parts.limits(spec, info))
