"""Warnings about a spec that need no network: images that are unusually large for a generator."""

from __future__ import annotations

from collections.abc import Iterator

from cascadezoo.spec.resolution import ResolvedSpec

__all__ = ["size_warnings"]

LARGE = 128
"""Images above this size need stages that enlarge or decode them, or much memory."""


def size_warnings(resolved: ResolvedSpec) -> Iterator[str]:
    """Warn about a generator of large images.

    >>> from cascadezoo import load_spec
    >>> list(size_warnings(load_spec("shapes-demo")))
    []
    """
    first = resolved.stages[0]
    shape, size = first.output, resolved.image.size
    if shape.latent or shape.size <= LARGE:
        return
    reason = ""
    if resolved.data_info.size == size:
        reason = f"; {size}x{size} is the size of the dataset's images"
    yield (
        f"{first.name} ({first.kind}): generates {shape.size}x{shape.size} pixels in one stage, "
        f"which needs much memory and time{reason}; set data.size to a smaller size such as 64, or "
        "add upsamplers or a decoder"
    )
