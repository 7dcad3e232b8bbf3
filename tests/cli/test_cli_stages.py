from __future__ import annotations

import json

import jsonschema
import pytest
from errors_help import check_failed

from cascadezoo.cli.config_fields import describe
from cascadezoo.plugins.manager import get_registry
from cascadezoo.spec import shipped_specs
from cascadezoo.spec.configs import Model

KINDS = get_registry().stages.names()


def test_list_shows_every_kind_once(invoke):
    lines = invoke("stages", "list").stdout.splitlines()
    assert lines[0].split() == ["KIND", "ROLE", "FROM", "SUMMARY"]
    assert [line.split()[0] for line in lines[1:]] == KINDS
    rows = json.loads(invoke("stages", "list", "--json").stdout)
    assert [row["kind"] for row in rows] == KINDS
    assert "cascadezoo" in {row["distribution"] for row in rows}


@pytest.mark.parametrize(
    ("args", "kinds"),
    [
        (
            ["d*"],
            ["dae.v1", "diffusion.v1", "diffusion.v2", "diffusion-sr.v1", "dit.v1", "dit-sr.v1"],
        ),
        (
            ["*.v1", "--role", "upsampler"],
            [
                "diffusion-sr.v1",
                "dit-sr.v1",
                "flow-sr.v1",
                "interpolate.v1",
                "pixelshuffle.v1",
                "resnet-upsampler.v1",
                "transposed.v1",
            ],
        ),
        (["vit.v1", "--role", "upsampler"], []),
    ],
)
def test_list_by_glob_and_role(args, kinds, invoke):
    rows = json.loads(invoke("stages", "list", *args, "--json").stdout)
    assert [row["kind"] for row in rows] == kinds


def test_an_empty_list_is_reported_without_failure(invoke):
    result = invoke("stages", "list", "zz*", "--role", "decoder")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "'zz*'" in result.stderr
    assert "decoder" in result.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_show_explains_every_field(kind, invoke):
    text = invoke("stages", "show", kind).stdout
    result = json.loads(invoke("stages", "show", kind, "--json").stdout)
    model = get_registry().stages.get(kind).entry.load_config()
    assert [f["name"] for f in result["config"] if "." not in f["name"]] == list(model.model_fields)
    assert result["kind"] == kind
    assert result["description"]
    for field in result["config"]:
        assert field["description"], f"{kind}: {field['name']} has no description"
        assert f"\n  {field['name']}: {field['type']}; " in text
    assert max(map(len, text.splitlines())) <= 120


def test_show_uses_the_newest_version(invoke):
    assert invoke("stages", "show", "flow").stdout == invoke("stages", "show", "flow.v1").stdout


def test_show_of_an_unknown_kind_suggests_a_similar_one(invoke):
    result = invoke("stages", "show", "difusion")
    assert result.exit_code == 2
    check_failed(result, "lookup", kind="stage kind", name="difusion", shown="'diffusion.v1'")


def test_descriptions_of_fields():
    from typing import Annotated, Literal

    from pydantic import Field

    class Inner(Model):
        """Inside."""

        gain: Annotated[float, Field(gt=0.0)] = 1.0

    class Config(Model):
        """All sorts."""

        size: Annotated[int, Field(ge=1, le=64)] | None = None
        width: Annotated[int, Field(ge=1, le=2**31 - 1)]
        share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5
        mode: Literal["a", "b"] = "a"
        only: Literal["x"] = "x"
        pair: Annotated[list[float], Field(min_length=2, max_length=2)] = [0.9, 0.99]
        some: Annotated[list[int], Field(min_length=1, max_length=8)] = [1]
        many: Annotated[list[str], Field(min_length=1)] = ["q"]
        few: Annotated[list[str], Field(max_length=3)] = []
        flag: bool = False
        code: Annotated[str, Field(pattern="^[a-z]$")] = "a"
        inner: Inner = Inner()
        by_name: dict[str, int] = {}

    fields = {f.name: f for f in describe(Config.model_json_schema())}
    assert {name: f.type for name, f in fields.items()} == {
        "size": "integer, 1 to 64, or null",
        "width": "integer, at least 1",
        "share": "number, at least 0 and < 1",
        "mode": '"a" or "b"',
        "only": '"x"',
        "pair": "list of 2 (number)",
        "some": "list of 1 to 8 (integer)",
        "many": "list of 1 or more (string)",
        "few": "list of up to 3 (string)",
        "flag": "boolean",
        "code": "string like ^[a-z]$",
        "inner": "object",
        "inner.gain": "number, > 0",
        "by_name": "object",
    }
    assert [name for name, f in fields.items() if f.required] == ["width"]
    assert fields["pair"].default == [0.9, 0.99]
    assert fields["inner"].description == "Inside."


def test_fields_of_a_schema_that_contains_itself_end():
    node = {"properties": {"next": {"$ref": "#/$defs/Node"}}, "type": "object"}
    fields = describe({**node, "$defs": {"Node": node}})
    assert fields[-1].name.count("next") < 12


def test_schema_accepts_the_shipped_specs_and_rejects_an_invalid_one(invoke):
    schema = json.loads(invoke("schema").stdout)
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    for name in shipped_specs():
        spec = json.loads(invoke("specs", "show", name).stdout)
        assert list(validator.iter_errors(spec)) == []
    spec["stages"][0]["config"]["chanels"] = 3
    assert list(validator.iter_errors(spec)) != []


def test_schema_of_a_kind(invoke):
    schema = json.loads(invoke("schema", "--kind", "vit").stdout)
    assert schema["title"] == "vit.v1"
    validator = jsonschema.Draft202012Validator(schema)
    assert list(validator.iter_errors({})) == []
    assert list(validator.iter_errors({"features": 0})) != []
    result = invoke("schema", "--kind", "vitt")
    assert result.exit_code == 2
    check_failed(result, "lookup", name="vitt", shown="'vit.v1'")


def test_specs_list_has_a_description_of_each(invoke):
    rows = json.loads(invoke("specs", "list", "--json").stdout)
    assert [row["name"] for row in rows] == shipped_specs()
    assert all(row["description"] for row in rows)
    text = invoke("specs", "list").stdout
    assert all(row["name"] in text for row in rows)


def test_specs_show_prints_a_valid_spec(invoke, spec_file):
    shown = invoke("specs", "show", "shapes-demo").stdout
    result = invoke("validate", spec_file(shown, "mine.json"))
    assert result.stdout == invoke("validate", "shapes-demo").stdout


@pytest.mark.parametrize("name", ["shapes-dem", "../specs/shapes-demo", "zzz"])
def test_specs_show_of_an_unknown_name(name, invoke):
    result = invoke("specs", "show", name)
    assert result.exit_code == 2
    check_failed(result, "lookup-shipped-spec", name=name)
    assert "'shapes-demo'" in result.stderr or "paper-baseline" in result.stderr
