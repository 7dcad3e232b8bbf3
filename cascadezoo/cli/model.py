"""Loading the model that a command names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cascadezoo.cascade.cascade import Cascade

__all__ = ["load_model"]


def load_model(
    reference: str | Path, device: str, *, revision: str | None = None, offline: bool | None = None
) -> Cascade:
    """A trained cascade on the device of that name; the reference is looked at first.

    What lies on the Hub is pulled.
    """
    from cascadezoo.hub.locate import locate

    folder = locate(reference, revision, offline)

    from cascadezoo.cascade.cascade import Cascade
    from cascadezoo.train.engine import pick_device

    return Cascade.from_pretrained(folder, device=pick_device(device))
