"""Loads the model that a command names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cascadezoo.cascade.cascade import Cascade

__all__ = ["load_model"]


def load_model(
    reference: str | Path, device: str, *, revision: str | None = None, offline: bool | None = None
) -> Cascade:
    """Load a trained cascade onto a device. A model on the Hub is pulled.

    The reference is resolved first, so that an error in it appears before torch is imported.
    """
    from cascadezoo.hub.locate import locate

    folder = locate(reference, revision, offline)

    from cascadezoo.cascade.cascade import Cascade
    from cascadezoo.train.engine import pick_device

    return Cascade.from_pretrained(folder, device=pick_device(device))
