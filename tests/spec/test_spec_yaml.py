"""Specs in YAML, and the mistakes in JSON that get a hint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cascadezoo import load_spec
from cascadezoo.errors import SpecError
from cascadezoo.spec import parse_json, read_spec

TEXT = """\
# a cascade of one stage
name: digits
tags: [no, on, "1"]
data:
  source: shapes
stages:
  - name: coarse
    kind: flow.v1
training:
  optimizer: {lr: 1e-4, eps: 1.0e-08, weight_decay: 0}
  ema: null
  batch_size: 64
"""


def write(tmp_path: Path, text: str, name: str = "spec.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["spec.yaml", "spec.yml", "SPEC.YAML"])
def test_a_spec_in_yaml_has_the_values_of_json(tmp_path: Path, name: str) -> None:
    data, source = read_spec(write(tmp_path, TEXT, name))
    assert source.endswith(name)
    assert data == {
        "name": "digits",
        "tags": ["no", "on", "1"],
        "data": {"source": "shapes"},
        "stages": [{"name": "coarse", "kind": "flow.v1"}],
        "training": {
            "optimizer": {"lr": 1e-4, "eps": 1e-8, "weight_decay": 0},
            "ema": None,
            "batch_size": 64,
        },
    }
    spec = load_spec(tmp_path / name).spec
    assert spec.training.optimizer.lr == 1e-4
    assert spec == load_spec(json.loads(json.dumps(data))).spec


def test_a_shipped_spec_survives_yaml(tmp_path: Path) -> None:
    spec = load_spec("shapes-demo").spec
    path = write(tmp_path, yaml.safe_dump(spec.to_dict(), sort_keys=False))
    assert load_spec(path).spec == spec


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.mark.parametrize(
    ("text", "code", "where"),
    [
        ("a: 1\na: 2\n", "not-yaml", "duplicate key 'a' at line 2, column 1"),
        (BOMB, "not-yaml", "anchors and aliases are not supported at line 1"),
        ("a: *b\n", "not-yaml", "anchors and aliases"),
        ("a: !!python/object:os.system x\n", "not-yaml", "tags are not supported"),
        ("a: !!str 1\n", "not-yaml", "tags are not supported"),
        ("? [a]\n: 1\n", "not-yaml", "a key is not text"),
        ("a: [1, 2\n", "not-yaml", "line 2"),
        ("a: 1\n--- \nb: 2\n", "not-yaml", "document"),
        ("- a\n", "not-an-object", "mapping"),
        ("", "not-an-object", "mapping"),
        ("a: \x00", "not-yaml", ""),
        ("a: " + "[" * 50 + "]" * 50, "nested", "deeply"),
        ("a: " + "[" * 5000 + "]" * 5000, "not-yaml", "deeply"),
    ],
)
def test_other_yaml_is_refused(tmp_path: Path, text: str, code: str, where: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_spec(write(tmp_path, text))
    (problem,) = caught.value.problems
    assert problem.code == code
    assert where in problem.message


def test_bytes_that_are_no_text_and_large_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a: \xff\n")
    with pytest.raises(SpecError) as caught:
        read_spec(path)
    assert caught.value.problems[0].code == "not-yaml"
    path.write_bytes(b"# " + b"x" * (1 << 25))
    with pytest.raises(SpecError) as caught:
        read_spec(path)
    assert caught.value.problems[0].code == "too-large"


@pytest.mark.parametrize(
    "value", ["~", "True", "yes", "0x10", "1_000", "2024-01-01", ".5", ".inf", "01"]
)
def test_values_of_yaml_that_json_lacks_are_text(tmp_path: Path, value: str) -> None:
    data, _ = read_spec(write(tmp_path, f"a: {value}\n"))
    assert data == {"a": value}


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('{"a": 1,}', "remove the comma after the last item, in line 1"),
        ('{"a": 1,\n "b": [1, 2,\n ]}', "remove the comma after the last item, in line 2"),
        ('{"a": 1 // one\n}', "JSON has no comments: remove it"),
        ("{'a': 1}", 'JSON quotes text by "double quotes"'),
        ('{"a": None}', "JSON writes null, true and false"),
        ('{"a": 1\n "b": 2}', None),
        ('{"a": "1"\n "b": 2}', "a comma is missing before it"),
        ("name: x", "write it as JSON, { ... }; a spec in YAML is a file whose name ends in .yaml"),
    ],
)
def test_mistakes_in_json_are_explained(text: str, hint: str | None) -> None:
    with pytest.raises(SpecError) as caught:
        parse_json(text, "x.json")
    (problem,) = caught.value.problems
    assert (problem.code, problem.hint) == ("not-json", hint)


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("training.batchsize=64", "did you mean 'batch_size'?"),
        ("training.batch-size=64", "did you mean 'batch_size'?"),
        ("batch_size=64", "did you mean 'training.batch_size' or 'evaluation.batch_size' or "),
        ("stages.up.config.hiden=3", "did you mean 'hidden'?"),
        ("stages.up.knd=3", "did you mean 'kind'?"),
        ("training.phases.0.epoch=3", "did you mean 'epochs'?"),
        ("training.ema.decy=0.9", "did you mean 'decay'?"),
        ("lr=0.9", "did you mean 'training.optimizer.lr' or "),
        ("colour=red", None),
    ],
)
def test_an_unknown_key_gets_a_suggestion(setting: str, hint: str | None) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec("shapes-demo", settings=[setting])
    unknown: list[Any] = [p for p in caught.value.problems if p.code == "extra-forbidden"]
    assert len(unknown) == 1
    if hint is None:
        assert unknown[0].hint is None
    else:
        assert (unknown[0].hint or "").startswith(hint)
