"""A spec whose images are passed by the program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cascadezoo.data.python_config import PythonConfig
from cascadezoo.data.python_data import DataInput, GivenData, read_given
from cascadezoo.errors import CascadezooError, InputError, SpecError
from cascadezoo.plugins.manager import get_registry
from cascadezoo.spec import CascadeSpec, ResolvedSpec, apply_settings, load_spec, read_spec, resolve
from cascadezoo.spec.configs import DataConfig
from cascadezoo.spec.faults import problems_of
from cascadezoo.spec.models import MOST_NAMES
from cascadezoo.spec.resolution import spec_data

__all__ = ["SOURCE", "load_spec_with", "recorded", "source_of"]

SOURCE = "python"
"""The registered name of the dataset of images that were passed."""

_KEPT = ("size", "fit", "flip", "streaming", "stream")
"""The fields of ``data`` that belong to the cascade, not to the dataset that is replaced."""


def load_spec_with(
    spec: CascadeSpec | Mapping[str, Any] | str | Path,
    data: DataInput | None,
    settings: Iterable[str] = (),
) -> tuple[ResolvedSpec, GivenData | None]:
    """Read a spec, replace its dataset by ``data``, and resolve it.

    The data replace ``data.source`` and ``data.config``. Of a spec with another source, ``size``,
    ``fit``, ``flip``, ``streaming`` and ``stream`` are kept; ``channels``, ``num_classes`` and
    ``class_names`` are those of the data, unless ``settings`` state them. Images complete a spec
    without ``data``, or with the source ``python``.

    Args:
        spec: as for :func:`~cascadezoo.load_spec`.
        data: images, or the config of a registered dataset; None uses the spec's dataset.
        settings: ``path=value`` changes to the spec.

    Returns:
        The spec, and the images; None if the spec's dataset contains them.

    Raises:
        DataError: the images cannot be used, or are not those of the spec.
        InputError: ``data`` contains no images, or a setting names another dataset.
        SpecError: the spec is invalid.
    """
    changes = list(settings)
    if data is None:
        return load_spec(spec, settings=changes), None
    _refuse_other_source(changes)
    raw, name = _raw(spec)
    row = raw.get("data")
    row = dict(row) if isinstance(row, Mapping) else {}
    own = row.get("source") == SOURCE and not isinstance(data, DataConfig)
    kept = row if own else {key: row[key] for key in _KEPT if key in row}
    if isinstance(data, DataConfig):
        kept = {**kept, "source": source_of(data), "config": data.model_dump(mode="json")}
        return resolve(apply_settings({**raw, "data": kept}, changes), source=name), None
    sized = apply_settings({"data": {**kept, "config": {}}}, _about_data(changes))["data"]
    size = sized.get("size")
    given = read_given(data, size=size if isinstance(size, int) else None)
    config = given.config()
    if own and isinstance(row.get("config"), Mapping) and row["config"]:
        given.require(recorded(row["config"], name))
    kept = {**kept, "source": SOURCE, "config": config.model_dump(mode="json")}
    classes = sized.get("num_classes")
    names = given.class_names
    if names and "class_names" not in sized and classes in (None, len(names)):
        recordable = len(names) <= MOST_NAMES and all(0 < len(text) <= 200 for text in names)
        kept |= {"class_names": list(names)} if recordable else {}
    return resolve(apply_settings({**raw, "data": kept}, changes), source=name), given


def source_of(config: DataConfig) -> str:
    """The registered name of the dataset of a config.

    Raises:
        InputError: no registered dataset has a config of this class.
    """
    for row in get_registry().datasets:
        try:
            found = row.entry.load_config()
        except CascadezooError:
            continue  # reported by whoever uses that dataset
        if found is type(config):
            return row.entry.name
    raise InputError(
        f"{type(config).__name__} is the config of no registered dataset",
        hint="register it by the hook register_datasets, or pass the images",
        code="input-data-config",
        type=type(config).__name__,
    )


def recorded(config: Mapping[str, Any], source: str) -> PythonConfig:
    """What a spec states of the images that were passed.

    Args:
        config: its ``data.config``.
        source: the name of the spec in error messages.

    Raises:
        SpecError: the config is invalid.
    """
    try:
        return PythonConfig.model_validate(config)
    except ValidationError as error:
        raise SpecError(problems_of(error, config, "data.config"), source=source) from None


def _raw(spec: CascadeSpec | Mapping[str, Any] | str | Path) -> tuple[dict[str, Any], str]:
    if isinstance(spec, (str, Path)):
        return read_spec(spec)
    return spec_data(spec), "spec"


def _about_data(settings: Iterable[str]) -> list[str]:
    return [setting for setting in settings if setting.startswith("data.")]


def _refuse_other_source(settings: Iterable[str]) -> None:
    for setting in settings:
        path = setting.partition("=")[0]
        if path == "data" or path.startswith(("data.source", "data.config")):
            raise InputError(
                f"{setting!r} names a dataset, but data is given",
                hint="leave one of them out",
                code="input-data-twice",
                setting=setting,
            )
