"""The models that zoos name for commands without a model."""

from __future__ import annotations

import json

import pytest
from errors_help import raises

from cascadezoo.errors import InputError
from cascadezoo.zoo import list as zoo_list
from cascadezoo.zoo.manifest import load, parse_manifest


def test_a_manifest_names_a_default() -> None:
    data = {**load(), "defaults": {"upscale": "shapes-tiny"}}
    manifest = parse_manifest(data, "test")
    assert manifest.defaults == {"upscale": "shapes-tiny"}
    assert json.loads(manifest.to_json())["defaults"] == {"upscale": "shapes-tiny"}
    assert "defaults" not in json.loads(parse_manifest(load(), "test").to_json())
    for defaults in ({"upscale": "nobody"}, {"sample": "shapes-tiny"}):
        with raises(InputError, "input-manifest-invalid"):
            parse_manifest({**load(), "defaults": defaults}, "test")


def test_the_default_of_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    zoos = zoo_list.Zoos(defaults={"upscale": {"one"}, "refine": {"one", "two"}})
    monkeypatch.setattr(zoo_list, "get_zoos", lambda: zoos)
    assert zoo_list.default_model("upscale") == "one"
    assert zoo_list.default_model("other") is None
    with raises(InputError, "input-model-ambiguous", names=["one", "two"]):
        zoo_list.default_model("refine")


def test_the_own_zoo_names_none_yet() -> None:
    assert zoo_list.default_model("upscale") is None
