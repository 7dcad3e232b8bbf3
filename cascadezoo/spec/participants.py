"""Which stages take part in a phase: those that it trains, and those without parameters."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["taking_part"]


def taking_part(
    trained: Sequence[bool], parameterless: Sequence[bool], *, joint: bool
) -> list[bool]:
    """Whether each stage takes part in a phase, from the generator on.

    A stage without parameters has nothing to train, so it makes no difference whether a phase names
    it. It takes part where a stage after it is trained, and draws the teacher forcing that a
    trained stage in its place would; and, in a joint phase, where it follows a stage that takes
    part, so that losses on its estimate train the stages before it.

    Args:
        trained: which stages the phase names.
        parameterless: which have no parameters.
        joint: whether gradients flow from stage to stage.
    """
    learns = [named and not bare for named, bare in zip(trained, parameterless, strict=True)]
    parts = list(learns)
    for index, bare in enumerate(parameterless):
        if bare:
            follows = joint and index > 0 and parts[index - 1]
            parts[index] = follows or any(learns[index + 1 :])
    return parts
