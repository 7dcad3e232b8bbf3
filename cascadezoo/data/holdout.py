"""Reserves a fixed part of a dataset as its test split."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cascadezoo.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cascadezoo.data.base import Split

__all__ = ["holdout_indices", "split_sizes"]

_KEY = 0x63617363616465


def split_sizes(count: int, fraction: float) -> tuple[int, int]:
    """The numbers of training and of test images of :func:`holdout_indices`.

    >>> split_sizes(10, 0.25), split_sizes(10, 0.0)
    ((8, 2), (10, 0))
    """
    held = max(1, round(count * fraction)) if fraction else 0
    return max(0, count - held), held


def holdout_indices(count: int, fraction: float, split: Split, *, source: str) -> NDArray[np.int64]:
    """The indices of the images of a split, in ascending order.

    Args:
        count: number of all images.
        fraction: the share of the test split, in [0, 1).
        split: ``train`` or ``test``.
        source: the file or folder, for messages.

    Returns:
        int64; the two splits together contain each of ``range(count)`` once.

    Raises:
        DataError: there is no test split, or the training split would be empty.
    """
    import numpy as np

    if fraction == 0.0:
        if split == "test":
            raise DataError(
                f"{source} has no test split",
                hint="set data.config.holdout to its share of the images, e.g. 0.1",
                code="data-no-test-split",
                name=source,
            )
        return np.arange(count, dtype=np.int64)
    _, held = split_sizes(count, fraction)
    if held >= count:
        raise DataError(
            f"{source}: holdout {fraction} of {count} image{'s' * (count != 1)} leaves no "
            "training images",
            hint="lower data.config.holdout, or set it to 0 to train on all images",
            code="data-holdout-all",
            name=source,
            holdout=fraction,
            count=count,
        )
    # A stable sort of fixed random numbers is the same permutation everywhere.
    order = np.argsort(np.random.Philox(key=_KEY).random_raw(count), kind="stable")
    return np.sort(order[:held] if split == "test" else order[held:]).astype(np.int64)
