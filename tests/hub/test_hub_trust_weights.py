"""False weights: pickles, false headers, random bytes. They allocate no memory."""

from __future__ import annotations

import copy
import json
import pickle
import struct
import subprocess
import sys

import pytest
import torch
from errors_help import raises
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pull_cases import SPEC, WEIGHTS, changed, check_readable, record
from safetensors.torch import load, save

from cascadezoo import Cascade
from cascadezoo.cascade.weights import check_room, load_state
from cascadezoo.errors import CascadezooError, ModelError, ResourceError
from cascadezoo.util.limits import LARGEST_HEADER


@pytest.fixture(scope="module")
def true(files):
    """The true weights by name."""
    return load(files[WEIGHTS])


def module():
    """A new stage on the meta device."""
    return Cascade.from_spec(SPEC, device="meta").stage("coarse")


def packed(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def split(data):
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def refused(content, tmp_path, code=None):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError) as raised:
        load_state(BLANK, path, "cpu")
    assert code in (None, raised.value.code)
    assert raised.value.hint
    assert all(t.is_meta for t in BLANK.state_dict().values())
    return check_readable(raised.value)


BLANK = module()
"""Stays on the meta device: refused weights change nothing."""


class Boom:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was read')",)


FORGED = {
    "empty": b"",
    "one byte": b"{",
    "only a length": struct.pack("<Q", 2),
    "a pickle": pickle.dumps(Boom()),
    "a zip": b"PK\x03\x04" + b"\0" * 100,
    "html": b"<!doctype html><html>not found</html>",
    "a pointer of git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n",
    "longer than the file": struct.pack("<Q", 10_000) + b"{}",
    "the longest length": struct.pack("<Q", 2**64 - 1) + b"{}",
    "a negative length": struct.pack("<q", -8) + b"{}",
    "an empty header": packed(b""),
    "no JSON": packed(b"{"),
    "no object": packed(b"[]"),
    "nested": packed(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "no tensors": packed({}),
    "no names": packed({"": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}, b"\0" * 4),
    "not utf-8": packed(b'{"\xff": 1}'),
    "a number": packed({"a": 1}),
    "metadata of the wrong type": packed({"__metadata__": {"a": [1]}}),
}


@pytest.mark.parametrize("name", FORGED)
def test_files_that_are_not_safetensors(name, tmp_path):
    refused(FORGED[name], tmp_path)


def test_pickle_with_a_matching_record_is_not_read(files, tmp_path):
    """The record in config.json matches the pickle."""
    content = pickle.dumps(Boom())
    config = json.loads(files["config.json"])
    rows = {**config["files"], WEIGHTS: record(content)}
    for name, data in {**changed(files, files=rows), WEIGHTS: content}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with raises(ModelError, "model-weights-unreadable"):
        Cascade.from_pretrained(tmp_path)


def one(**changes):
    """Falsify one tensor's row in the header."""

    def forge(header, name):
        header[name] |= changes

    return forge


LIES = {
    "a larger shape": one(shape=[2**40, 2**20]),
    "an endless shape": one(shape=[2**63, 2**63, 2**63]),
    "many dimensions": one(shape=[1] * 10_000),
    "a negative shape": one(shape=[-1, 8]),
    "a shape of floats": one(shape=[1.5]),
    "no shape": one(shape=[]),
    "offsets beyond the file": one(data_offsets=[0, 2**50]),
    "offsets backwards": one(data_offsets=[64, 0]),
    "negative offsets": one(data_offsets=[-64, 0]),
    "offsets that overflow": one(data_offsets=[2**64 - 8, 2**64]),
    "offsets of another tensor": one(data_offsets=[0, 4]),
    "three offsets": one(data_offsets=[0, 4, 8]),
    "another type": one(dtype="F16"),
    "an unknown type": one(dtype="OBJECT"),
    "a small float": one(dtype="F8_E4M3"),
    "a type of the wrong type": one(dtype=7),
    "missing": lambda header, name: header.pop(name),
    "another name": lambda header, name: header.__setitem__("\x1b[31mred", header.pop(name)),
    "a long name": lambda header, name: header.__setitem__("n" * 100_000, header.pop(name)),
    "a module's name": lambda header, name: header.__setitem__("__class__", header.pop(name)),
}


@pytest.mark.parametrize("name", LIES)
def test_false_headers(name, files, tmp_path):
    header, body = split(files[WEIGHTS])
    first = next(k for k in header if k != "__metadata__")
    LIES[name](header, first)
    refused(packed(header, body), tmp_path)


def test_truncated_and_extended_file(files, tmp_path):
    refused(files[WEIGHTS][:-1], tmp_path, "model-weights-unreadable")
    refused(files[WEIGHTS] + b"\0", tmp_path, "model-weights-unreadable")


def test_header_above_the_limit(files, tmp_path):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", LARGEST_HEADER + 1) + b"{")
        file.truncate(LARGEST_HEADER + 100)
    with raises(ModelError, "model-weights-unreadable"):
        load_state(module(), path, "cpu")


def test_values_are_loaded_unchanged(true, tmp_path):
    """A true header loads with any values."""
    state = {k: torch.full_like(v, float("nan")) for k, v in true.items()}
    (tmp_path / "model.safetensors").write_bytes(save(state))
    stage = module()
    load_state(stage, tmp_path / "model.safetensors", "cpu")
    assert all(t.isnan().all() for t in stage.state_dict().values())


ROW = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F16", "I64", "BOOL", "F8_E4M3", "X", 3]),
        "shape": st.lists(st.integers(-1, 2**70), max_size=4) | st.none(),
        "data_offsets": st.lists(st.integers(-(2**65), 2**65), max_size=3),
        "more": st.text(max_size=3),
    },
)
WHOLE = st.dictionaries(st.text(max_size=8), ROW | st.integers() | st.text(max_size=5), max_size=5)
FUZZ = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FUZZ
@given(header=WHOLE, body=st.binary(max_size=64))
def test_any_header_is_refused(header, body, tmp_path):
    refused(packed(header, body), tmp_path)


