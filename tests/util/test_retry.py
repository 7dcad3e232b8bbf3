"""One way to ask again."""

from __future__ import annotations

import pytest

from cascadezoo.errors import HubNotFoundError, HubUnavailableError
from cascadezoo.util.retry import retry


@pytest.fixture
def slept(monkeypatch):
    pauses = []
    monkeypatch.setattr("time.sleep", pauses.append)
    return pauses


def asking(*answers):
    """A function that raises or returns one answer after the other."""
    rest = iter(answers)

    def ask():
        answer = next(rest)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return ask


def busy(after=None):
    return HubUnavailableError("busy", retry_after=after)


def test_asks_again_after_each_pause(slept):
    assert retry(asking(busy(), busy(), 7), (0.5, 1.0)) == 7
    assert slept == [0.5, 1.0]


def test_the_last_error_is_raised(slept):
    last = busy()
    with pytest.raises(HubUnavailableError) as caught:
        retry(asking(busy(), busy(), last, 7), (0.5, 1.0))
    assert caught.value is last
    assert slept == [0.5, 1.0]


def test_the_hub_may_ask_for_a_longer_pause_up_to_a_limit(slept):
    assert retry(asking(busy(5.0), busy(0.1), 7), (0.5, 1.0), longest=5.0) == 7
    assert slept == [5.0, 1.0]
    with pytest.raises(HubUnavailableError):
        retry(asking(busy(5.1), 7), (0.5, 1.0), longest=5.0)
    assert slept == [5.0, 1.0]


def test_other_errors_are_not_tried_again(slept):
    with pytest.raises(HubNotFoundError):
        retry(asking(HubNotFoundError("gone"), 7))
    assert slept == []
