"""The images of a spec's dataset in the format of its cascade."""

from __future__ import annotations

from typing import Any

from cascadezoo.data.base import ImageData, Split
from cascadezoo.data.decoder import ImageForm
from cascadezoo.data.preparation import prepare, require_labels
from cascadezoo.data.streamed import StreamedData
from cascadezoo.errors import DataError, ResourceError
from cascadezoo.plugins.faults import Owner
from cascadezoo.plugins.manager import get_registry
from cascadezoo.plugins.registry import DataEntry, Registered
from cascadezoo.plugins.tracebacks import own_definition
from cascadezoo.spec import ResolvedSpec

__all__ = ["TOO_LARGE", "load_split"]

TOO_LARGE = ("resources-data", "resources-memory")
"""The codes of errors of data that may be streamed instead."""


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
        PluginError: the dataset of a plugin fails, or does not return the split.
    """
    spec = resolved.spec.data
    row = get_registry().datasets.get(spec.source)
    entry = row.entry
    tolerant = spec.streaming == "auto" and spec.stream.max_bad > 0
    if spec.streaming is True or (tolerant and entry.source is not None):
        return _streamed(resolved, row, split)
    try:
        return _resident(resolved, row, split)
    except ResourceError as error:
        streams = spec.streaming == "auto" and entry.source is not None
        if not streams or error.code not in TOO_LARGE:
            raise
    return _streamed(resolved, row, split)


def _resident(resolved: ResolvedSpec, row: Registered[DataEntry], split: Split) -> ImageData:
    spec, image = resolved.spec.data, resolved.image
    data = _load(Owner.of(row), row.entry.load(), resolved.data_config, split)
    data = prepare(data, size=image.size, channels=image.channels, fit=spec.fit)
    if resolved.num_classes is not None:
        require_labels(data, resolved.num_classes)
    return data


def _streamed(resolved: ResolvedSpec, row: Registered[DataEntry], split: Split) -> StreamedData:
    spec, image = resolved.spec.data, resolved.image
    open_source: Any = row.entry.load_source()
    if open_source is None:
        raise DataError(
            f"the dataset {spec.source} cannot be streamed",
            hint="set data.streaming to auto or false",
            code="data-not-streamable",
            name=spec.source,
        )
    form = ImageForm(image.size, image.channels, spec.fit, resolved.num_classes)
    with Owner.of(row).guard(f"to open the {split} split", open_source):
        source = open_source(resolved.data_config, split)
    data = StreamedData(source, form, spec.stream)
    if resolved.num_classes is not None and not data.source.sequential:
        require_labels(data, resolved.num_classes)
    return data


def _load(owner: Owner, load: Any, config: Any, split: Split) -> ImageData:
    """Call a dataset's ``load``, and check what it returns."""
    where = own_definition(load)
    with owner.guard(f"to load the {split} split", load):
        try:
            data = load(config, split)
        except DataError as error:
            # Arrays of the wrong form are a fault of the code, not of the user's files.
            if owner.builtin or error.code not in ("data-images-form", "data-labels-form"):
                raise
            what = f"failed to load the {split} split: {error.what}"
            raise owner.fault(what, code="plugin-dataset-failed", where=where) from error
    if not isinstance(data, ImageData):
        what = f"returned a {type(data).__name__} for the {split} split, not an ImageData"
        raise owner.fault(what, code="plugin-output-type", where=where)
    if data.split != split:
        what = f"returned the split {data.split!r} for the {split} split"
        raise owner.fault(what, code="plugin-dataset-split", where=where, split=data.split)
    return data
