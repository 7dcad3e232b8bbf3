"""The registry entry of the bundled zoo."""

from __future__ import annotations

from cascadezoo.plugins.registry import ZooEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    ZooEntry(
        name="cascadezoo",
        summary="zoo_manifest.json: the models of the cascadezoo project",
        impl="cascadezoo.zoo.manifest:load",
        folder="cascadezoo/zoo/models",
    ),
)
