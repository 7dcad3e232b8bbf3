"""Writes the page of ``cascadezoo report``: models in, one HTML file out."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

from cascadezoo.build.plan import make_plan
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.cli.image_files import replacing
from cascadezoo.errors import InputError
from cascadezoo.evaluate.features.base import load_extractor
from cascadezoo.hub.locate import locate
from cascadezoo.model_folder.layout import CONFIG
from cascadezoo.report.model_page import model_page
from cascadezoo.report.model_view import (
    PIXELS,
    ModelView,
    view_features,
    view_model,
    view_run,
)
from cascadezoo.report.projection import check_method
from cascadezoo.spec import ResolvedSpec, read_spec, resolve
from cascadezoo.spec.labels import label_from_text
from cascadezoo.train.engine import pick_device
from cascadezoo.train.progress import Progress, make_progress

__all__ = ["ReportRequest", "write_report"]

FEATURES = 500
MAX_MODELS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRequest:
    """Options of the command line; None uses the default."""

    n: int | None = None
    labels: tuple[str, ...] = ()
    seed: int = 0
    features: int | None = None
    extractor: str = "small"
    projection: str = "pca"
    trust_data: bool = False
    device: str = "auto"
    request: Mapping[str, Any] = field(default_factory=dict)

    def sampling(self, resolved: ResolvedSpec, n: int, first: int = 0) -> dict[str, Any]:
        """Keywords of ``Cascade.sample`` for ``n`` images, starting at number ``first``."""
        turns = [
            label_from_text(label, resolved.num_classes, resolved.class_names)
            for label in self.labels
        ]
        drawn = [turns[i % len(turns)] for i in range(first, first + n)] if turns else None
        return {**self.request, "seed": self.seed, "labels": drawn}


@dataclass(frozen=True, slots=True)
class _Source:
    """A model, or a run that has no model yet."""

    reference: str
    resolved: ResolvedSpec
    folder: Path
    cascade: Cascade | None


def write_report(
    references: Sequence[str], out: Path, options: ReportRequest, *, quiet: bool = False
) -> dict[str, Any]:
    """Write the page of one or several models.

    Args:
        references: run folders, model folders, zoo names or repos on the Hub.
        out: the file, which is replaced when the page is complete.
        options: options of the command line.
        quiet: show no progress.

    Returns:
        The data that ``--json`` prints.

    Raises:
        InputError: there are too many models, or the file is not .html.
        CascadezooError: a model cannot be loaded, sampled or read.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(
            f"the report needs an .html file, not {out}",
            hint="-o report.html",
            code="input-report-suffix",
            path=out,
        )
    if len(references) > MAX_MODELS:
        raise InputError(
            f"a page takes at most {MAX_MODELS} models, not {len(references)}",
            hint="write several pages",
            code="input-report-too-many-models",
            count=len(references),
        )
    check_method(_method(options))
    with replacing(out) as file:
        # Load all models first, so that an error in one appears before the others are sampled.
        sources = [_source(reference, options.device) for reference in references]
        progress = make_progress(quiet)
        try:
            views = _views(sources, options, progress)
        finally:
            progress.close()
        text = model_page(views, _notes(references, options)).encode()
        file.write(text)
    return {
        "output": str(out),
        "bytes": len(text),
        "models": [view.name for view in views],
        "lacks": {view.name: view.lacks for view in views},
        "seed": options.seed,
    }


def _method(options: ReportRequest) -> Literal["pca", "umap"]:
    return cast('Literal["pca", "umap"]', options.projection)


def _source(reference: str, device: str) -> _Source:
    run = Path(reference)
    if (run / "run.json").is_file() and not (run / "model" / CONFIG).is_file():
        data, name = read_spec(run / "spec.json")
        return _Source(reference, resolve(data, source=name, for_training=False), run, None)
    folder = locate(reference)
    cascade = Cascade.from_pretrained(folder, device=pick_device(device))
    return _Source(reference, cascade.resolved, folder, cascade)


def _views(
    sources: Sequence[_Source], options: ReportRequest, progress: Progress
) -> list[ModelView]:
    views = []
    for source, name in zip(sources, _names(sources), strict=True):
        plan = [asdict(row) for row in make_plan(source.resolved, "cpu").stages]
        if source.cascade is None:
            views.append(view_run(name, source.reference, source.resolved, source.folder, plan))
            continue
        view = view_model(
            name,
            source.reference,
            source.cascade,
            source.folder,
            plan=plan,
            n=options.n,
            request=partial(options.sampling, source.resolved),
            on_task=progress.task,
        )
        _add_features(view, source.cascade, source.folder, options, progress)
        views.append(view)
    return views


def _add_features(
    view: ModelView, cascade: Cascade, folder: Path, options: ReportRequest, progress: Progress
) -> None:
    n = FEATURES if options.features is None else options.features
    if n == 0:
        view.lacks["features"] = "they are disabled by --features 0"
        return
    progress.task(f"{view.name}: features of {n} samples", n)
    view_features(
        view,
        cascade,
        folder,
        n,
        None
        if options.extractor == PIXELS
        else load_extractor(options.extractor, device=cascade.device),
        _method(options),
        required=options.features is not None,
        trust_data=options.trust_data,
        request=partial(options.sampling, cascade.resolved),
        advance=progress.advance,
    )


def _names(sources: Sequence[_Source]) -> list[str]:
    """The names of the specs; the references distinguish models of the same name."""
    names = [source.resolved.spec.name for source in sources]
    repeated = {name for name, count in Counter(names).items() if count > 1}
    shown: list[str] = []
    for name, source in zip(names, sources, strict=True):
        text = f"{name} ({source.reference})" if name in repeated else name
        while text in shown:
            text += ", again"
        shown.append(text)
    return shown


def _notes(references: Sequence[str], options: ReportRequest) -> list[tuple[str, object]]:
    from datetime import UTC, datetime

    rows: list[tuple[str, object]] = [
        ("Command", f"cascadezoo report {shlex.join(references)}"),
        ("Seed", options.seed),
        ("Labels", ", ".join(options.labels) or None),
    ]
    rows += [(key.capitalize(), str(value)) for key, value in options.request.items() if value]
    return [*rows, ("Written", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))]
