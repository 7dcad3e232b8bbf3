"""identity.v1: the unchanged upstream image."""

from __future__ import annotations

from cascadezoo.plugins.registry import StageEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    StageEntry(
        name="identity.v1",
        role="refiner",
        summary="the unchanged upstream image, no parameters",
        config="cascadezoo.stages.identity.config:IdentityConfig",
        impl="cascadezoo.stages.identity.stage:Identity",
    ),
)
