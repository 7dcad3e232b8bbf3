"""Untrusted content of config.json."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tracemalloc

import pytest
from errors_help import raises
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pull_cases import SPEC, WEIGHTS, check_readable, record, stage, with_spec, write_files

from cascadezoo import Cascade
from cascadezoo.cascade.weights import bounded_build
from cascadezoo.errors import CascadezooError, ModelError, ResourceError, SpecError
from cascadezoo.model_folder.layout import parse_config
from cascadezoo.spec import load_spec

pytestmark = pytest.mark.usefixtures("workdir")


HOSTILE = {
    "nested": lambda c: (
        b'{"library_name": "cascadezoo", "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    ),
    "nested a little": lambda c: {**c, "spec": _nest(60)},
    "nested in a stage": lambda c: with_spec(c, stages=[stage(c, x=_nest(30))]),
    "not utf-8": lambda c: b"\xff\xfe{}",
    "twice": lambda c: b'{"library_name": "cascadezoo", "files": {}, "files": {}}',
    "NaN": lambda c: b'{"library_name": "cascadezoo", "x": NaN}',
    "a long number": lambda c: b'{"library_name": "cascadezoo", "x": ' + b"9" * 10_000 + b"}",
    "a list": lambda c: b"[]",
    "nothing": lambda c: b"",
    "65 files": lambda c: {
        **c,
        "files": {f"stages/s{i}/model.safetensors": record(b"") for i in range(65)},
    },
    "keys with escapes": lambda c: {**c, "\x1b[31mred\x07": 1},
    "deep keys with escapes": lambda c: with_spec(c, stages=[stage(c, **{"\x9b2J": 1})]),
    "long keys": lambda c: with_spec(c, **{"k" * 100_000: 1}),
    "ten thousand keys": lambda c: {**c, **{f"k{i}": 1 for i in range(10_000)}},
    "17 stages": lambda c: with_spec(c, stages=[stage(c, f"s{i}") for i in range(17)]),
    "no stage": lambda c: with_spec(c, stages=[]),
    "two of a name": lambda c: with_spec(c, stages=[stage(c), stage(c)]),
    "escapes in values": lambda c: with_spec(c, name="\x1b]0;owned\x07"),
    "an import path": lambda c: with_spec(c, stages=[{**stage(c), "kind": "os:system"}]),
    "escapes in kinds": lambda c: with_spec(c, stages=[{**stage(c), "kind": "\x1b[31mflow.v1"}]),
    "a file as kind": lambda c: with_spec(c, stages=[{**stage(c), "kind": "../../x.v1"}]),
    "wide": lambda c: with_spec(c, stages=[stage(c, channels=2**31 - 1)]),
    "wide and multiplied": lambda c: with_spec(
        c, stages=[stage(c, channels=2**31 - 1, multipliers=[64, 64])]
    ),
    "wide but possible": lambda c: with_spec(c, stages=[stage(c, channels=2**16)]),
    "infinite": lambda c: b'{"library_name": "cascadezoo", "spec": {"seed": 1e999}}',
    "labels": lambda c: with_spec(c, data={**c["spec"]["data"], "num_classes": 1_000_000}),
    "large images": lambda c: with_spec(c, data={**c["spec"]["data"], "size": 65536}),
    "other weights": lambda c: with_spec(c, stages=[stage(c, channels=16)]),
    "the wrong type": lambda c: {**c, "spec": [1]},
    "a digest": lambda c: {**c, "spec_digest": "x"},
    "no files": lambda c: {**c, "files": {}},
    "a negative size": lambda c: {**c, "files": {WEIGHTS: {"sha256": "0" * 64, "size": -1}}},
    "a later format": lambda c: {**c, "format": 2},
}


def _nest(depth):
    node = {}
    for _ in range(depth):
        node = {"a": [node]}
    return node


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_configs(name, files, config, tmp_path):
    hostile = HOSTILE[name](copy.deepcopy(config))
    data = hostile if isinstance(hostile, bytes) else json.dumps(hostile).encode()
    folder = write_files(tmp_path / "model", {**files, "config.json": data})
    Cascade.from_spec(SPEC, device="meta")  # the first one imports 70 MB of torch
    tracemalloc.start()
    try:
        with pytest.raises((ModelError, SpecError, ResourceError)) as raised:
            Cascade.from_pretrained(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20
    check_readable(raised.value)
    assert raised.value.exit_code == 2


MEASURE = """
import json, re, sys
from pathlib import Path
from cascadezoo import Cascade
from cascadezoo.errors import CascadezooError
def peak():  # not ru_maxrss, which starts at the parent's value
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
sound, *hostile = map(Path, sys.argv[1:])
Cascade.from_pretrained(sound)
before = peak()
errors = []
for folder in hostile:
    try:
        Cascade.from_pretrained(folder)
        errors.append(None)
    except CascadezooError as error:
        errors.append(type(error).__name__)
