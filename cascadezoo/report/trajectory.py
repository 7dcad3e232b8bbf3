"""How a stage comes from noise to an image: its states, thinned out while they are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.errors import SampleError

__all__ = ["COLUMNS", "Thinned", "sample_trajectory", "watched_stage"]

COLUMNS = 9
"""How many states are shown unless told otherwise."""


class Thinned:
    """Keeps some of the states that it is shown, evenly spaced, whatever their number.

    It never holds more than four times as many as are wanted: when it is full, every other one
    goes and from then on half as many are taken. The first and the last are always kept.

    Args:
        wanted: how many to give back at most, at least 2.
    """

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.seen = 0
        self._every = 1
        self._kept: list[tuple[int, Tensor]] = []
        self._last: tuple[int, Tensor] | None = None

    def add(self, state: Tensor) -> None:
        """Take a state; it is copied if it is kept."""
        row = (self.seen, state.detach().clone())
        self.seen += 1
        self._last = row
        if row[0] % self._every:
            return
        self._kept.append(row)
        if len(self._kept) >= 4 * self.wanted:
            self._kept = self._kept[::2]
            self._every *= 2

    def rows(self) -> list[tuple[int, Tensor]]:
        """At most ``wanted`` states with their numbers from 0; the first and the last are there."""
        kept = list(self._kept)
        if self._last is not None and kept[-1][0] != self._last[0]:
            kept.append(self._last)
        count = min(self.wanted, len(kept))
        if count < 2:
            return kept[:count]
        # The states nearest to even places between the first and the last.
        last = kept[-1][0]
        chosen: dict[int, Tensor] = {}
        for place in range(count):
            at = place * last / (count - 1)
            number, state = min(kept, key=lambda row: abs(row[0] - at))
            chosen[number] = state
        return list(chosen.items())


def watched_stage(cascade: Cascade, stage: str | None) -> str:
    """The stage whose course is shown.

    Args:
        cascade: any cascade.
        stage: its name; None takes the generator.

    Raises:
        SampleError: there is no such stage, or it makes its image in one go.
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
            f"stage {name!r} makes its image in one go, so that there is no course to show",
            hint=f"choose one of {', '.join(iterative)} with --stage"
            if iterative
            else "--stages shows what each stage makes",
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
    """Draw images and keep evenly spaced states of one stage's sampling.

    Latents are decoded by the stages after it, so that all states are pictures.

    Args:
        cascade: any cascade.
        n: how many images; they are sampled as one batch.
        stage: whose states; None takes the generator's.
        columns: how many states at most, at least 2.
        options: further keywords of :meth:`Cascade.sample`.

    Returns:
        The states by ``step K``, float [n, C, H, W], and the cascade's own images as ``image``.
        Where ``image`` is what the last step made, it stands in the place of that step.

    Raises:
        SampleError: see :func:`watched_stage` and :meth:`Cascade.sample`.
    """
    if columns < 2:
        raise SampleError(
            f"a course of {columns} states shows nothing",
            hint="ask for 2 or more",
            code="sample-course-too-short",
            count=columns,
        )
    name = watched_stage(cascade, stage)
    request = {**(options or {}), "batch_size": n}
    states = Thinned(columns)

    def watch(of: str, state: Tensor) -> None:
        if of == name:
            states.add(state)

    image = cascade.sample(n, watch=watch, **request)
    rows = states.rows()
    if not rows:
        raise SampleError(
            f"stage {name!r} does not show its steps",
            hint="its implementation ignores watch",
            code="sample-no-watch",
            name=name,
        )
    place = cascade.names.index(name)
    latent = cascade.stage(name).geometry.output.latent
    if latent or place == len(cascade.names) - 1:
        rows = rows[:-1]
    made = {f"step {number + 1}": state for number, state in rows}
    if latent:
        after = cascade.names[place + 1]
        made = {
            step: cascade.sample_from(after, state, **_without(request, cascade, after))
            for step, state in made.items()
        }
    made = {step: state.float().clamp(-1.0, 1.0) for step, state in made.items()}
    return {**made, "image": torch.as_tensor(image)}


def _without(request: Mapping[str, Any], cascade: Cascade, first: str) -> dict[str, Any]:
    """The keywords for the stages from ``first`` on: without what only others heed."""
    names = cascade.names[cascade.names.index(first) :]

    def kept(key: str, value: Any) -> Any:
        heeding = [n for n in names if key in cascade.stage(n).sampling_options]
        if isinstance(value, Mapping):
            return {n: one for n, one in value.items() if n in heeding} or None
        return value if heeding else None

    rest = dict(request)
    for key in ("steps", "guidance", "sampler"):
        rest[key] = kept(key, rest.get(key))
    given = rest.get("options") or {}
    options = {key: kept(key, value) for key, value in given.items()}
    rest["options"] = {key: value for key, value in options.items() if value is not None}
    return rest
