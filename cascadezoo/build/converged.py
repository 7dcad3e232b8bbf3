"""Whether diffusion stages that sample without noise were trained for long enough.

Fresh noise in every step hides that an under-trained network removes too little of it. Samplers
without noise (ddim with eta 0, dpmpp-2m, heun) carry the rest to the image, as grain. Two checks
after a training find that: the loss still falls, which costs nothing, or the same model is better
with noise, which costs a thousand images at most.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from cascadezoo.data.base import ImageData
from cascadezoo.evaluate.evaluate_sampler import evaluate_kid
from cascadezoo.evaluate.features.base import FeatureExtractor
from cascadezoo.evaluate.options import EvaluationOptions
from cascadezoo.model_folder.figures import Figure
from cascadezoo.report.course import Course, Line
from cascadezoo.spec import ResolvedSpec
from cascadezoo.stages.process_config import ProcessConfig
from cascadezoo.util.numbers import spread

__all__ = ["SAMPLES", "falling_losses", "noiseless_stages", "worse_without_noise"]

SAMPLES = 500
"""Maximum number of images for each of the two samplers."""

LAST = 0.2
"""The share of a phase in which its loss should be flat."""
ROWS = 10
"""Minimum number of recorded losses in it; fewer say nothing."""
FALL = 0.02
"""A smaller fall of the loss, as a share, is of no interest."""
ERRORS = 3.0
"""A fall must be larger than this many standard errors."""
SPREADS = 2.0
"""A difference of two KIDs must be larger than this many of their joint spreads."""

Draw = Callable[[int, int, Mapping[str, Any]], Tensor]
"""Draws images: the first number, the count, and further keywords of ``Cascade.sample``."""


def noiseless_stages(resolved: ResolvedSpec) -> dict[str, str]:
    """The samplers of the diffusion stages that draw no noise after the first, by stage."""
    found: dict[str, str] = {}
    for stage in resolved.stages:
        config = stage.config
        if not isinstance(config, ProcessConfig):
            continue
        if config.sampler in ("dpmpp-2m", "heun"):
            found[stage.name] = config.sampler
        elif config.sampler == "ddim" and config.eta == 0:
            found[stage.name] = "ddim with eta 0"
    return found


def falling_losses(course: Course, stages: Sequence[str]) -> Iterator[str]:
    """Warn about losses that still fall at the end of the last phase that trains them.

    The last fifth of the phase is split in two: the mean of its second half is compared with that
    of its first, by their standard errors.

    Args:
        course: the recorded losses.
        stages: the names of the stages to check.
    """
    names = {phase.index: phase.name for phase in course.phases}
    for name, lines in sorted(course.losses.items()):
        stage = name.partition(".")[0]
        if stage not in stages:
            continue
        index = max(lines)
        fall = _fall(lines[index], course, index)
        if fall is not None:
            yield (
                f"phase {names.get(index, index)}: the loss {name} still fell by {fall:.0%} in the "
                f"last fifth, and {stage} samples without noise, which shows an under-trained "
                "network as grain; train longer"
            )


def worse_without_noise(
    draw: Draw,
    stages: Mapping[str, str],
    real: ImageData,
    options: EvaluationOptions,
    extractor: FeatureExtractor,
) -> str | None:
    """Warn if the model is clearly better with the noise of ddim with eta 1, in as many steps.

    Args:
        draw: samples the trained cascade.
        stages: the result of :func:`noiseless_stages`, not empty.
        real: the images to compare with.
        options: how to measure the KID.
        extractor: the feature extractor.

    Returns:
        The warning, or None.
    """
    noisy = {
        "sampler": dict.fromkeys(stages, "ddim"),
        "options": {"eta": dict.fromkeys(stages, 1.0)},
    }

    def measured(request: Mapping[str, Any]) -> Figure:
        def sample(first: int, count: int) -> Tensor:
            return draw(first, count, request)

        return evaluate_kid(sample, real, options, extractor=extractor)

    without, with_noise = measured({}), measured(noisy)
    joint = math.hypot(without.std or 0.0, with_noise.std or 0.0)
    if joint == 0:  # a single subset, or subsets of all images, have no spread to compare with
        return None
    if without.value - with_noise.value <= SPREADS * joint:
        return None
    shown = [spread(figure.value, figure.std, 1000, decimals=1) for figure in (without, with_noise)]
    listed = ", ".join(f"{name} ({sampler})" for name, sampler in stages.items())
    return (
        f"without noise in its steps the model is worse: KID x 1000 of {options.n} images is "
        f"{shown[0]} for {listed}, but {shown[1]} with ddim and eta 1; train longer, or choose the "
        "sampler with cascadezoo tune --over sampler,steps,eta"
    )


def _fall(line: Line, course: Course, index: int) -> float | None:
    """The share by which a loss fell in the last fifth; None if it is flat or unknown."""
    span = next((phase for phase in course.phases if phase.index == index), None)
    if span is None:
        return None
    begin = span.end - LAST * (span.end - span.start)
    values = [v for step, v in zip(line.steps, line.values, strict=True) if step > begin]
    if len(values) < ROWS:
        return None
    first, second = values[: len(values) // 2], values[len(values) // 2 :]
    before, after = statistics.fmean(first), statistics.fmean(second)
    error = math.sqrt(sum(statistics.variance(part) / len(part) for part in (first, second)))
    fall = before - after
    return fall / before if before > 0 and fall > max(ERRORS * error, FALL * before) else None
