"""Specs and configs are read-only, also the dicts and lists inside."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from cascadezoo import CascadeSpec, load_spec
from cascadezoo.spec.frozen import FrozenDict, FrozenList, freeze

CHANGES: dict[str, Callable[[CascadeSpec], Any]] = {
    "a key": lambda spec: spec.stages[0].config.__setitem__("steps", 3),
    "a key inside": lambda spec: spec.stages[0].config["multipliers"].append(4),
    "update": lambda spec: spec.data.config.update(size=16),
    "merge": lambda spec: spec.data.config.__ior__({"size": 16}),
    "pop": lambda spec: spec.data.config.pop("size"),
    "popitem": lambda spec: spec.data.config.popitem(),
    "setdefault": lambda spec: spec.data.config.setdefault("new", 1),
    "clear": lambda spec: spec.data.config.clear(),
    "delete": lambda spec: spec.data.config.__delitem__("size"),
    "append": lambda spec: spec.stages.append(spec.stages[0]),
    "item": lambda spec: spec.training.phases.__setitem__(0, None),  # type: ignore[union-attr, call-overload]
    "delete an item": lambda spec: spec.stages.__delitem__(0),
    "extend": lambda spec: spec.tags.extend(["x"]),
    "add": lambda spec: spec.tags.__iadd__(["x"]),
    "repeat": lambda spec: spec.tags.__imul__(2),
    "insert": lambda spec: spec.stages.insert(0, spec.stages[0]),
    "pop an item": lambda spec: spec.stages.pop(),
    "remove": lambda spec: spec.stages.remove(spec.stages[0]),
    "reverse": lambda spec: spec.stages.reverse(),
    "sort": lambda spec: spec.evaluation.metrics.sort(),
    "clear a list": lambda spec: spec.stages.clear(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_refused(name: str) -> None:
    spec = load_spec("shapes-demo").spec
    before = spec.to_dict()
    with pytest.raises(TypeError, match=r"read-only: change a copy, data = spec.to_dict\(\)"):
        CHANGES[name](spec)
    assert spec.to_dict() == before


def test_a_field_is_refused() -> None:
    spec = load_spec("shapes-demo").spec
    with pytest.raises(ValidationError, match="frozen"):
        spec.seed = 3


def test_the_documented_way_to_change_a_spec() -> None:
    spec = load_spec("shapes-demo").spec
    data = spec.to_dict()
    data["stages"][0]["config"]["steps"] = 3
    data["tags"].append("quick")
    changed = load_spec(data).spec
    assert changed.stages[0].config["steps"] == 3
    assert changed.tags[-1] == "quick"
    assert "quick" not in spec.tags


def test_model_copy_freezes_too() -> None:
    spec = load_spec("shapes-demo").spec.model_copy(update={"tags": ["a"]})
    with pytest.raises(TypeError, match="read-only"):
        spec.tags.append("b")


def test_copies_compare_and_pickle() -> None:
    spec = load_spec("shapes-demo").spec
    for other in (copy.copy(spec), copy.deepcopy(spec), pickle.loads(pickle.dumps(spec))):
        assert other == spec
        with pytest.raises(TypeError, match="read-only"):
            other.stages[0].config["steps"] = 3
    frozen = freeze({"a": [1, {"b": 2}]})
    assert frozen == {"a": [1, {"b": 2}]}
    assert json.dumps(frozen) == '{"a": [1, {"b": 2}]}'
    assert type(frozen) is FrozenDict
    assert type(frozen["a"]) is FrozenList
    assert type(frozen.copy()) is dict
    assert type(frozen | {}) is dict
    assert type(frozen["a"] + [2]) is list
    assert type(frozen["a"][:1]) is list
