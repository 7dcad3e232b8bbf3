"""Numbers and strangers' text as pages show them."""

from __future__ import annotations

from cascadezoo.util.numbers import MISSING
from cascadezoo.util.numbers import page_number as number
from cascadezoo.util.numbers import page_spread as spread
from cascadezoo.util.text import page_text as plain

__all__ = ["MISSING", "number", "plain", "spread"]
