"""Refuses data that no memory of this machine can hold, before they are allocated."""

from __future__ import annotations

import os

from cascadezoo.errors import ResourceError

__all__ = ["physical_memory", "require_memory"]


def physical_memory() -> int | None:
    """The machine's memory in bytes; None where the system does not tell."""
    names = getattr(os, "sysconf_names", {})
    if "SC_PAGE_SIZE" not in names or "SC_PHYS_PAGES" not in names:
        return None
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return size if size > 0 else None


def require_memory(size: int, what: str, *, hint: str | None = None) -> None:
    """Check that ``size`` bytes can be held.

    Args:
        size: bytes to be allocated.
        what: whose they are, for the message.
        hint: how to need fewer; None suggests a smaller part of the data.

    Raises:
        ResourceError: the machine has less memory.
    """
    have = physical_memory()
    if have is not None and size > have:
        raise ResourceError(
            f"{what} need {size / 2**30:,.1f} GiB of memory; this machine has "
            f"{have / 2**30:,.1f} GiB",
            hint=hint or "ask for fewer or smaller images",
            code="resources-memory",
            name=what,
            needed=size,
            available=have,
        )
