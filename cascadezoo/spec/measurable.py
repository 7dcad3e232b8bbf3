"""Whether metrics can be measured, from numbers that are known before training. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cascadezoo.errors import Problem, SpecError
from cascadezoo.plugins.manager import get_registry
from cascadezoo.spec.configs import ConfigError, MeasurementPlan
from cascadezoo.spec.lookup import look_up
from cascadezoo.spec.models import InLoopSpec
from cascadezoo.spec.resolution import ResolvedSpec

__all__ = ["require_measurable"]


def require_measurable(
    resolved: ResolvedSpec,
    counts: Mapping[str, int | None] | None = None,
    *,
    num_features: int | None = None,
) -> None:
    """Refuse figures that the spec requests and that cannot be measured.

    Args:
        resolved: a spec resolved for training.
        counts: number of real images of each split; a missing one is not known. None uses the
            numbers that the dataset states.
        num_features: the length of the extractor's vectors; None uses the one that the extractor's
            config states.

    Raises:
        SpecError: with a problem for each metric.
    """
    if counts is None:
        counts = {"train": resolved.data_info.train, "test": resolved.data_info.test}
    problems = list(_problems(resolved, counts, num_features))
    if problems:
        raise SpecError(problems, source=resolved.spec.name)


def _problems(
    resolved: ResolvedSpec, counts: Mapping[str, int | None], num_features: int | None
) -> Iterator[Problem]:
    evaluation, registry = resolved.spec.evaluation, get_registry()
    if num_features is None:
        _, extractor = look_up(registry.features, evaluation.extractor)
        num_features = getattr(extractor, "num_features", None)
    total = counts.get(evaluation.split)
    for index, name in enumerate(evaluation.metrics):
        row, config = look_up(registry.metrics, name)
        check = getattr(config, "check", None)
        if check is None:
            continue
        as_many = row.entry.takes == "features" and row.entry.real == "as-many"
        plan = MeasurementPlan(
            size=resolved.image.size,
            stages=len(resolved.stages),
            num_classes=resolved.num_classes,
            n=evaluation.samples,
            real=min(total, evaluation.samples) if total is not None and as_many else total,
            test=counts.get("test"),
            subset_size=evaluation.subset_size,
            num_features=num_features,
        )
        try:
            check(plan)
        except ConfigError as error:
            field = f"metrics.{index}" if error.field in ("", "metrics") else error.field
            yield Problem(f"evaluation.{field}", error.message, code=error.code)
    in_loop = evaluation.in_loop
    if in_loop is not None and total is not None and total < in_loop.subset_size:
        yield Problem(
            "evaluation.in_loop.subset_size",
            f"is {in_loop.subset_size}, but there are only {total} real images",
            code="too-few-images",
        )
    if in_loop is not None and in_loop.metric == "fid":
        yield from _in_loop_fid(in_loop, total)


def _in_loop_fid(in_loop: InLoopSpec, total: int | None) -> Iterator[Problem]:
    _, extractor = look_up(get_registry().features, in_loop.extractor)
    features = getattr(extractor, "num_features", None)
    if features is None:
        return
    for field, count in (("samples", in_loop.samples), ("metric", total)):
        if count is not None and count <= features:
            which = "sampled" if field == "samples" else "real"
            yield Problem(
                f"evaluation.in_loop.{field}",
                f"fid on {features} features needs at least {features + 1} {which} images, not "
                f"{count}: use more, or the metric kid",
                code="too-few-images",
            )