print(json.dumps({"errors": errors, "kib": peak() - before}))
"""


def measure(*folders):
    """The errors of loading folders, and the growth of memory in KiB."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, folders)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return json.loads(done.stdout)


@pytest.mark.slow
def test_config_claims_allocate_no_memory(files, config, tmp_path):
    sound = write_files(tmp_path / "sound", files)
    names = [n for n in HOSTILE if not isinstance(HOSTILE[n](config), bytes)]
    folders = [
        write_files(
            tmp_path / str(i),
            {**files, "config.json": json.dumps(HOSTILE[n](copy.deepcopy(config))).encode()},
        )
        for i, n in enumerate(names)
    ]
    result = measure(sound, *folders)
    assert None not in result["errors"]
    assert result["kib"] < 64 << 10, result


def test_config_with_too_many_layers_is_refused_during_the_build(config):
    """256 blocks a level are allowed; sixteen such stages exceed any real model."""
    wide = {"channels": 8, "multipliers": [1] * 7, "blocks": 256, "attention": [], "size": 64}
    spec = {**config["spec"], "stages": [stage(config, **wide)]}
    resolved = load_spec({**spec, "data": {"source": "shapes", "config": {"size": 64}}})

    def build(spec, most):
        with bounded_build("lone", most):
            Cascade.from_spec(spec, device="meta")

    small = load_spec(config["spec"])
    build(small, 100_000)
    with raises(ModelError, "model-too-many-tensors") as raised:
        build(resolved, 2000)
    check_readable(raised.value)
    # The limit ends with the block.
    assert sum(1 for _ in Cascade.from_spec(small, device="meta").modules()) > 10


# Arbitrary values for any field of a config.
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["flow.v1", "vit.v1", "pixelshuffle", "../x", "\x1b[31m", "a" * 5000])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


def _places(node, way=()):
    yield way
    rows = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, child in rows:
        yield from _places(child, (*way, key))


def _put(node, way, value):
    for key in way[:-1]:
        node = node[key]
    node[way[-1]] = value


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    changes=st.lists(
        st.tuples(st.booleans(), st.integers(0, 10_000), VALUES), min_size=1, max_size=3
    ),
    more=st.none() | st.tuples(st.text(max_size=20), VALUES),
)
def test_any_change_of_a_config_loads_or_fails_cleanly(changes, more, files, config, tmp_path):
    hostile = copy.deepcopy(config)
    if more:
        hostile["spec"][more[0]] = more[1]
    for in_stage, place, value in changes:
        ways = [way for way in _places(hostile) if way]
        inner = [way for way in ways if way[:2] == ("spec", "stages") and len(way) > 3]
        rows = inner if in_stage and inner else ways
        _put(hostile, rows[place % len(rows)], value)
    try:
        text = json.dumps(hostile).encode()
    except UnicodeEncodeError:
        return
    folder = write_files(tmp_path / "model", {**files, "config.json": text})
    tracemalloc.start()
    try:
        Cascade.from_pretrained(folder)
    except CascadezooError as error:
        check_readable(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 64 << 20


@settings(max_examples=200, deadline=None)
@given(text=st.binary(max_size=400) | st.text(max_size=200).map(str.encode))
def test_any_bytes_as_config(text):
    try:
        parse_config(text, "config.json")
    except ModelError as error:
        check_readable(error)
