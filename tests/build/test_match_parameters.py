"""Widths for a number of parameters: near, monotone, valid, or an error with the nearest number."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from errors_help import check_error, raises
from hypothesis import given, settings
from hypothesis import strategies as st

from cascadezoo.build.match_parameters import (
    MOST_PARAMETERS,
    match_cascade,
    match_parameters,
    settings_between,
)
from cascadezoo.build.plan import make_plan
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.errors import InputError, SpecError
from cascadezoo.plugins.builtin import register_stages
from cascadezoo.spec import apply_settings, load_spec, read_spec

ENTRIES = {entry.name: entry for entry in register_stages()}
WIDE = [name for name, entry in ENTRIES.items() if entry.load_config().widths]
BEFORE = {"name": "before", "kind": "flow.v1"}


def spec(kind: str, config: dict[str, Any] | None = None) -> dict[str, Any]:
    stage = {"name": "it", "kind": kind, "config": config or {}}
    return {
        "name": "matched",
        "data": {"source": "shapes"},
        "stages": [stage] if ENTRIES[kind].role == "generator" else [BEFORE, stage],
        "training": {"losses": []},
        "evaluation": {"extractor": "small"},
    }


def counted(data: dict[str, Any], name: str = "it") -> int:
    stage = Cascade.from_spec(data, device="meta").stage(name)
    return sum(p.numel() for p in stage.parameters())


def test_every_kind_that_learns_has_widths() -> None:
    configs = {name: entry.load_config() for name, entry in ENTRIES.items()}
    without = {name for name, config in configs.items() if not config.widths}
    assert without == {"interpolate.v1", "identity.v1"}
    assert all(configs[name].parameterless for name in without)
    for name in WIDE:
        assert all(field in configs[name].model_fields for field in configs[name].widths)


@pytest.mark.parametrize("kind", WIDE)
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_the_match_is_near_and_valid_or_the_nearest_is_reported(
    kind: str, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, 60).map(lambda power: round(1.5**power)))
    before = spec(kind)
    try:
        after = match_parameters(before, {"it": count})
    except InputError as error:
        check_error(error, InputError, "input-match-unreachable", count=count)
        nearest = error.fields["nearest"]
        assert f"{nearest:,}" in error.what
        assert abs(nearest - count) > 0.1 * count
        after = match_parameters(before, {"it": nearest})
        assert counted(after) == pytest.approx(nearest, rel=0.02)
        return
    assert abs(counted(after) - count) <= 0.1 * count
    assert load_spec(after)
    changed = set(after["stages"][-1]["config"])
    assert changed == set(ENTRIES[kind].load_config().widths)
    assert before == spec(kind), "the argument was changed"


@pytest.mark.parametrize("kind", WIDE)
@settings(max_examples=2, deadline=None)
@given(first=st.integers(30_000, 3_000_000), share=st.floats(1.0, 1.3))
def test_counts_are_monotone(kind: str, first: int, share: float) -> None:
    data = spec(kind)
    counts = []
    for count in (first, round(share * first)):
        try:
            counts.append(counted(match_parameters(data, {"it": count})))
        except InputError:
            return  # test_the_match_is_near_and_valid_or_the_nearest_is_reported
    assert counts[0] <= counts[1]


def test_heads_and_other_constraints_are_respected() -> None:
    data = spec("vit.v1", {"heads": 6, "features": 252})
    config = match_parameters(data, {"it": 400_000})["stages"][1]["config"]
    assert config["features"] % 6 == 0
    assert config["heads"] == 6
    unet = {"channels": 24, "heads": 3, "attention": [16]}
    config = match_parameters(spec("flow.v1", unet), {"it": 900_000})["stages"][0]["config"]
    assert config["channels"] % 3 == 0


def test_round_widths_are_preferred_if_near() -> None:
    data = spec("resnet-refiner.v1")
    for hidden in (16, 40, 72, 128):
        exact = counted(spec("resnet-refiner.v1", {"hidden": hidden}))
        for count in (exact, round(1.01 * exact), round(0.99 * exact)):
            config = match_parameters(data, {"it": count})["stages"][1]["config"]
            assert config == {"hidden": hidden}


def test_widths_of_a_kind_keep_their_ratio() -> None:
    config = match_parameters(spec("diffusion.v1"), {"it": 700_000})["stages"][0]["config"]
    assert config["latent"] == 2 * config["channels"]


@pytest.mark.parametrize(
    ("kind", "count", "error"),
    [
        (
            "identity.v1",
            1000,
            {"code": "input-match-no-parameters", "name": "it", "kind": "identity.v1"},
        ),
        (
            "interpolate.v1",
            1000,
            {"code": "input-match-no-parameters", "name": "it", "kind": "interpolate.v1"},
        ),
        ("vit.v1", 10, {"code": "input-match-unreachable", "count": 10, "nearest": 4035}),
        ("vit.v1", 0, {"code": "input-match-count-invalid", "count": 0}),
        ("vit.v1", MOST_PARAMETERS + 1, {"code": "input-match-count-invalid"}),
    ],
)
def test_counts_that_cannot_be_matched(kind: str, count: int, error: dict[str, object]) -> None:
    with raises(InputError, **error):
        match_parameters(spec(kind), {"it": count})


def test_unknown_stages_and_kinds_without_widths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with raises(InputError, "input-match-stage-unknown", name="that"):
        match_parameters(spec("vit.v1"), {"that": 1000})
    # Like a kind of a plugin that has parameters and states no widths.
    monkeypatch.setattr(ENTRIES["conv-refiner.v1"].load_config(), "widths", ())
    with raises(InputError, "input-match-stage-no-widths", name="it"):
        match_parameters(spec("conv-refiner.v1"), {"it": 1000})
    with pytest.raises(SpecError):
        match_parameters({"name": "x"}, {"it": 1000})


@pytest.mark.parametrize("count", [300_000, 4_256_153, 20_000_000])
def test_a_cascade_is_scaled_by_one_factor(count: int) -> None:
    data = read_spec("paper-baseline")[0]
    matched = match_cascade(data, count)
    before, after = (
        {row.name: row.parameters for row in make_plan(load_spec(d), "cpu").stages}
        for d in (data, matched)
    )
    assert sum(after.values()) == pytest.approx(count, rel=0.03)
    config = {stage["name"]: stage["config"] for stage in matched["stages"]}
    factor = config["coarse"]["latent"] / 256
    assert config["up"]["hidden"] / 256 == pytest.approx(factor, rel=0.02, abs=0.005)
    assert config["refine"]["features"] / 256 == pytest.approx(factor, rel=0.05, abs=0.02)
    assert set(before) == set(after)


def test_a_cascade_with_nothing_to_scale() -> None:
    data = spec("interpolate.v1")
    matched = match_cascade(data, 100_000)
    assert [s["config"] for s in matched["stages"]][1] == {}
    with raises(InputError, "input-match-unreachable"):
        match_cascade(data, 20)


def test_the_settings_reproduce_the_match() -> None:
    data = read_spec("paper-baseline")[0]
    matched = match_parameters(data, {"coarse": 500_000, "up": 120_000})
    rows = settings_between(data, matched)
    assert {row.split("=")[0] for row in rows} == {
        "stages.coarse.config.channels",
        "stages.coarse.config.latent",
        "stages.up.config.hidden",
    }
    assert load_spec(apply_settings(data, rows)).spec == load_spec(matched).spec


# --- the command


@pytest.fixture
def plan(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    from cascadezoo.cli.main import main

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            sys.exit(main(["plan", *arguments]))
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_plan_shows_the_match_and_its_settings(plan: Callable[..., tuple[int, str, str]]) -> None:
    options = ("--match-params", "coarse=500k", "--match-params", "up=0.25M")
    code, out, _ = plan("paper-baseline", *options)
    assert code == 0
    (line,) = (row for row in out.splitlines() if row.startswith("settings: "))
    again = line.removeprefix("settings: ").split()
    code, result, _ = plan("paper-baseline", *again)
    assert code == 0
    assert result == out.split("\nsettings: ")[0]
    code, out, _ = plan("paper-baseline", *options, "--json")
    row = json.loads(out)
    assert [s["parameters"] for s in row["stages"][:2]] == pytest.approx([5e5, 2.5e5], rel=0.03)
    assert [f"--set {s}" for s in row["settings"]] == line.removeprefix("settings: ").replace(
        "--set ", "\0--set "
    ).replace(" \0", "\0").split("\0")[1:]


def test_plan_scales_the_whole_cascade(plan: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = plan("paper-baseline", "--match-params", "1M", "--json")
    assert code == 0
    assert json.loads(out)["parameters"] == pytest.approx(1e6, rel=0.03)


@pytest.mark.parametrize(
    ("counts", "code", "shown"),
    [
        (["x=500k"], "input-match-stage-unknown", "'x'"),
        (["coarse=many"], "usage", "'many'"),
        (["coarse=-5"], "input-match-count-invalid", "-5"),
        (["coarse=nank"], "usage", "'nank'"),
        (["500k", "up=3"], "usage", "STAGE=VALUE"),
        (["refine=12"], "input-match-unreachable", "4,035"),
    ],
)
def test_plan_refuses_with_a_hint(
    plan: Callable[..., tuple[int, str, str]], counts: list[str], code: str, shown: str
) -> None:
    options = [part for text in counts for part in ("--match-params", text)]
    status, out, err = plan("paper-baseline", *options, "--json")
    assert (status, out) == (2, "")
    error = json.loads(err)["error"]
    assert error["code"] == code
    assert shown in error["message"]
    assert error["hint"]
