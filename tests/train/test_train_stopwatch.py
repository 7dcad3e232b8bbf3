"""The times of a phase."""

from __future__ import annotations

from cascadezoo.train.stopwatch import Stopwatch


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_time_of_figures_is_not_training() -> None:
    clock = Clock()
    watch = Stopwatch(7.0, clock)
    clock.now = 110.0
    assert watch.trained() == 17.0
    # An epoch ended at 110, and its figures took 5 seconds.
    watch.next_epoch(110.0, 5.0)
    clock.now = 118.0
    assert watch.trained() == 20.0
    assert watch.trained(116.0) == 18.0
    assert watch.epoch_began == 115.0
    assert watch.log_began == 105.0


def test_checkpoints_are_due_by_the_age_of_the_last() -> None:
    clock = Clock()
    watch = Stopwatch(0.0, clock)
    clock.now = 129.5
    assert not watch.checkpoint_due(30.0)
    clock.now = 130.0
    assert watch.checkpoint_due(30.0)
    watch.checkpoint_written()
    assert not watch.checkpoint_due(30.0)
