"""The images of a spec's dataset in the format of its cascade."""

from __future__ import annotations

from typing import Any

from cascadezoo.data.base import ImageData, Split
from cascadezoo.data.preparation import prepare, require_labels
from cascadezoo.errors import DataError
from cascadezoo.plugins.faults import Owner
from cascadezoo.plugins.manager import get_registry
from cascadezoo.plugins.tracebacks import own_definition
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
        PluginError: the dataset of a plugin fails, or does not return the split.
    """
    spec, image = resolved.spec.data, resolved.image
    row = get_registry().datasets.get(spec.source)
    data = _load(Owner.of(row), row.entry.load(), resolved.data_config, split)
    data = prepare(data, size=image.size, channels=image.channels, fit=spec.fit)
    if resolved.num_classes is not None:
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
