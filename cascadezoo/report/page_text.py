"""Texts and numbers as pages show them. Free of torch and matplotlib."""

from __future__ import annotations

import math
import re
import unicodedata

__all__ = ["MISSING", "number", "plain", "spread"]

_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_LONGEST = 20_000
MISSING = "\N{EN DASH}"


def plain(text: object) -> str:
    r"""Text with every control, bidirectional or otherwise invisible character written out.

    Specs and models come from strangers; their text must not reorder or hide what is read.
    Line ends and tabs become spaces; of more than 20,000 characters the rest is left out.

    >>> plain("a\u202eb\n c")
    'a\\u202eb c'
    """
    whole = str(text)
    shown = whole[:_LONGEST] + ("..." if len(whole) > _LONGEST else "")
    shown = re.sub(r"[\t\n\r ]+", " ", shown)
    if shown.isprintable():
        return shown
    return "".join(
        char.encode("unicode_escape").decode("ascii")
        if unicodedata.category(char) in _UNPRINTABLE
        else char
        for char in shown
    )


def number(value: float | None, digits: int = 3) -> str:
    """A number as people read it: significant digits, thousands set apart, no exponent if short.

    >>> number(1234567), number(0.012345), number(12.3456), number(float("nan"))
    ('1,234,567', '0.0123', '12.3', 'not a number')
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


def spread(value: float | None, std: float | None, scale: float = 1.0) -> str:
    """A value and its spread, both to the same place.

    >>> spread(0.0148882, 0.0019562, 1000), spread(4.0, None)
    ('14.9 ± 2.0', '4')
    """
    if value is None or not math.isfinite(value):
        return number(value)
    if std is None or not math.isfinite(std):
        return number(value * scale)
    if max(abs(value), std) * scale >= 1e9:
        return f"{number(value * scale)} ± {number(std * scale)}"
    wide = std * scale
    places = 2 if wide < 1 else 1 if wide < 10 else 0
    places = min(6, places if wide == 0 else max(places, 1 - math.floor(math.log10(wide))))
    return f"{value * scale:,.{places}f} ± {wide:,.{places}f}"