@FUZZ
@given(content=st.binary(max_size=300))
@example(content=b"\0" * 8)
def test_any_bytes_are_refused(content, tmp_path):
    refused(content, tmp_path)


@FUZZ
@given(data=st.data())
def test_any_change_of_a_header_is_refused_or_harmless(data, files, true, tmp_path):
    header, body = split(files[WEIGHTS])
    names = [k for k in header if k != "__metadata__"]
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(names))
        key = data.draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
        value = data.draw(ROW)
        if name in header and key in value:
            header[name][key] = value[key]
    path = tmp_path / "model.safetensors"
    path.write_bytes(packed(header, body))
    stage = copy.deepcopy(BLANK)
    try:
        load_state(stage, path, "cpu")
    except ModelError as error:
        check_readable(error)
    else:
        assert all(t.equal(true[k]) for k, t in stage.state_dict().items())


@FUZZ
@given(place=st.integers(0, 4000), value=st.integers(0, 255))
def test_any_changed_byte_loads_or_fails_cleanly(place, value, files, tmp_path):
    content = bytearray(files[WEIGHTS])
    content[place] = value
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    try:
        load_state(copy.deepcopy(BLANK), path, "cpu")
    except CascadezooError as error:
        check_readable(error)


MEASURE = """
import json, re, sys
from pathlib import Path
from cascadezoo import Cascade
from cascadezoo.errors import ModelError
from cascadezoo.cascade.weights import load_state
def peak():  # not ru_maxrss, which starts at the parent's value
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
spec, sound, *forged = sys.argv[1:]
stage = Cascade.from_spec(json.loads(spec), device="meta").stage("coarse")
load_state(stage, Path(sound), "cpu")
before = peak()
refused = 0
for path in forged:
    stage = Cascade.from_spec(json.loads(spec), device="meta").stage("coarse")
    try:
        load_state(stage, Path(path), "cpu")
    except ModelError:
        refused += 1
print(json.dumps({"refused": refused, "kib": peak() - before}))
"""


@pytest.mark.slow
def test_header_claims_allocate_no_memory(files, tmp_path):
    contents = list(FORGED.values())
    for lie in LIES.values():
        header, body = split(files[WEIGHTS])
        lie(header, next(k for k in header if k != "__metadata__"))
        contents.append(packed(header, body))
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:  # 64 MiB of header in a file of 1 GiB
        file.write(struct.pack("<Q", 64 << 20) + b"{")
        file.truncate(1 << 30)
    (tmp_path / "sound").write_bytes(files[WEIGHTS])
    paths = [tmp_path / "sound"]
    for index, content in enumerate(contents):
        paths.append(tmp_path / str(index))
        paths[-1].write_bytes(content)
    paths.append(sparse)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(SPEC), *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    result = json.loads(done.stdout)
    assert result["refused"] == len(paths) - 1
    assert result["kib"] < 32 << 10, result


def test_weights_above_the_memory_are_not_read():
    with raises(ResourceError, "resources-memory"):
        check_room(4 + (1 << 43), "vast", "cpu")
    check_room(4, "small", "cpu")
