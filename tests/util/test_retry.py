"""Retries of calls to the Hub."""

from __future__ import annotations

import time

import pytest

from cascadezoo.errors import HubNotFoundError, HubUnavailableError, InputError
from cascadezoo.util.limits import byte_limit, seconds_limit
from cascadezoo.util.retry import Patience, current_patience, hub_patience, retry


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


# --- patience


def test_failing_time_is_counted_and_successful_time_is_not(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    patience = Patience(10.0)
    now[0] = 200.0
    assert patience.left() == 10.0
    patience.failed(199.0)
    patience.failed(200.0)  # the same failing time goes on
    now[0] = 202.0
    assert patience.left() == 7.0
    patience.succeeded(201.5)
    now[0] = 300.0
    assert patience.left() == 7.5
    patience.failed(299.0)
    assert patience.left() == 6.5
    patience.end()
    assert patience.left() < 0


def test_a_pause_longer_than_the_patience_is_not_slept(slept, monkeypatch):
    monkeypatch.setenv("CASCADEZOO_HUB_PATIENCE", "1.5")
    with hub_patience(), pytest.raises(HubUnavailableError):
        retry(calls(busy(), busy(), 7), (0.5, 2.0))
    assert slept == [0.5]
    assert current_patience() is None
    assert retry(calls(busy(), busy(), 7), (0.5, 2.0)) == 7


def test_an_outer_patience_stays_in_force(monkeypatch):
    with hub_patience():
        outer = current_patience()
        with hub_patience():
            assert current_patience() is outer
        assert current_patience() is outer


@pytest.mark.parametrize(
    "text", ["0", "0.0", "-1", "1e3", "inf", "nan", "²", "1_0", " 1", "9" * 12]
)
def test_seconds_are_positive_numbers(monkeypatch, text):
    monkeypatch.setenv("X_SECONDS", text)
    with pytest.raises(InputError) as raised:
        seconds_limit("X_SECONDS", 5.0)
    assert raised.value.code == "input-limit-form"
    assert "X_SECONDS" in raised.value.what


def test_limits_come_from_variables_or_defaults(monkeypatch):
    monkeypatch.delenv("X_LIMIT", raising=False)
    assert (seconds_limit("X_LIMIT", 5.0), byte_limit("X_LIMIT", 7)) == (5.0, 7)
    monkeypatch.setenv("X_LIMIT", "")
    assert (seconds_limit("X_LIMIT", 5.0), byte_limit("X_LIMIT", 7)) == (5.0, 7)
    monkeypatch.setenv("X_LIMIT", "12")
    assert (seconds_limit("X_LIMIT", 5.0), byte_limit("X_LIMIT", 7)) == (12.0, 12)
    monkeypatch.setenv("X_LIMIT", "0.25")
    assert seconds_limit("X_LIMIT", 5.0) == 0.25
