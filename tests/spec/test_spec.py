"""Specs: all faults at once with clean paths; resolving is idempotent; sizes chain."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cascadezoo import errors
from cascadezoo.errors import InputError, SpecError, UnknownNameError
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


def problems(data: Any, **options: Any) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        resolve(data, **options)
    return {p.path: f"{p.message} {p.hint or ''}" for p in caught.value.problems}


def change(data: dict[str, Any], *changes: str) -> dict[str, Any]:
    return apply_settings(data, changes)


@pytest.mark.parametrize("name", shipped_specs())
def test_shipped_specs_resolve_to_themselves(name: str) -> None:
    once = load_spec(name).spec
    again = resolve(once).spec
    assert again == once
    assert resolve(json.loads(once.to_json())).spec.to_json() == once.to_json()
    assert once.name == name
    assert all(s.kind.endswith(".v1") for s in once.stages)


def test_the_shipped_list() -> None:
    assert {
        "shapes-demo",
        "fashion-demo",
        "mnist-demo",
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


def test_every_fault_is_reported_at_once(tiny) -> None:
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
    found = problems(data)
    assert set(found) == {
        "name",
        "colour",
        "training.batch_size",
        "stages.0.kind",
        "stages.1.config.factr",
        "stages.2.config.features",
        "training.phases.0.train.0",
        "data.source",
    }
    assert "did you mean 'diffusion.v1'" in found["stages.0.kind"]
    assert "pip install" in found["stages.0.kind"]
    assert "not a key" in found["colour"]


@pytest.mark.parametrize(
    ("changes", "path", "text"),
    [
        (["stages.0.config.size=7"], "stages.0.config.size", "is 7, but what follows needs 8x8"),
        (["stages.1.config.factor=3"], "stages.1.config.factor", "does not divide the 16 pixels"),
        (["stages.1.config.factor=5"], "stages.1.config.factor", "2, 3, 4"),
        (["stages.2.config.patch_size=5"], "stages.2.config.patch_size", "16"),
        (["stages.0.kind=vit"], "stages.0.kind", "a cascade starts with a generator"),
        (["stages.1.kind=flow", "stages.1.config={}"], "stages.1.kind", "only the first stage"),
        (["stages.2.name=up"], "stages.2.name", "the name of another"),
        (["training.phases.1.name=coarse"], "training.phases.1.name", "the name of another"),
        (["training.phases.1.train.1=nobody"], "training.phases.1.train.1", "there are 'coarse'"),
        (['training.phases.0.stages={"up":{}}'], "training.phases.0.stages.up", "not trained"),
        (["training.phases.0.epochs=3"], "training.phases.0", "exactly one of epochs and steps"),
        (["training.optimizer.lr=-1"], "training.optimizer.lr", "greater than or equal to 0"),
        (['training.optimizer.lr="1"'], "training.optimizer.lr", "valid number, not '1'"),
        (["training.ema.decay=1.0"], "training.ema.decay", "less than 1"),
        (["evaluation.subset_size=65"], "evaluation", "more than the 64 samples"),
        (['training.losses=[{"stage":"x","kind":"lpips"}]'], "training.losses.0.stage", "'x'"),
        (
            ['training.losses=[{"stage":"up","kind":"lpips","config":{"net":"resnet"}}]'],
            "training.losses.0.config.net",
            "'vgg', 'alex' or 'squeeze'",
        ),
        (["stages=[]"], "stages", "at least 1"),
        (["seed=true"], "seed", "valid integer"),
        (["data.size=15"], "stages.2.config.patch_size", "15"),
        (['requires=["no-such-dist>=2"]'], "requires.0", "pip install 'no-such-dist>=2'"),
        (['requires=["pluggy>=900"]'], "requires.0", "--upgrade 'pluggy>=900'"),
        (['requires=["x @ https://example.org/x.whl"]'], "requires.0", "names an address"),
        (['requires=["not a requirement!"]'], "requires.0", "as pip writes them"),
    ],
)
def test_one_fault(tiny, changes, path, text) -> None:
    found = problems(change(tiny, *changes))
    assert path in found, found
    assert text in found[path]


def test_a_missing_kind_names_the_distribution_that_the_spec_requires(tiny) -> None:
    data = change(tiny, "stages.1.kind=gan-up.v1", 'requires=["cascadezoo-gan>=0.2,<1"]')
    found = problems(data)
    assert "pip install 'cascadezoo-gan>=0.2,<1'" in found["stages.1.kind"]


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
    ("text", "message"),
    [
        (b"{", "not valid JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"a": 1, "a": 2}', "'a' is there twice"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 60 + b"1" + b"}" * 60, "nested too deeply"),
        (b" " * (2**20 + 1), "larger than"),
        (b'{"a": ' + b"9" * 5000 + b"}", "integer"),
    ],
)
def test_bad_json(text: bytes, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_json(text, "x.json")


def test_line_and_column_of_broken_json() -> None:
    with pytest.raises(SpecError, match="line 2, column 3"):
        parse_json("{\n  oops: 1}", "x.json")


def test_reading(tmp_path, tiny) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(tiny))
    assert read_spec(path)[0] == tiny
    with pytest.raises(UnknownNameError, match="shapes-demo"):
        read_spec("shapes-dmo")
    with pytest.raises(InputError, match="cannot be read"):
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
    for wrong in ("nothing", "=1", "stages.9.name=x", "stages.nope.name=x", "name.x=1"):
        with pytest.raises(InputError, match="--set"):
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
def test_whatever_stands_anywhere_in_a_spec_is_a_spec_error_or_resolves(path, value) -> None:
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
