"""Retries of calls to the Hub."""

from __future__ import annotations

import pytest

from cascadezoo.errors import HubNotFoundError, HubUnavailableError
from cascadezoo.util.retry import retry


@pytest.fixture
def slept(monkeypatch):
    pauses = []
    monkeypatch.setattr("time.sleep", pauses.append)
    return pauses


def calls(*results):
    """A function that returns or raises one result after the other."""
    remaining = iter(results)

    def call():
        result = next(remaining)
        if isinstance(result, Exception):
            raise result
        return result

    return call


def busy(after=None):
    return HubUnavailableError("busy", retry_after=after)


def test_a_retry_follows_each_pause(slept):
    assert retry(calls(busy(), busy(), 7), (0.5, 1.0)) == 7
    assert slept == [0.5, 1.0]


def test_the_last_error_is_raised(slept):
    last = busy()
    with pytest.raises(HubUnavailableError) as caught:
        retry(calls(busy(), busy(), last, 7), (0.5, 1.0))
    assert caught.value is last
    assert slept == [0.5, 1.0]


def test_the_hub_may_request_a_longer_pause_up_to_a_limit(slept):
    assert retry(calls(busy(5.0), busy(0.1), 7), (0.5, 1.0), longest=5.0) == 7
    assert slept == [5.0, 1.0]
    with pytest.raises(HubUnavailableError):
        retry(calls(busy(5.1), 7), (0.5, 1.0), longest=5.0)
    assert slept == [5.0, 1.0]


def test_other_errors_are_not_retried(slept):
    with pytest.raises(HubNotFoundError):
        retry(calls(HubNotFoundError("gone"), 7))
    assert slept == []
