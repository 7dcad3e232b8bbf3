"""Which data of a model may be opened: the decision itself, without any command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from errors_help import check_error
from hypothesis import given
from hypothesis import strategies as st

from cascadezoo.errors import DataError
from cascadezoo.model_folder.data_trust import (
    data_refusal,
    names_no_path,
    record_built,
    was_built_here,
)
from cascadezoo.model_folder.layout import ModelConfig
from cascadezoo.plugins import manager
from cascadezoo.plugins.registry import DataEntry, Origin, Registered, Registry
from cascadezoo.spec.configs import DataConfig

TEXTS = st.text(st.characters(exclude_categories=[]), max_size=40) | st.just("x" * 5000)


class UndeclaredConfig(DataConfig):
    """A plugin's dataset that does not declare its paths."""

    place: Any = None


@pytest.fixture(autouse=True, scope="module")
def _plugin() -> Iterator[None]:
    """The registry with a dataset ``undeclared`` of a plugin."""
    entry = DataEntry(name="undeclared", summary="x", impl=f"{__name__}:x", config=f"{__name__}:UndeclaredConfig")  # fmt: skip
    own = manager.get_registry()
    registry = Registry.__new__(Registry)
    registry.__dict__.update(own.__dict__)
    rows = {**own.datasets.rows, "undeclared": Registered(entry, Origin("other", "1.0", "other"))}
    table = type(own.datasets).__new__(type(own.datasets))
    table.__dict__.update({**own.datasets.__dict__, "rows": rows})
    registry.datasets = table
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cascadezoo.model_folder.data_trust.get_registry", lambda: registry)
        yield


def model(source: str = "npz", weights: str = "0" * 64, **config: Any) -> ModelConfig:
    return ModelConfig.model_validate(
        {
            "cascadezoo_version": "0.1.0",
            "spec": {"name": "x", "data": {"source": source, "config": config, "size": 8}},
            "spec_digest": "0" * 64,
            "requires": [],
            "files": {"stages/a/model.safetensors": {"sha256": weights, "size": 1}},
        }
    )


def refusal(config: ModelConfig, *settings: str, requested: bool = True) -> DataError | None:
    return data_refusal(config, config.spec["data"], settings, requested=requested)


@given(path=TEXTS, field=st.sampled_from(["npz.path", "folder.path", "folder.test_path", "mnist.root", "undeclared.place"]))  # fmt: skip
def test_every_path_needs_a_confirmation(path: str, field: str) -> None:
    source, _, name = field.partition(".")
    error = refusal(model(source, **{name: path}))
    check_error(error, DataError, "data-untrusted", name=source, field=f"data.config.{name}")
    assert error is not None
    assert len(str(error)) < 1000
    assert str(error).isprintable() or "\n" in str(error)
    assert "--trust-data" in (error.hint or "")
    assert refusal(model(source, **{name: path}), f"data.config.{name}=mine") is None
    assert refusal(model(source, **{name: path}), "data.config={}") is None
    for other in ("data.size=8", "evaluation.seed=1", "data.config.limit=3", "data.configs=1"):
        assert refusal(model(source, **{name: path}), other) is not None


@given(
    st.recursive(
        st.none() | st.integers() | st.booleans(),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=8,
    ),
    TEXTS,
)
def test_texts_at_any_depth_of_an_undeclared_config_count(plain: Any, text: str) -> None:
    assert refusal(model("undeclared", place=plain)) is None
    for place in ([plain, [text]], {"a": {"b": text}}, {text: 1}, [[[{text: None}]]]):
        assert refusal(model("undeclared", place=place)) is not None


@pytest.mark.parametrize(
    ("source", "config"),
    [("shapes", {"background": "white"}), ("fashion-tiny", {})],
)
def test_data_without_files_are_always_opened(source: str, config: dict[str, Any]) -> None:
    assert refusal(model(source, **config)) is None
    assert refusal(model(source, **config), requested=False) is None
    assert names_no_path(source, config)


def test_downloads_need_a_request() -> None:
    named = model("cifar10", root=None, download=True)
    assert refusal(named) is None
    check_error(refusal(named, requested=False), DataError, "data-not-requested", name="cifar10")
    assert names_no_path("cifar10", {"root": None})
    assert not names_no_path("cifar10", {"root": "/x"})
    assert not names_no_path("undeclared", {})
    assert not names_no_path("sonar", {})


def test_each_path_needs_its_own_confirmation() -> None:
    both = model("folder", path="a", test_path="b")
    error = refusal(both, "data.config.path=mine")
    check_error(error, DataError, "data-untrusted", field="data.config.test_path", path="b")
    assert refusal(both, "data.config.path=mine", "data.config.test_path=too") is None


def test_only_a_record_of_the_user_makes_a_model_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASCADEZOO_CACHE", str(tmp_path / "cache"))
    own = model(path="mine.npz")
    assert not was_built_here(own)
    record_built(own)
    assert was_built_here(own)
    assert refusal(own) is None
    assert refusal(own, requested=False) is None
    others = [
        model(path="other.npz"),
        model(path="mine.npz", limit=3),
        model("folder", path="mine.npz"),
        model(weights="1" * 64, path="mine.npz"),
    ]
    assert not any(was_built_here(other) for other in others)
    renamed = own.model_copy(update={"spec": {**own.spec, "name": "y"}, "cascadezoo_version": "9"})
    assert was_built_here(renamed)


def test_a_cache_that_cannot_be_written_does_not_end_a_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CASCADEZOO_CACHE", str(tmp_path / "file"))
    record_built(model(path="mine.npz"))
    assert not was_built_here(model(path="mine.npz"))
    assert "cannot record" in caplog.text


@pytest.mark.parametrize("data", [{}, {"source": 3}, {"source": "npz", "config": []}, {"source": "sonar", "config": {"path": "x"}}])  # fmt: skip
def test_invalid_data_are_left_to_the_validation(data: dict[str, Any]) -> None:
    assert data_refusal(model(path="x"), json.loads(json.dumps(data))) is None
