"""The images of a spec's dataset in the format of its cascade."""

from __future__ import annotations

from cascadezoo.data.base import ImageData, Split
from cascadezoo.data.preparation import prepare, require_labels
from cascadezoo.plugins.manager import get_registry
from cascadezoo.spec import ResolvedSpec

__all__ = ["load_split"]


def load_split(resolved: ResolvedSpec, split: Split) -> ImageData:
    """Read one split and convert it to the size and channels of the cascade.

    Args:
        resolved: a spec resolved for training, so that its dataset is known.
        split: the part of the dataset.

    Raises:
        DataError: the data are missing, not readable, or do not fit the cascade.
        ResourceError: the data are larger than the machine's memory.
    """
    spec, image = resolved.spec.data, resolved.image
    entry = get_registry().datasets.get(spec.source).entry
    data: ImageData = entry.load()(resolved.data_config, split)
    data = prepare(data, size=image.size, channels=image.channels, fit=spec.fit)
    if resolved.num_classes is not None:
        require_labels(data, resolved.num_classes)
    return data
