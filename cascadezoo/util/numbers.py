"""Formatting of numbers: values with their spread, counts, sizes and durations."""

from __future__ import annotations

import math
import re

__all__ = [
    "MISSING",
    "human_bytes",
    "human_count",
    "human_seconds",
    "number",
    "page_number",
    "page_spread",
    "power",
    "spread",
    "times",
]

MISSING = "\N{EN DASH}"
"""What a page shows for an unknown number."""


def number(value: float, like: float | None = None) -> str:
    """A number with about four digits.

    Args:
        value: the number.
        like: use the decimals of this number instead.

    >>> number(14.8882), number(1.9563, 14.8882), number(0.0912), number(12345.6), number(0.0)
    ('14.89', '1.96', '0.0912', '12346', '0.0000')
    """
    size = abs(value if like is None else like)
    if size and not 1e-4 <= size < 1e9:
        return f"{value:.3e}"
    decimals = 4 if size < 1 else max(0, 3 - math.floor(math.log10(size)))
    return f"{value:.{decimals}f}"


def spread(
    value: float, std: float | None, scale: float = 1.0, *, decimals: int | None = None
) -> str:
    """A value and its spread as text, for terminal tables, cards and Markdown.

    Args:
        value: the value.
        std: its spread; None leaves it out.
        scale: factor of both.
        decimals: decimals of both, for columns; None shows about four digits of the value, and
            the spread with the same decimals.

    >>> spread(0.0148882, 0.0019563, 1000), spread(0.5, None)
    ('14.89 +- 1.96', '0.5000')
    >>> spread(0.0148882, 0.0019563, 1000, decimals=1)
    '14.9 +- 2.0'
    """
    value *= scale
    if decimals is None:
        return number(value) + ("" if std is None else f" +- {number(std * scale, value)}")
    deviation = "" if std is None else f" +- {std * scale:.{decimals}f}"
    return f"{value:.{decimals}f}{deviation}"


def power(scale: float) -> str:
    """The suffix of a number that was multiplied by a scale.

    >>> power(1000.0), power(1.0), power(100.0), power(3.0)
    (' x 10^-3', '', ' x 10^-2', ' x 1/3.0')
    """
    if scale == 1.0:
        return ""
    exponent = round(math.log10(scale))
    return f" x 10^{-exponent}" if scale == 10.0**exponent else f" x 1/{scale!r}"


def times(text: str) -> float | None:
    """The factor that a suffix of :func:`power` stands for; None for other text.

    >>> times(" x 10^-3"), times(""), times(" x 1/4.0"), times(" dB")
    (0.001, 1.0, 0.25, None)
    """
    if not text.strip():
        return 1.0
    match = re.fullmatch(r" x (?:10\^(-?\d{1,3})|1/(\d[\d.e+-]{0,30}))", text)
    if match is None:
        return None
    if match[1] is not None:
        return 10.0 ** int(match[1])
    try:
        return 1.0 / float(match[2])
    except (ValueError, ZeroDivisionError):
        return None


def page_number(value: float | None, digits: int = 3) -> str:
    """A number for a page: significant digits, thousands separators, an exponent only if long.

    >>> page_number(1234567), page_number(0.012345), page_number(float("nan"))
    ('1,234,567', '0.0123', 'not a number')
    """
    if value is None:
        return MISSING
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**15 else f"{float(value):.{digits}g}"
    size = abs(value)
    if size >= 10**digits and size < 1e15:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def page_spread(value: float | None, std: float | None, scale: float = 1.0) -> str:
    """A value and its spread for a page, both with the same decimals.

    >>> page_spread(0.0148882, 0.0019562, 1000), page_spread(4.0, None)
    ('14.9 ± 2.0', '4')
    """
    if value is None or not math.isfinite(value):
        return page_number(value)
    if std is None or not math.isfinite(std):
        return page_number(value * scale)
    if max(abs(value), std) * scale >= 1e9:
        return f"{page_number(value * scale)} ± {page_number(std * scale)}"
    std *= scale
    decimals = 2 if std < 1 else 1 if std < 10 else 0
    decimals = min(6, decimals if std == 0 else max(decimals, 1 - math.floor(math.log10(std))))
    return f"{value * scale:,.{decimals}f} ± {std:,.{decimals}f}"


def human_bytes(size: float | None) -> str:
    """A number of bytes with a binary unit.

    >>> human_bytes(1536), human_bytes(None)
    ('1.5 KiB', '-')
    """
    if size is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(size) < 1024 or unit == "PiB":
            break
        size /= 1024
    return f"{size:.0f} B" if unit == "B" else f"{size:,.1f} {unit}"


def human_count(count: float | None) -> str:
    """A count with three digits and a unit.

    >>> human_count(852_739), human_count(1.23e9), human_count(12), human_count(None)
    ('853 k', '1.23 G', '12', '-')
    """
    if count is None:
        return "-"
    if abs(count) < 1000:
        return f"{count:.3g}"
    for unit in ("k", "M", "G", "T", "P", "E"):
        count /= 1000
        if abs(count) < 999.5 or unit == "E":
            break
    digits = 2 if abs(count) < 9.995 else 1 if abs(count) < 99.95 else 0
    return f"{count:,.{digits}f} {unit}"


def human_seconds(seconds: float) -> str:
    """A duration in seconds, minutes or hours.

    >>> human_seconds(3.21), human_seconds(155), human_seconds(7384)
    ('3.2 s', '2:35 min', '2:03:04 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"
