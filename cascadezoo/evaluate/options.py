"""``EvaluationOptions``: how figures are measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

from cascadezoo.data.base import Split
from cascadezoo.evaluate.features.base import Precision
from cascadezoo.evaluate.metrics.kid import SUBSETS, default_subset_size
from cascadezoo.spec.models import EvaluationSpec

__all__ = ["EvaluationOptions", "EvaluationOverrides", "evaluation_options"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """How figures are measured; a :class:`~cascadezoo.model_folder.figures.Figure` records them.

    Args:
        extractor: the name of the feature extractor. Functions that take a loaded extractor use
            that one.
        n: number of sampled images.
        seed: seed of the images and of the metrics' random choices.
        subsets: number of subsets, for metrics that compare subsets.
        subset_size: number of images in each subset; None uses
            :func:`~cascadezoo.evaluate.metrics.kid.default_subset_size`.
        batch_size: number of images sampled at once.
        precision: precision of the extractor.
        split: the split of the real images.
        cache: folder for features of real images; None uses the default folder, see
            :func:`~cascadezoo.evaluate.real_features.real_features`.
    """

    extractor: str = "inception"
    n: int = 10_000
    seed: int = 0
    subsets: int = SUBSETS
    subset_size: int | None = None
    batch_size: int = 64
    precision: Precision = "fp32"
    split: Split = "train"
    cache: Path | None = None

    def subset_size_for(self, n: int, n_real: int) -> int:
        """The size of a subset of ``n`` generated and ``n_real`` real images."""
        return default_subset_size(n, n_real) if self.subset_size is None else self.subset_size


class EvaluationOverrides(TypedDict, total=False):
    """Values that override those of a spec; a missing value or None keeps the spec's."""

    extractor: str | None
    n: int | None
    seed: int | None
    subsets: int | None
    subset_size: int | None
    batch_size: int | None
    precision: Precision | None
    split: Split | None
    cache: Path | None


def evaluation_options(
    spec: EvaluationSpec, **overrides: Unpack[EvaluationOverrides]
) -> EvaluationOptions:
    """The options of a spec's ``evaluation``, with overrides.

    A subset size of the spec that is larger than ``n`` becomes
    :func:`~cascadezoo.evaluate.metrics.kid.default_subset_size`. An override never changes.

    Args:
        spec: the ``evaluation`` of a spec.
        overrides: values that override the spec's.
    """
    values = {key: value for key, value in overrides.items() if value is not None}
    chosen: dict[str, Any] = {
        "extractor": spec.extractor,
        "n": spec.samples,
        "seed": spec.seed,
        "subsets": spec.subsets,
        "subset_size": spec.subset_size,
        "batch_size": spec.batch_size,
        "precision": spec.precision,
        "split": spec.split,
        **values,
    }
    options = EvaluationOptions(**chosen)
    if "subset_size" not in values and spec.subset_size > options.n:
        return replace(options, subset_size=default_subset_size(options.n, options.n))
    return options
