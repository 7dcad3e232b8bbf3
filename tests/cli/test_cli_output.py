from __future__ import annotations

import json
import os
import pty
import sys
import unicodedata

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from cascadezoo.cli.output import clean, echo, echo_json, table
from cascadezoo.util.numbers import human_bytes, human_count, human_seconds

texts = st.text(st.characters())  # with surrogates, which file names may contain


@given(texts)
def test_cleaned_text_cannot_control_the_terminal(text):
    bad = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    shown = clean(text)
    assert not [c for c in shown if unicodedata.category(c) in bad]
    assert clean(shown) == shown
    # Printable text stays the same.
    assert (shown == text) == (not any(unicodedata.category(c) in bad for c in text))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("a\r\nb", "a\\r\\nb"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2066x\u2069\u200b\ufeff", "\\u2066x\\u2069\\u200b\\ufeff"),
        ("\udc80", "\\udc80"),
        ("naïve 日本 🎨", "naïve 日本 🎨"),
    ],
)
def test_clean(text, shown):
    assert clean(text) == shown


def test_clean_keeps_the_listed_characters():
    assert clean("a\nb\tc", keep="\n") == "a\nb\\tc"


def printed(function, *args, charset="utf-8", **options):
    import click

    @click.command()
    def show():
        function(*args, **options)

    result = CliRunner(charset=charset).invoke(show, catch_exceptions=False)
    return result.stdout_bytes


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


@given(values)
def test_json_round_trips_and_is_safe_to_print(value):
    text = printed(echo_json, value).decode()
    assert json.loads(text) == value
    assert clean(text, keep="\n") == text


def test_json_is_stable_and_refuses_nan():
    assert printed(echo_json, {"b": 1, "a": [2]}) == b'{\n  "b": 1,\n  "a": [\n    2\n  ]\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        printed(echo_json, {"x": float("nan")})


def test_narrow_encodings_lose_nothing():
    assert printed(echo, "naïve 日本", charset="ascii") == b"na\\xefve \\u65e5\\u672c\n"
    assert json.loads(printed(echo_json, "日本 🎨", charset="ascii")) == "日本 🎨"


def test_table_aligns_and_escapes():
    text = table(("NAME", "N", "WHAT"), [("a\x1b", 5, "one"), ("long name", None, "")], right=[1])
    assert text.splitlines() == [
        "NAME       N  WHAT",
        "a\\x1b      5  one",
        "long name  -",
    ]


def test_table_wraps_its_last_column_on_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    _, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        lines = table(("K", "SUMMARY"), [("x", "word " * 20), ("y", "")]).splitlines()
    assert max(map(len, lines)) <= 40
    assert lines[1].startswith("x  word")
    assert lines[2].startswith("   word")
    assert " ".join(" ".join(lines[1:-1]).split()) == "x " + " ".join(["word"] * 20)
    assert lines[-1] == "y"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (2**31, "2.0 GiB"),
        (2**70, "1,048,576.0 PiB"),
    ],
)
def test_bytes(size, text):
    assert human_bytes(size) == text


@given(st.integers(0, 10**20))
def test_counts_are_within_half_a_percent(count):
    number, _, unit = human_count(count).partition(" ")
    scale = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}[unit]
    assert float(number.replace(",", "")) * scale == pytest.approx(count, rel=0.0051)
    assert unit == "E" or len(number) <= 5


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (3599.4, "59:59 min"), (3600, "1:00:00 h")],
)
def test_seconds(seconds, text):
    assert human_seconds(seconds) == text
