"""Specs: all problems at once with their paths; resolving is idempotent; sizes follow."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from typing import Any

import pytest
from errors_help import raises
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cascadezoo import errors
from cascadezoo.errors import InputError, Problem, SpecError, UnknownNameError
from cascadezoo.spec import (
    CascadeSpec,
    apply_settings,
    load_spec,
    parse_json,
    read_spec,
    resolve,
    shipped_specs,
)

TINY = "diffusion-pixelshuffle-vit-tiny"


@pytest.fixture
def tiny() -> dict[str, Any]:
    return read_spec(TINY)[0]


def problems(data: Any, **options: Any) -> dict[str, Problem]:
    with pytest.raises(SpecError) as caught:
        resolve(data, **options)
    return {p.path: p for p in caught.value.problems}


def change(data: dict[str, Any], *changes: str) -> dict[str, Any]:
    return apply_settings(data, changes)


@pytest.mark.parametrize("name", shipped_specs())
def test_shipped_specs_resolve_to_themselves(name: str) -> None:
    once = load_spec(name).spec
    again = resolve(once).spec
    assert again == once
    assert resolve(json.loads(once.to_json())).spec.to_json() == once.to_json()
    assert once.name == name
    assert all(re.fullmatch(r"[a-z-]+\.v[0-9]+", s.kind) for s in once.stages)


def test_the_shipped_list() -> None:
    assert {
        "shapes-demo",
        "fashion-demo",
        "mnist-demo",
        "cifar10-flow",
        "paper-baseline",
        "paper-baseline-fixed",
        TINY,
    } <= set(shipped_specs())


def test_defaults_are_written_out_and_requires_derived(tiny) -> None:
    spec = resolve(tiny).spec
    config = spec.stages[0].config
    assert config["beta_end"] == 0.02
    assert spec.requires == ["cascadezoo>=0.1.0"]
    assert spec.data.channels == 3
    assert spec.data.num_classes == 8
    phase = spec.training.phases[0]
    assert phase.optimizer.lr == 2e-3
    assert phase.optimizer.betas == [0.9, 0.999]


def test_phase_overrides_keep_the_rest(tiny) -> None:
    data = change(
        tiny, "training.optimizer.weight_decay=0.1", 'training.phases.2.optimizer={"lr":1}'
    )
    spec = resolve(data).spec
    assert spec.training.phases[2].optimizer.lr == 1.0
    assert spec.training.phases[2].optimizer.weight_decay == 0.1
    assert spec.training.phases[1].optimizer.lr == 2e-3


def test_the_studys_phases_are_the_default(tiny) -> None:
    del tiny["training"]["phases"]
    del tiny["training"]["losses"]
    spec = resolve(tiny).spec
    coarse, cascade, joint = spec.training.phases
    assert (coarse.train, coarse.epochs) == (["coarse"], 35)
    assert (cascade.train, cascade.epochs) == (["up", "refine"], 35)
    assert (cascade.teacher_forcing.start, cascade.teacher_forcing.end) == (0.9, 0.1)
    assert (joint.train, joint.joint, joint.epochs) == (["coarse", "up", "refine"], True, 30)
    assert (joint.teacher_forcing.start, joint.teacher_forcing.end) == (0.1, 0.0)
    assert [(x.stage, x.kind, x.config["net"]) for x in spec.training.losses] == [
        ("refine", "lpips", "vgg")
    ]


def test_all_problems_are_reported_at_once(tiny) -> None:
    data = change(
        tiny,
        "name=Bad Name",
        "colour=red",
        "training.batch_size=many",
        "stages.0.kind=difusion",
        "stages.1.config.factr=2",
        "stages.2.config.features=-1",
        "training.phases.0.train.0=nobody",
        "data.source=npzz",
        "evaluation.extractor=inceptoin",
    )
    rows = problems(data)
    assert set(rows) == {
        "name",
        "colour",
        "training.batch_size",
        "stages.0.kind",
        "stages.1.config.factr",
        "stages.2.config.features",
        "training.phases.0.train.0",
        "data.source",
    }
    assert {path: rows[path].code for path in ("stages.0.kind", "colour", "name")} == {
        "stages.0.kind": "lookup",
        "colour": "extra-forbidden",
        "name": "string-pattern-mismatch",
    }
    assert "'diffusion.v1'" in (rows["stages.0.kind"].hint or "")
    assert "pip install" in (rows["stages.0.kind"].hint or "")


@pytest.mark.parametrize(
    ("changes", "path", "code", "shown"),
    [
        (["stages.0.config.size=7"], "stages.0.config.size", "size", "8x8"),
        (["stages.1.config.factor=3"], "stages.1.config.factor", "factor", "16"),
        (["stages.1.config.factor=5"], "stages.1.config.factor", "literal-error", "2, 3, 4"),
        (["stages.2.config.patch_size=5"], "stages.2.config.patch_size", "not-divisible", "16"),
        (["stages.0.kind=vit"], "stages.0.kind", "role-order", "vit.v1"),
        (["stages.1.kind=flow", "stages.1.config={}"], "stages.1.kind", "role-order", "flow.v1"),
        (["stages.2.name=up"], "stages.2.name", "name-taken", "'up'"),
        (["training.phases.1.name=coarse"], "training.phases.1.name", "name-taken", "'coarse'"),
        (
            ["training.phases.1.train.1=nobody"],
            "training.phases.1.train.1",
            "unknown-name",
            "'coarse'",
        ),
        (
            ['training.phases.0.stages={"up":{}}'],
            "training.phases.0.stages.up",
            "unknown-name",
            "'up'",
        ),
        (["training.phases.0.epochs=3"], "training.phases.0", "value-error", "epochs"),
        (["training.optimizer.lr=-1"], "training.optimizer.lr", "greater-than-equal", "-1"),
        (['training.optimizer.lr="1"'], "training.optimizer.lr", "float-type", "'1'"),
        (["training.ema.decay=1.0"], "training.ema.decay", "less-than", "1.0"),
        (["evaluation.subset_size=65"], "evaluation", "value-error", "64"),
        (
            ['training.losses=[{"stage":"x","kind":"lpips"}]'],
            "training.losses.0.stage",
            "unknown-name",
            "'x'",
        ),
        (
            ['training.losses=[{"stage":"up","kind":"lpips","config":{"net":"resnet"}}]'],
            "training.losses.0.config.net",
            "literal-error",
            "'vgg', 'alex' or 'squeeze'",
        ),
        (["stages=[]"], "stages", "too-short", "1"),
        (["seed=true"], "seed", "int-type", "True"),
        (["data.size=15"], "stages.2.config.patch_size", "not-divisible", "15"),
        (
            ['requires=["no-such-dist>=2"]'],
            "requires.0",
            "not-installed",
            "pip install 'no-such-dist>=2'",
        ),
        (['requires=["pluggy>=900"]'], "requires.0", "other-version", "--upgrade 'pluggy>=900'"),
        (
            ['requires=["x @ https://example.org/x.whl"]'],
            "requires.0",
            "requirement-address",
            "https://example.org/x.whl",
        ),
        (
            ['requires=["not a requirement!"]'],
            "requires.0",
            "requirement-form",
            "not a requirement!",
        ),
    ],
)
def test_a_single_problem_has_its_path_code_and_value(tiny, changes, path, code, shown) -> None:
    rows = problems(change(tiny, *changes))
    assert path in rows, rows
    assert rows[path].code == code
    assert shown in str(rows[path])


def test_a_missing_kind_names_the_distribution_that_the_spec_requires(tiny) -> None:
    data = change(tiny, "stages.1.kind=gan-up.v1", 'requires=["cascadezoo-gan>=0.2,<1"]')
    rows = problems(data)
    assert "pip install 'cascadezoo-gan>=0.2,<1'" in (rows["stages.1.kind"].hint or "")


def test_a_model_needs_its_stages_only(tiny) -> None:
    spec = resolve(tiny).spec.to_dict()
    spec["data"]["source"] = "from-a-plugin-that-is-not-here"
    spec["requires"].append("that-plugin>=1")
    assert "data.source" in problems(spec)
    resolved = resolve(spec, for_training=False)
    assert [s.name for s in resolved.stages] == ["coarse", "up", "refine"]


def test_sizes_chain_from_the_end(tiny) -> None:
    del tiny["stages"][0]["config"]["size"]
    tiny["data"]["config"]["size"] = 24
    tiny["stages"][1]["config"]["factor"] = 3
    resolved = resolve(tiny)
    assert [str(s.output) for s in resolved.stages] == ["3x8x8", "3x24x24", "3x24x24"]
    assert resolved.spec.stages[0].config["size"] == 8


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"{", "not-json"),
        (b"[1]", "not-an-object"),
        (b'{"a": 1, "a": 2}', "not-plain-json"),
        (b'{"a": NaN}', "not-plain-json"),
        (b"\xff\xfe\x00", "not-utf8"),
        (b"[" * 100_000, "nested"),
        (b'{"a":' * 60 + b"1" + b"}" * 60, "nested"),
        (b" " * (2**20 + 1), "too-large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not-plain-json"),
    ],
)
def test_bad_json(text: bytes, code: str) -> None:
    with raises(SpecError, "spec", problems={"": code}):
        parse_json(text, "x.json")


def test_line_and_column_of_broken_json() -> None:
    with raises(SpecError, "spec", problems={"": "not-json"}) as caught:
        parse_json("{\n  oops: 1}", "x.json")
    assert "line 2, column 3" in str(caught.value)


def test_reading(tmp_path, tiny) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(tiny))
    assert read_spec(path)[0] == tiny
    with raises(UnknownNameError, "lookup-spec", name="shapes-dmo"):
        read_spec("shapes-dmo")
    with raises(InputError, "input-spec-unreadable"):
        read_spec(tmp_path)
    with pytest.raises(errors.CascadezooError):
        read_spec("a\0b")


def test_settings(tiny) -> None:
    before = deepcopy(tiny)
    data = apply_settings(
        tiny, ["stages.up.config.hidden=8", "stages.2.name=last", "evaluation.in_loop.samples=50"]
    )
    assert data["stages"][1]["config"]["hidden"] == 8
    assert data["stages"][2]["name"] == "last"
    assert data["evaluation"]["in_loop"] == {"samples": 50}
    assert tiny == before
    for wrong, case in (
        ("nothing", "form"),
        ("=1", "form"),
        ("stages.9.name=x", "no-item"),
        ("stages.nope.name=x", "no-item"),
        ("name.x=1", "no-parts"),
    ):
        with raises(InputError, f"input-setting-{case}", setting=wrong):
            apply_settings(tiny, [wrong])


def test_digest_follows_from_what_is_trained(tiny) -> None:
    one = resolve(tiny).spec
    assert (
        resolve(change(tiny, "description=other")).spec.training_digest() == one.training_digest()
    )
    assert resolve(change(tiny, "evaluation.samples=65")).spec.training_digest() == (
        one.training_digest()
    )
    assert resolve(change(tiny, "seed=1")).spec.training_digest() != one.training_digest()
    assert resolve(change(tiny, "description=other")).spec.digest() != one.digest()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


def paths_of(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    rows = [at]
    items = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, value in items:
        rows += paths_of(value, (*at, key))
    return rows


FULL = load_spec(TINY).spec.to_dict()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(paths_of(FULL)[1:]), json_values)
def test_any_value_in_a_spec_resolves_or_raises_a_spec_error(path, value) -> None:
    data = deepcopy(FULL)
    node = data
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    try:
        resolved = resolve(data)
    except SpecError as error:
        assert error.problems
        return
    assert resolve(resolved.spec).spec == resolved.spec


def test_models_are_strict_everywhere() -> None:
    def check(schema: dict[str, Any]) -> None:
        if schema.get("type") == "object" and "properties" in schema:
            assert schema["additionalProperties"] is False, schema["title"]

    schema = CascadeSpec.model_json_schema()
    for part in (schema, *schema["$defs"].values()):
        check(part)
