"""Arithmetic of sizes and widths for configs. Free of torch."""

from __future__ import annotations

__all__ = ["divisor_near", "factor_steps", "multiple_of", "unet_resolutions"]


def multiple_of(size: int, factor: int) -> int:
    """The smallest multiple of ``factor`` that is at least ``size``."""
    return -(-size // factor) * factor


def unet_resolutions(size: int, levels: int) -> list[int]:
    """Height and width of each level of a U-Net, from the first; sizes are padded if needed.

    Args:
        size: of the image in pixels; 28 with three levels gives 28 -> 28, 14, 7.
        levels: each but the first halves the size.
    """
    padded = multiple_of(size, 2 ** (levels - 1))
    return [padded // 2**level for level in range(levels)]


def divisor_near(number: int, most: int) -> int:
    """The largest divisor of ``number`` that is at most ``most``; 1 if there is no other."""
    return next((d for d in range(min(number, most), 1, -1) if number % d == 0), 1)


def factor_steps(factor: int) -> list[int]:
    """The prime factors of an enlargement in ascending order: 2, 2, 2 for 8."""
    steps, rest, prime = [], factor, 2
    while rest > 1:
        while rest % prime == 0:
            steps.append(prime)
            rest //= prime
        prime += 1
    return steps
