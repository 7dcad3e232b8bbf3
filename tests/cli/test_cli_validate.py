from __future__ import annotations

import json
import re

import pytest
from errors_help import check_failed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cascadezoo.cli.output import clean
from cascadezoo.errors import CascadezooError
from cascadezoo.spec import CascadeSpec, shipped_specs


@pytest.mark.parametrize("name", shipped_specs())
def test_shipped_specs_are_valid_and_resolve_to_themselves(name, invoke, spec_file):
    result = invoke("validate", name)
    assert result.exit_code == 0, result.stderr
    assert re.match(rf"{name} is valid: [a-z0-9]+ \([a-z-]+\.v\d+\) \d+", result.stdout)
    resolved = invoke("validate", name, "--resolved")
    again = invoke("validate", spec_file(resolved.stdout), "--resolved")
    assert again.exit_code == 0, again.stderr
    assert again.stdout == resolved.stdout
    CascadeSpec.model_validate(json.loads(again.stdout))


def test_shows_the_cascade_in_one_line(invoke):
    result = invoke("validate", "shapes-demo")
    assert result.stdout == (
        "shapes-demo is valid: coarse (flow.v1) 16 -> up (pixelshuffle.v1) 32"
        " -> refine (vit.v1) 32\n"
    )
    assert result.stderr == ""


@pytest.mark.parametrize("name", shipped_specs())
def test_warnings_are_those_of_the_plan(name, invoke):
    """Only the study's baseline, whose schedule is its own, has a likely mistake."""
    result = json.loads(invoke("validate", name, "--json").stdout)
    lines = [line for line in invoke("validate", name).stdout.splitlines() if "warning: " in line]
    assert len(lines) == len(result["warnings"])
    assert len(lines) == (name == "paper-baseline")


def test_warns_of_settings_that_do_not_fit_together(invoke):
    settings = [
        "stages.coarse.kind=diffusion.v1",
        'stages.coarse.config={"size": 16, "timesteps": 25}',
        'training.phases=[{"name": "all", "train": ["coarse", "up"], "steps": 1}]',
    ]
    arguments = [text for setting in settings for text in ("--set", setting)]
    warnings = json.loads(invoke("validate", "shapes-demo", *arguments, "--json").stdout)[
        "warnings"
    ]
    planned = json.loads(invoke("plan", "shapes-demo", *arguments, "--json").stdout)["warnings"]
    assert planned[: len(warnings)] == warnings
    assert sorted(warning.split(":")[0] for warning in warnings) == [
        "coarse (diffusion.v1)",
        "phase all",
        "refine",
    ]


def test_json_shows_stages_and_digest(invoke):
    result = json.loads(invoke("validate", "shapes-demo", "--json").stdout)
    assert result["valid"] is True
    assert [s["output"] for s in result["stages"]] == ["3x16x16", "3x32x32", "3x32x32"]
    assert [s["input"] for s in result["stages"]] == [None, "3x16x16", "3x32x32"]
    assert result["num_classes"] == 8
    other = json.loads(invoke("validate", "shapes-demo", "--set", "seed=9", "--json").stdout)
    assert other["digest"] != result["digest"]


def test_reads_standard_input(invoke, lone):
    result = invoke("validate", "-", stdin=json.dumps(lone))
    assert result.stdout == "lone is valid: coarse (flow.v1) 8\n"


def test_set_changes_the_spec(invoke):
    result = invoke(
        "validate",
        "shapes-demo",
        "--set",
        "stages.up.config.hidden=64",
        "--set",
        "training.batch_size=7",
        "--set",
        "description=two words",
        "--resolved",
    )
    spec = json.loads(result.stdout)
    assert spec["stages"][1]["config"]["hidden"] == 64
    assert spec["training"]["batch_size"] == 7
    assert spec["description"] == "two words"


def changed(path, value):
    def change(data):
        *parents, last = path
        for part in parents:
            data = data[part]
        data[last] = value

    return change


