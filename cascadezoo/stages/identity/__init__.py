"""identity.v1: the upstream image as it is."""

from __future__ import annotations

from cascadezoo.plugins.registry import StageEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    StageEntry(
        name="identity.v1",
        role="refiner",
        summary="the upstream image as it is, no parameters",
        config="cascadezoo.stages.identity.config:IdentityConfig",
        impl="cascadezoo.stages.identity.stage:Identity",
    ),
)
