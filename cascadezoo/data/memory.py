"""Rejects data that are larger than the machine's memory, before their allocation."""

from __future__ import annotations

import os

from cascadezoo.errors import ResourceError

__all__ = ["physical_memory", "require_memory"]


def physical_memory() -> int | None:
    """The machine's memory in bytes; None if the system does not report it."""
    names = getattr(os, "sysconf_names", {})
    if "SC_PAGE_SIZE" not in names or "SC_PHYS_PAGES" not in names:
        return None
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return size if size > 0 else None


def require_memory(size: int, what: str, *, hint: str | None = None) -> None:
    """Check that ``size`` bytes fit into memory.

    Args:
        size: bytes to allocate.
        what: their content, for the message.
        hint: a way to need fewer bytes; None suggests fewer or smaller images.

    Raises:
        ResourceError: the machine has less memory.
    """
    available = physical_memory()
    if available is not None and size > available:
        raise ResourceError(
            f"{what} need {size / 2**30:,.1f} GiB of memory; this machine has "
            f"{available / 2**30:,.1f} GiB",
            hint=hint or "use fewer or smaller images",
            code="resources-memory",
            name=what,
            needed=size,
            available=available,
        )
