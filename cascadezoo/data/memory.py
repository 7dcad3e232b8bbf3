"""Rejects data that are too large for the machine's memory, before their allocation."""

from __future__ import annotations

import os

from cascadezoo.errors import ResourceError
from cascadezoo.util.limits import byte_limit

__all__ = ["DATA_VARIABLE", "largest_data", "physical_memory", "require_data", "require_memory"]

DATA_VARIABLE = "CASCADEZOO_MAX_DATA_BYTES"

_UNKNOWN_MEMORY = 8 << 30


def physical_memory() -> int | None:
    """The machine's memory in bytes; None if the system does not report it."""
    names = getattr(os, "sysconf_names", {})
    if "SC_PAGE_SIZE" not in names or "SC_PHYS_PAGES" not in names:
        return None
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return size if size > 0 else None


def largest_data(default: int | None = None) -> int:
    """The size limit of decoded data in bytes: ``CASCADEZOO_MAX_DATA_BYTES``, or the default.

    Args:
        default: None is half of the machine's memory, because a conversion makes a copy.

    Raises:
        InputError: the variable is not an integer.
    """
    if default is None:
        default = (physical_memory() or 2 * _UNKNOWN_MEMORY) // 2
    return byte_limit(DATA_VARIABLE, default)


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


def require_data(
    size: int, what: str, *, hint: str | None = None, default: int | None = None
) -> None:
    """Check that ``size`` bytes of decoded data are within the limit and fit into memory.

    Args:
        size: bytes to decode.
        what: their content, for the message.
        hint: a way to need fewer bytes; None suggests fewer or smaller images.
        default: the limit if the environment sets none; None is half of the machine's memory.

    Raises:
        ResourceError: more bytes than the limit, or more than the machine's memory.
    """
    require_memory(size, what, hint=hint)
    limit = largest_data(default)
    if size > limit:
        raise ResourceError(
            f"{what} need {_size(size)} of memory, more than the limit of {_size(limit)}",
            hint=f"{hint or 'use fewer or smaller images'}; or set the limit in bytes: "
            f"{DATA_VARIABLE}={size}",
            code="resources-data",
            name=what,
            needed=size,
            limit=limit,
        )


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"
