"""The config of ``identity.v1``. Free of torch."""

from __future__ import annotations

from typing import ClassVar

from cascadezoo.spec.configs import RefinerConfig

__all__ = ["IdentityConfig"]


class IdentityConfig(RefinerConfig):
    """No refiner: the baseline for refiners."""

    parameterless: ClassVar[bool] = True
