"""The end of a phase: stages measure statistics over the whole training set."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import Tensor

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.cascade.stage_calls import guard, upstream_target
from cascadezoo.data.base import ImageData
from cascadezoo.data.loader import iterate
from cascadezoo.stages.base import Stage
from cascadezoo.train.progress import Progress
from cascadezoo.util.rng import derive_seed, seed_global

__all__ = ["finish_phase", "stages_to_finish"]


def stages_to_finish(cascade: Cascade, trained: Collection[str]) -> list[str]:
    """The first trained stage of a phase, if it overrides ``finish_phase``.

    Later stages do not measure again: the first one learned from their earlier measurements.
    """
    trainable = (n for n in cascade.names if n in trained)
    first = next((n for n in trainable if not cascade.stage(n).config.parameterless), None)
    if first is None or type(cascade.stage(first)).finish_phase is Stage.finish_phase:
        return []
    return [first]


@torch.no_grad()
def finish_phase(
    cascade: Cascade,
    names: Sequence[str],
    data: ImageData,
    *,
    phase: str,
    batch_size: int,
    check: Callable[[], None] = lambda: None,
    progress: Progress,
) -> None:
    """Let stages measure their targets over all training images, unshuffled and unmirrored.

    All stages are in eval mode, without gradients. Every process reads all images, so that their
    measurements agree. An exception restores the buffers.

    Args:
        cascade: the cascade with the final weights of the phase.
        names: the stages, in reverse order, because a stage's target depends on the later stages.
        data: the training images.
        phase: the phase's name.
        batch_size: images at a time.
        check: called before each batch; may raise.
        progress: displays the progress.
    """
    cascade.eval()
    buffers = [b for name in names for b in cascade.stage(name).buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        for name in names:
            seed_global(derive_seed(cascade.spec.seed, phase, name, "finish"), cascade.device)
            progress.task(f"{name} measures {len(data)} images", len(data))
            targets = _Targets(cascade, name, data, batch_size, check, progress)
            with guard(cascade.stage(name), "finish_phase"):
                cascade.stage(name).finish_phase(targets)
    except BaseException:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
        raise


class _Targets:
    """A stage's targets over all images, computed during the iteration."""

    def __init__(
        self,
        cascade: Cascade,
        name: str,
        data: ImageData,
        batch_size: int,
        check: Callable[[], None],
        progress: Progress,
    ) -> None:
        later = cascade.names[cascade.names.index(name) + 1 :]
        self.later = [cascade.stage(other) for other in reversed(later)]
        self.source = (data, batch_size, cascade.device)
        self.check = check
        self.progress = progress

    def __iter__(self) -> Iterator[Tensor]:
        done = 0
        for images, _ in iterate(*self.source, labels=False):
            self.check()
            target = images
            for stage in self.later:
                target = upstream_target(stage, target)
            yield target
            done += len(images)
            self.progress.advance(done)
