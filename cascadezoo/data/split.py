"""The images of a spec's dataset in the format of its cascade."""

from __future__ import annotations

from typing import Any

from cascadezoo.data.base import ImageData, Split
from cascadezoo.data.decoder import ImageForm
from cascadezoo.data.preparation import prepare, require_labels
from cascadezoo.data.streamed import StreamedData
from cascadezoo.errors import DataError, ResourceError
from cascadezoo.plugins.manager import get_registry
from cascadezoo.plugins.registry import DataEntry
from cascadezoo.spec import ResolvedSpec

__all__ = ["load_split"]

_TOO_LARGE = ("resources-data", "resources-memory")


def load_split(resolved: ResolvedSpec, split: Split) -> ImageData:
    """Read one split and convert it to the size and channels of the cascade.

    Args:
        resolved: a spec resolved for training, so that its dataset is known.
        split: the part of the dataset.

    Returns:
        The images in memory, or :class:`StreamedData` if ``data.streaming`` asks for it or is
        ``auto`` and they are larger than the limit.

    Raises:
        DataError: the data are missing, not readable, do not fit the cascade, or cannot be
            streamed.
        ResourceError: the data are larger than the limit or the machine's memory and cannot be
            streamed.
    """
    spec = resolved.spec.data
    entry = get_registry().datasets.get(spec.source).entry
    tolerant = spec.streaming == "auto" and spec.stream.max_bad > 0
    if spec.streaming is True or (tolerant and entry.source is not None):
        return _streamed(resolved, entry, split)
    try:
        return _resident(resolved, entry, split)
    except ResourceError as error:
        streams = spec.streaming == "auto" and entry.source is not None
        if not streams or error.code not in _TOO_LARGE:
            raise
    return _streamed(resolved, entry, split)


def _resident(resolved: ResolvedSpec, entry: DataEntry, split: Split) -> ImageData:
    spec, image = resolved.spec.data, resolved.image
    data: ImageData = entry.load()(resolved.data_config, split)
    data = prepare(data, size=image.size, channels=image.channels, fit=spec.fit)
    if resolved.num_classes is not None:
        require_labels(data, resolved.num_classes)
    return data


def _streamed(resolved: ResolvedSpec, entry: DataEntry, split: Split) -> StreamedData:
    spec, image = resolved.spec.data, resolved.image
    open_source: Any = entry.load_source()
    if open_source is None:
        raise DataError(
            f"the dataset {spec.source} cannot be streamed",
            hint="set data.streaming to auto or false",
            code="data-not-streamable",
            name=spec.source,
        )
    form = ImageForm(image.size, image.channels, spec.fit, resolved.num_classes)
    data = StreamedData(open_source(resolved.data_config, split), form, spec.stream)
    if resolved.num_classes is not None and not data.source.sequential:
        require_labels(data, resolved.num_classes)
    return data
