"""Helpers for tests with hostile models."""

from __future__ import annotations

import copy


def write_files(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def check_readable(error):
    """Check that a terminal can show the error."""
    text = str(error)
    assert all(c.isprintable() or c == "\n" for c in text), repr(text)
    assert len(text) < 20_000
    return text


def with_spec(config, **spec):
    return {**config, "spec": {**config["spec"], **spec}}


def stage(config, name="coarse", **settings):
    row = copy.deepcopy(config["spec"]["stages"][0])
    return {**row, "name": name, "config": {**row["config"], **settings}}