# A change to a valid spec, the problems that it causes, and values that the message must show.
FAULTS = {
    "unknown key": (changed(["colour"], 1), {"colour": "extra-forbidden"}, []),
    "unknown key of a kind": (
        changed(["stages", 0, "config", "chanels"], 1),
        {"stages.0.config.chanels": "extra-forbidden"},
        [],
    ),
    "unknown kind, similar to a known one": (
        changed(["stages", 0, "kind"], "flwo.v1"),
        {"stages.0.kind": "lookup"},
        ["'flow.v1'", "pip install"],
    ),
    "unknown kind of a required plugin": (
        lambda d: (
            changed(["stages", 0, "kind"], "wavelet.v1")(d),
            changed(["requires"], ["cascadezoo-wavelet>=1.2"])(d),
        ),
        {"stages.0.kind": "lookup", "requires.0": "not-installed"},
        ["pip install 'cascadezoo-wavelet>=1.2'"],
    ),
    "wrong type": (
        changed(["training", "batch_size"], "many"),
        {"training.batch_size": "int-type"},
        ["'many'"],
    ),
    "out of range": (
        changed(["training", "batch_size"], 0),
        {"training.batch_size": "greater-than-equal"},
        [],
    ),
    "size that does not fit the next stage": (
        changed(["stages", 0, "config", "size"], 7),
        {"stages.0.config.size": "size"},
        ["7", "8x8"],
    ),
    "impossible size": (
        changed(["data", "size"], 10**9),
        {"data.size": "less-than-equal"},
        ["65536"],
    ),
    "more channels than an integer": (
        changed(["stages", 0, "config", "channels"], 10**30),
        {"stages.0.config.channels": "less-than-equal"},
        [],
    ),
    "starts without a generator": (
        changed(["stages", 0], {"name": "up", "kind": "pixelshuffle"}),
        {"stages.0.kind": "role-order"},
        ["generator"],
    ),
    "duplicate stage": (
        lambda d: d["stages"].append({"name": "coarse", "kind": "pixelshuffle"}),
        {"stages.1.name": "name-taken"},
        ["'coarse'"],
    ),
    "phase of an unknown stage": (
        changed(["training", "phases", 0, "train"], ["coarse", "fine"]),
        {"training.phases.0.train.1": "unknown-name"},
        ["'fine'", "'coarse'"],
    ),
    "unknown dataset": (
        changed(["data", "source"], "shape"),
        {"data.source": "lookup"},
        ["'shapes'"],
    ),
    "missing data file": (
        changed(["data"], {"source": "npz", "config": {"path": "no/such.npz"}}),
        {"data.config": "data-no-file"},
        ["no/such.npz"],
    ),
    "no stages": (changed(["stages"], []), {"stages": "too-short"}, []),
    "import path as a kind": (
        changed(["stages", 0, "kind"], "os:system"),
        {"stages.0.kind": "lookup"},
        ["'os:system'"],
    ),
    "URL as a requirement": (
        changed(["requires"], ["x @ https://example.org/x.whl"]),
        {"requires.0": "requirement-address"},
        [],
    ),
    "control characters in a name": (
        changed(["name"], "a\x1b[31mb"),
        {"name": "string-pattern-mismatch"},
        ["\\x1b[31m"],
    ),
    "control characters in a kind": (
        changed(["stages", 0, "kind"], "x\x1b]0;t\x07\nError: y"),
        {"stages.0.kind": "lookup"},
        ["\\x1b"],
    ),
    "control characters in a key": (
        lambda d: d.update({"\x1b[2J\u202e\nHint: rm -rf ~": 1}),
        {"\x1b[2J\u202e\nHint: rm -rf ~": "extra-forbidden"},
        ["\\x1b[2J\\u202e\\nHint"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_reported_with_their_path(fault, invoke, lone, spec_file):
    change, problems, shown = FAULTS[fault]
    change(lone)
    path = spec_file(lone)
    result = invoke("validate", path)
    assert result.exit_code == 2
    assert result.stdout == ""
    check_failed(result, "spec", problems=problems, shown=f"Error: {path} ")
    for text in [*(clean(path) for path in problems), *shown]:
        assert text in result.stderr
    # Only lines of the error itself start at the left margin, whatever the spec contains.
    assert [x for x in result.stderr.splitlines()[1:] if not x.startswith(("  ", "Hint: "))] == []
    assert not any(c in result.stderr for c in "\x1b\x07\u202e")

    error = json.loads(invoke("validate", path, "--json").stderr)["error"]
    assert error["code"] == "spec"
    assert len(error["problems"]) >= 1
    assert set(error["problems"][0]) == {"code", "path", "message", "hint"}


def test_all_faults_at_once(invoke, lone, spec_file):
    lone["name"] = "Not A Name"
    lone["stages"][0]["config"]["channels"] = -1
    lone["training"]["batch_size"] = 0
    lone["training"]["phases"][0]["train"] = ["nobody"]
    result = invoke("validate", spec_file(lone))
    for path in ("name", "stages.0.config.channels", "training.batch_size", "training.phases.0"):
        assert f"\n  {path}" in result.stderr


TEXTS = {
    "broken JSON": ('{"name": "x",\n  "data": }', {"code": "spec", "problems": {"": "not-json"}}),
    "empty": ("", {"code": "spec", "problems": {"": "not-json"}}),
    "a list": ("[1]", {"code": "spec", "problems": {"": "not-an-object"}}),
    "duplicate keys": (
        '{"name": "a", "name": "b"}',
        {"code": "spec", "problems": {"": "not-plain-json"}},
    ),
    "NaN": ('{"seed": NaN}', {"code": "spec", "problems": {"": "not-plain-json"}}),
    "infinity": ('{"seed": -Infinity}', {"code": "spec", "problems": {"": "not-plain-json"}}),
    "deep": ("[" * 100_000 + "]" * 100_000, {"code": "spec", "problems": {"": "nested"}}),
    "deep object": ('{"a":' * 60 + "1" + "}" * 60, {"code": "spec", "problems": {"": "nested"}}),
    "large": (" " * (1 << 21) + "{}", {"code": "spec", "problems": {"": "too-large"}}),
    "huge number": (
        '{"seed": ' + "9" * 5000 + "}",
        {"code": "spec", "problems": {"": "not-plain-json"}},
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_text_that_is_not_a_spec(case, invoke, spec_file):
    text, error = TEXTS[case]
    result = invoke("validate", spec_file(text))
    assert result.exit_code == 2
    check_failed(result, **error)
    assert "Traceback" not in result.stderr


def test_bytes_that_are_not_text(invoke, tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b'{"name": "\xff"}')
    result = invoke("validate", path)
    assert result.exit_code == 2
    check_failed(result, "spec", problems={"": "not-utf8"})


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("shapes-dmo", {"code": "lookup-spec", "name": "shapes-dmo"}),
        ("no/such.json", {"code": "lookup-spec", "name": "no/such.json"}),
        (".", {"code": "input-spec-unreadable", "name": "."}),
        ("x\x00y", {"code": "input-spec-unreadable"}),
        ("shapes-demo\x1b[0m", {"code": "lookup-spec", "shown": "\\x1b[0m"}),
    ],
)
def test_unknown_sources(source, error, invoke):
    result = invoke("validate", source)
    assert result.exit_code == 2
    check_failed(result, **error)
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ("training.batch_size", {"code": "input-setting-form", "setting": "training.batch_size"}),
        ("=3", {"code": "input-setting-form", "setting": "=3"}),
        (
            "stages.nobody.config.x=1",
            {"code": "input-setting-no-item", "setting": "stages.nobody.config.x=1"},
        ),
        ("stages.7.name=x", {"code": "input-setting-no-item", "setting": "stages.7.name=x"}),
        ("stages.-1.name=x", {"code": "input-setting-no-item", "setting": "stages.-1.name=x"}),
        ("name.x=1", {"code": "input-setting-no-parts", "setting": "name.x=1"}),
        (
            "training.batch_size=x",
            {"code": "spec", "problems": {"training.batch_size": "int-type"}},
        ),
        (
            "training.batch_size=NaN",
            {"code": "spec", "problems": {"training.batch_size": "int-type"}},
        ),
        ("no.such.path=1", {"code": "spec", "problems": {"no": "extra-forbidden"}}),
        ("..=1", {"code": "spec", "problems": {"": "extra-forbidden"}}),
        ("seed=9223372036854775808", {"code": "spec", "problems": {"seed": "less-than-equal"}}),
        (
            "data.config.limit=[" + "[" * 5000,
            {"code": "spec", "problems": {"data.config.limit": "extra-forbidden"}},
        ),
        (
            "name=a\x1b[1mb",
            {"code": "spec", "problems": {"name": "string-pattern-mismatch"}, "shown": "\\x1b[1m"},
        ),
    ],
)
def test_invalid_settings(setting, error, invoke, lone, spec_file):
    result = invoke("validate", spec_file(lone), "--set", setting)
    assert result.exit_code == 2, result.output
    check_failed(result, **error)
    assert "\x1b" not in result.stderr


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "kind", "config", "stages", "data", "training", "x\x1b"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk, st.sampled_from(["stages", "data", "training", "evaluation", "requires", "name"]))
def test_no_spec_is_an_internal_error(invoke, lone, value, key):
    result = invoke("validate", "-", stdin=json.dumps({**lone, key: value}))
    assert result.exit_code in (0, 2), result.stderr
    assert result.error is None or isinstance(result.error, CascadezooError)
    assert "\x1b" not in result.output
