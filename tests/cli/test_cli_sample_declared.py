"""``sample --option`` and ``stages show`` with options that a plugin's stage declares."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from errors_help import check_failed, raises

from cascadezoo import Cascade
from cascadezoo.errors import InputError
from cascadezoo.plugins.manager import get_host
from cascadezoo.tune.grid import make_grid

FILES = {
    "__init__.py": """
from cascadezoo import StageEntry, hookimpl

@hookimpl
def register_stages():
    return [
        StageEntry(name="level.v1", role="generator", summary="s", impl="cascadezoo_level.stage:Level", config="cascadezoo_level.config:LevelConfig")
    ]
""",
    "config.py": """
from cascadezoo import GeneratorConfig, Option

class LevelConfig(GeneratorConfig):
    '''Grey images.'''
    sampling_options = {"level": Option(float, -1.0, 1.0, "The grey level."), "dark": Option(bool)}
""",
    "stage.py": """
import torch
from cascadezoo import Stage, StageInputs, StageOutput
from cascadezoo_level.config import LevelConfig

class Level(Stage):
    '''Grey images of a level.'''
    Config = LevelConfig

    def __init__(self, config, geometry):
        super().__init__(config, geometry)
        self.shade = torch.nn.Parameter(torch.tensor(0.25))

    def preprocess(self, target, upstream, context):
        return StageInputs(target)

    def forward(self, inputs):
        estimate = self.shade.expand_as(inputs.target)
        return StageOutput(estimate, {"mse": (estimate - inputs.target).square().mean()})

    def sample(self, upstream, request):
        shape = self.geometry.output
        level = request.options.get("level", self.shade)
        level = -1.0 if request.options.get("dark") else level
        ones = torch.ones(request.count, shape.channels, shape.size, shape.size)
        return ones * level
""",
}
SPEC = {
    "name": "level",
    "data": {"source": "shapes", "config": {"size": 8}, "size": 8},
    "stages": [{"name": "grey", "kind": "level.v1"}],
    "training": {"losses": []},
}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "plugins"))
    sites = importlib.import_module("plugin_sites")
    monkeypatch.syspath_prepend(
        str(sites.install(tmp_path / "site", "cascadezoo-level", "1", FILES))
    )
    monkeypatch.chdir(tmp_path)
    get_host.cache_clear()
    yield Cascade.from_spec(SPEC).save_pretrained(tmp_path / "model")
    get_host.cache_clear()
    for name in [name for name in sys.modules if name.startswith("cascadezoo_level")]:
        del sys.modules[name]


def test_declared_options(invoke, model: Path) -> None:
    def drawn(*args: str) -> int:
        result = invoke("sample", model, "-n", 1, "-o", "a.npz", "-q", *args)
        assert result.exit_code == 0, result.stderr
        return int(np.load("a.npz")["arr_0"][0, 0, 0, 0])

    assert drawn() == 159
    assert drawn("--option", "level=0.5") == 191
    assert drawn("--option", "grey.level=-1") == 0
    assert drawn("--option", "level=0.5", "--option", "dark=true") == 0
    cascade = Cascade.from_pretrained(model)
    assert cascade.stage("grey").sampling_options == {"level", "dark"}
    assert float(cascade.sample(1, options={"level": {"grey": 0.5}}).mean()) == 0.5
    # A picture states its options.
    result = invoke("sample", model, "-n", 1, "-o", "b.png", "-q", "--option", "level=0.5")
    assert result.exit_code == 0, result.stderr
    result = invoke("sample", model, "--like", "b.png", "-o", "c.png", "-q")
    assert result.exit_code == 0, result.stderr
    assert Path("b.png").read_bytes() == Path("c.png").read_bytes()


@pytest.mark.parametrize(
    ("text", "code", "shown"),
    [
        ("level=2", "sample-option-invalid", "number, -1 to 1: The grey level."),
        ("level=a", None, "number, -1 to 1"),
        ("dark=1", None, "true or false"),
        ("level", None, "[STAGE.]NAME=VALUE"),
        ("nobody.level=0", None, "grey"),
        ("other=1", "sample-option-unheeded", "level"),
    ],
)
def test_what_is_refused(invoke, model: Path, text: str, code: str | None, shown: str) -> None:
    result = invoke("sample", model, "-n", 1, "-o", "a.npz", "-q", "--option", text)
    assert result.exit_code == 2
    assert shown in result.stderr
    if code is not None:
        check_failed(result, code=code)
    assert not Path("a.npz").exists()


def test_an_option_is_given_once(invoke, model: Path) -> None:
    twice = ("--option", "level=0", "--option", "level=1")
    result = invoke("sample", model, "-n", 1, "-q", *twice)
    assert (result.exit_code, "twice" in result.stderr) == (2, True)
    result = invoke("sample", model, "-n", 1, "-q", "--eta", "0.5", "--option", "eta=0")
    assert (result.exit_code, "--eta" in result.stderr) == (2, True)


def test_tune_searches_over_given_values(model: Path) -> None:
    cascade = Cascade.from_pretrained(model)
    grid = make_grid(cascade, ["level"], {"level": ["-0.5", "1"]})
    assert [dict(row) for row in grid.settings] == [{"level": -0.5}, {"level": 1.0}]
    for text in ("2", "a"):
        with raises(InputError, "input-tune-value", name="level", value=text):
            make_grid(cascade, ["level"], {"level": [text]})
    with raises(InputError, "input-tune-no-values", name="level"):
        make_grid(cascade, ["level"])


def test_stages_show_lists_them(invoke, model: Path) -> None:
    text = invoke("stages", "show", "level").stdout
    assert "options of sample --option:" in text
    assert "level: number, -1 to 1" in text
    assert "The grey level." in text
    data = json.loads(invoke("stages", "show", "level", "--json").stdout)
    assert data["options"][1] == {
        "name": "level",
        "type": "float",
        "low": -1.0,
        "high": 1.0,
        "help": "The grey level.",
    }
    assert json.loads(invoke("stages", "show", "flow.v1", "--json").stdout)["options"] == []
