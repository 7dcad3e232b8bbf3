"""Trajectories from noise to image: evenly spaced states of one stage's sampling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.errors import SampleError

__all__ = ["COLUMNS", "Thinned", "sample_trajectory", "watched_stage"]

COLUMNS = 9
"""Default number of states."""


class Thinned:
    """Collects states and keeps an evenly spaced subset of an unknown number.

    It holds at most four times the requested number. When it is full, it drops every other state
    and then keeps half as many new ones. The first and the last state are always kept.

    Args:
        count: largest number of states to return, at least 2.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.seen = 0
        self._every = 1
        self._kept: list[tuple[int, Tensor]] = []
        self._last: tuple[int, Tensor] | None = None

    def add(self, state: Tensor) -> None:
        """Add a state, which is copied."""
        row = (self.seen, state.detach().clone())
        self.seen += 1
        self._last = row
        if row[0] % self._every:
            return
        self._kept.append(row)
        if len(self._kept) >= 4 * self.count:
            self._kept = self._kept[::2]
            self._every *= 2

    def rows(self) -> list[tuple[int, Tensor]]:
        """Return at most ``count`` states with their numbers, including the first and the last."""
        kept = list(self._kept)
        if self._last is not None and kept[-1][0] != self._last[0]:
            kept.append(self._last)
        count = min(self.count, len(kept))
        if count < 2:
            return kept[:count]
        # The states nearest to evenly spaced positions between the first and the last.
        last = kept[-1][0]
        chosen: dict[int, Tensor] = {}
        for place in range(count):
            at = place * last / (count - 1)
            number, state = min(kept, key=lambda row: abs(row[0] - at))
            chosen[number] = state
        return list(chosen.items())


def watched_stage(cascade: Cascade, stage: str | None) -> str:
    """Return the name of the stage whose states are shown.

    Args:
        cascade: any cascade.
        stage: its name; None is the generator.

    Raises:
        SampleError: the stage does not exist or does not sample in steps.
    """
    iterative = [n for n, s in cascade.named_stages() if "steps" in s.sampling_options]
    name = cascade.names[0] if stage is None else stage
    if name not in cascade.names:
        raise SampleError(
            f"{cascade.spec.name} has no stage {name!r}",
            hint=f"its stages are {', '.join(cascade.names)}",
            code="sample-stage-unknown",
            name=name,
        )
    if name not in iterative:
        raise SampleError(
            f"stage {name!r} does not sample in steps, so it has no trajectory",
            hint=f"choose {' or '.join(iterative)} with --stage"
            if iterative
            else "show the output of each stage with --stages",
            code="sample-no-course",
            name=name,
        )
    return name


def sample_trajectory(
    cascade: Cascade,
    n: int,
    *,
    stage: str | None = None,
    columns: int = COLUMNS,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:
    """Sample images and keep evenly spaced states of one stage.

    The following stages decode latents, so all states are images.

    Args:
        cascade: any cascade.
        n: number of images, sampled as one batch.
        stage: the stage; None is the generator.
        columns: largest number of states, at least 2.
        options: other keywords of :meth:`Cascade.sample`.

    Returns:
        The states by ``step K``, float [n, C, H, W], and the cascade's images as ``image``. If
        ``image`` is the result of the last step, it replaces that step.

    Raises:
        SampleError: see :func:`watched_stage` and :meth:`Cascade.sample`.
    """
    if columns < 2:
        raise SampleError(
            f"a trajectory needs at least 2 states, not {columns}",
            hint="use 2 or more",
            code="sample-course-too-short",
            count=columns,
        )
    name = watched_stage(cascade, stage)
    request = {**(options or {}), "batch_size": n}
    states = Thinned(columns)

    def watch(watched: str, state: Tensor) -> None:
        if watched == name:
            states.add(state)

    image = cascade.sample(n, watch=watch, **request)
    rows = states.rows()
    if not rows:
        raise SampleError(
            f"stage {name!r} does not report its steps",
            hint="let its implementation call watch",
            code="sample-no-watch",
            name=name,
        )
    place = cascade.names.index(name)
    latent = cascade.stage(name).geometry.output.latent
    if latent or place == len(cascade.names) - 1:
        rows = rows[:-1]
    images = {f"step {number + 1}": state for number, state in rows}
    if latent:
        after = cascade.names[place + 1]
        images = {
            step: cascade.sample_from(after, state, **_keywords_from(request, cascade, after))
            for step, state in images.items()
        }
    images = {step: state.float().clamp(-1.0, 1.0) for step, state in images.items()}
    return {**images, "image": torch.as_tensor(image)}


def _keywords_from(request: Mapping[str, Any], cascade: Cascade, first: str) -> dict[str, Any]:
    """The keywords that the stages from ``first`` on support."""
    names = cascade.names[cascade.names.index(first) :]

    def kept(key: str, value: Any) -> Any:
        supporting = [n for n in names if key in cascade.stage(n).sampling_options]
        if isinstance(value, Mapping):
            return {n: item for n, item in value.items() if n in supporting} or None
        return value if supporting else None

    rest = dict(request)
    for key in ("steps", "guidance", "sampler"):
        rest[key] = kept(key, rest.get(key))
    options = {key: kept(key, value) for key, value in (rest.get("options") or {}).items()}
    rest["options"] = {key: value for key, value in options.items() if value is not None}
    return rest
