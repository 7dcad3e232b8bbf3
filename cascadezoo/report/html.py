"""HTML that nothing can break out of: every text is escaped, only :class:`Markup` is not.

Free of torch and matplotlib.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from cascadezoo.util.numbers import MISSING
from cascadezoo.util.numbers import page_number as number
from cascadezoo.util.numbers import page_spread as spread
from cascadezoo.util.text import page_text as plain

__all__ = ["MISSING", "Markup", "element", "escape", "join", "number", "plain", "spread"]

_VOID = frozenset({"br", "img", "link", "meta"})


class Markup(str):
    """Text that is HTML already. Only :func:`element` and :func:`join` make it."""

    __slots__ = ()


def escape(text: object) -> Markup:
    """Text for an element or an attribute; markup stays as it is.

    >>> escape('<a href="x">')
    '&lt;a href=&quot;x&quot;&gt;'
    """
    return text if isinstance(text, Markup) else Markup(html.escape(plain(text), quote=True))


def element(tag: str, /, *inside: object, **attributes: object) -> Markup:
    """One element.

    Args:
        tag: of the element, from this package's code.
        inside: text, which is escaped, or markup.
        attributes: ``class_`` is ``class``, ``data_value`` is ``data-value``; None and False
            leave the attribute out, True gives it no value.

    >>> element("p", "1 < 2", class_="note")
    '<p class="note">1 &lt; 2</p>'
    """
    parts = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        label = key.rstrip("_").replace("_", "-")
        parts.append(f" {label}" if value is True else f' {label}="{escape(value)}"')
    head = f"<{tag}{''.join(parts)}>"
    if tag in _VOID:
        return Markup(head)
    return Markup(f"{head}{join(inside)}</{tag}>")


def join(parts: Iterable[object], between: str = "") -> Markup:
    """Parts one after the other, each escaped unless it is markup."""
    return Markup(between.join(escape(part) for part in parts))
