"""The names of distributions."""

from __future__ import annotations

import re

__all__ = ["canonical_name"]


def canonical_name(name: str) -> str:
    """The canonical name of a distribution: lower case, with dashes."""
    return re.sub(r"[-_.]+", "-", name).lower()
