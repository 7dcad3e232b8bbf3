"""Loads the model that a command names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cascadezoo.cascade.cascade import Cascade

__all__ = ["load_model"]


def load_model(
    reference: str | Path,
    device: str,
    *,
    revision: str | None = None,
    offline: bool | None = None,
    precision: str | None = None,
) -> Cascade:
    """Load a trained cascade onto a device. A model on the Hub is pulled.

    The reference is resolved first, so that an error in it appears before torch is imported.

    Args:
        reference: the model.
        device: the name of the device.
        revision: branch, tag or commit of a repo.
        offline: True sends no request.
        precision: of the weights and of sampling; None is fp32.

    Raises:
        CascadezooError: the model cannot be loaded, or the device does not support the precision.
    """
    from cascadezoo.hub.locate import locate

    folder = locate(reference, revision, offline)

    from cascadezoo.cascade.cascade import Cascade
    from cascadezoo.cascade.sampling import autocast
    from cascadezoo.train.engine import pick_device

    home = pick_device(device)
    if precision is not None:
        autocast(home, precision)  # type: ignore[arg-type]
    return Cascade.from_pretrained(folder, device=home, dtype=precision)  # type: ignore[arg-type]
