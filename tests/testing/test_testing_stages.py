"""Each check of a stage finds its fault, and passes valid stages."""

from __future__ import annotations

import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from cascadezoo.plugins.registry import StageEntry
from cascadezoo.spec.configs import ImageShape
from cascadezoo.testing import CheckResult, Report, assert_stage, check_stage
from cascadezoo.testing.stage_checks import NAMES

VALID = '''
"""A valid refiner."""
import torch
from torch import nn
from cascadezoo import Loss, RefinerConfig, Stage, StageInputs, StageOutput

class Config(RefinerConfig):
    """A config."""
    width: int = 4
    """Of the hidden layer."""

class Impl(Stage):
    """A stage."""
    Config = Config

    def __init__(self, config, geometry):
        super().__init__(config, geometry)
        channels = geometry.output.channels
        self.first = nn.Conv2d(channels, config.width, 3, padding=1)
        self.last = nn.Conv2d(config.width, channels, 3, padding=1)

    def make(self, upstream):
        return upstream + self.last(torch.tanh(self.first(upstream))).float()

    def preprocess(self, target, upstream, context):
        return StageInputs(target, upstream, noise=context.draw.randn(len(target), 1, 1, 1))

    def forward(self, inputs):
        estimate = self.make(inputs.upstream + 0.01 * inputs.noise)
        return StageOutput(estimate, {"mse": (estimate - inputs.target).square().mean()})

    def sample(self, upstream, request):
        return self.make(upstream + 0.01 * request.draw.randn(request.count, 1, 1, 1)).clamp(-1, 1)
'''

# The changes of the source, and for each failing check the values that its message shows.
FAULTS = {
    "estimate of another size": (
        (
            "estimate = self.make(",
            "estimate = self.make(",
            "return StageOutput(estimate,",
            "return StageOutput(estimate[..., 1:],",
        ),
        {"shapes": "(4, 3, 16, 15)"},
    ),
    "images out of range": (
        (".clamp(-1, 1)", " * 9"),
        {"shapes": "[-1, 1]"},
    ),
    "loss that is not a scalar": (
        (".square().mean()", ".square().mean(0)"),
        {"shapes": "(3, 16, 16)"},
    ),
    "loss of an unknown group": (
        (
            '{"mse": (estimate - inputs.target).square().mean()}',
            '{"mse": Loss(estimate.mean(), "no")}',
        ),
        {
            "shapes": "'no'",
            "joint-training": "'no'",
        },
    ),
    "no losses": (
        ('{"mse": (estimate - inputs.target).square().mean()}', "{}"),
        {"shapes": "losses"},
    ),
    "not a StageOutput": (
        ("return StageOutput(estimate,", "return (estimate,"),
        {"shapes": "tuple"},
    ),
    "stage that needs labels": (
        ("        return StageInputs(", "        context.labels + 1\n        return StageInputs("),
        {"no-labels": "TypeError"},
    ),
    "branch on the value of a tensor": (
        (
            "    def make(self, upstream):\n",
            "    def make(self, upstream):\n        upstream.max().item() > 9\n",
        ),
        {"plan": "meta"},
    ),
    "parameter that is never used": (
        (
            "        self.last =",
            "        self.idle = nn.Parameter(torch.ones(3))\n        self.last =",
        ),
        {"gradients": "idle"},
    ),
    "parameter in no group": (
        (
            "    def make(",
            "    def parameter_groups(self):\n        return {'generator': list(self.first.parameters())}\n\n    def make(",
        ),
        {"gradients": "last.weight"},
    ),
    "estimate without a gradient": (
        ("return StageOutput(estimate,", "return StageOutput(estimate.detach(),"),
        {"gradients": "estimate"},
    ),
    "estimate that ignores its upstream": (
        (
            "return upstream + self.last(torch.tanh(self.first(upstream))).float()",
            "return 0.1 * upstream.detach() + self.last(torch.tanh(self.first(upstream.detach()))).float()",
        ),
        {"gradients": "upstream"},
    ),
    "step with its own random numbers": (
        (
            "noise=context.draw.randn(len(target), 1, 1, 1)",
            "noise=torch.randn(len(target), 1, 1, 1)",
        ),
        {"determinism": "context.draw"},
    ),
    "samples with their own random numbers": (
        ("request.draw.randn(request.count, 1, 1, 1)", "torch.randn(request.count, 1, 1, 1)"),
        {
            "determinism": "request.draw",
            "batch-split": "request.draw",
        },
    ),
    "images that depend on each other": (
        (
            "    def make(self, upstream):\n",
            "    def make(self, upstream):\n        upstream = upstream + upstream.mean()\n",
        ),
        {"batch-split": "request.draw"},
    ),
    "Python counter that scales the images": (
        (
            "        self.last =",
            "        self.steps = 0\n        self.last =",
            "        estimate = self.make(",
            "        self.steps += self.training\n        estimate = (1 + 0.1 * self.steps) * self.make(",
        ),
        {"resume": "Python attributes"},
    ),
    "Python counter that only sampling uses": (
        (
            "        self.last =",
            "        self.steps = 0\n        self.last =",
            "        estimate = self.make(",
            "        self.steps += self.training\n        estimate = self.make(",
            ".clamp(-1, 1)",
            ".clamp(-1, 1) * (1 / (1 + self.steps))",
        ),
        {"resume": "samples differ", "round-trip": "after saving and loading"},
    ),
    "buffer of forward that is not saved": (
        (
            "        self.last =",
            "        self.register_buffer('seen', torch.zeros((), device='cpu'), persistent=False)\n        self.last =",
            "        estimate = self.make(",
            "        self.seen += 1\n        estimate = self.make(",
        ),
        {"resume": "'seen'", "joint-training": "'seen'"},
    ),
    "seed in forward": (
        (
            "        estimate = self.make(",
            "        torch.manual_seed(0)\n        estimate = self.make(",
        ),
        {"global-rng": "a training step seeds the global generator of torch"},
    ),
    "seed of numpy in sample": (
        (
            "    def sample(self, upstream, request):\n",
            "    def sample(self, upstream, request):\n        import numpy\n        numpy.random.seed(3)\n",
        ),
        {"global-rng": "sample() seeds the global generator of numpy"},
    ),
    "random numbers of Python": (
        (
            "        estimate = self.make(inputs.upstream + 0.01 * inputs.noise)",
            "        import random\n        estimate = self.make(inputs.upstream + 0.01 * random.random())",
        ),
        {"determinism": "context.draw"},
    ),
    "weights outside of the state dict": (
        (
            "        self.last =",
            "        self.gain = [torch.randn(())]\n        self.last =",
            "return upstream +",
            "return upstream * self.gain[0].to(upstream) +",
        ),
        {"save-load": ""},
    ),
    "estimate in half precision": (
        (
            "return upstream + self.last(torch.tanh(self.first(upstream))).float()",
            "return self.last(torch.tanh(self.first(upstream)))",
        ),
        {"bf16": "torch.bfloat16"},
    ),
    "another estimate when compiled": (
        (
            "        return StageOutput(estimate,",
            "        estimate = estimate + torch.compiler.is_compiling()\n"
            "        return StageOutput(estimate,",
        ),
        {"compile": "by 1"},
    ),
    "half precision in the loss": (
        (
            "(estimate - inputs.target).square().mean()",
            "torch.nn.functional.conv2d(estimate, self.first.weight).square().mean()",
        ),
        {"bf16": "'mse'"},
    ),
    "weights that no step changes": (
        (".square().mean()}", ".square().mean() * 0}"),
        {"joint-training": "checked.v1", "gradients": ""},
    ),
    "loss that is not finite": (
        (".square().mean()}", ".square().mean() / 0}"),
        {"joint-training": "checked.mse", "shapes": "'mse'"},
    ),
    "field without a docstring": (
        ('    """Of the hidden layer."""\n', ""),
        {"docs": "'width' of Config"},
    ),
    "stage without a docstring": (
        ('    """A stage."""\n', ""),
        {"docs": "Impl"},
    ),
    "config that changes with each fit": (
        (
            '    """Of the hidden layer."""\n',
            '    """Of the hidden layer."""\n\n    def fit(self, output):\n        return self.model_copy(update={"width": self.width + 1})\n',
        ),
        {"config": "width=5"},
    ),
    "config that fits nothing": (
        (
            '    """Of the hidden layer."""\n',
            '    """Of the hidden layer."""\n\n    def fit(self, output):\n        from cascadezoo import ConfigError\n        raise ConfigError("width", "is odd")\n',
        ),
        {"config": "3x16x16, 3x32x32, 3x64x64: width is odd"},
    ),
}


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    numbers = iter(range(1000))
    modules = []

    def make(source: str) -> StageEntry:
        module = f"checked_{tmp_path.name}_{next(numbers)}".replace("-", "_")
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        modules.append(module)
        return StageEntry(
            name="checked.v1",
            role="refiner",
            summary="s",
            config=f"{module}:Config",
            impl=f"{module}:Impl",
        )

    yield make
    for module in modules:
        sys.modules.pop(module, None)


# The checks in a separate process, and the two that take seconds.
APART = ("config-without-torch", "import-cost", "processes")
SLOW = ("compile", "joint-training", "resume", "round-trip")


@pytest.mark.slow
def test_a_valid_stage_passes(entry) -> None:
    report = check_stage(entry(VALID), skip=APART)
    assert report.ok, report
    states = {r.name: r.state for r in report.results}
    assert list(states.values()).count("skipped") == len(APART)
    assert len(states) == 18
    assert_stage(entry(VALID), size=12, channels=1, num_classes=None, skip=APART)


@pytest.mark.parametrize("case", FAULTS)
def test_each_fault_fails_its_check(case: str, entry) -> None:
    changes, expected = FAULTS[case]
    source = VALID
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert source.count(old) >= 1, old
        source = source.replace(old, new)
    skip = [name for name in (*APART, *SLOW) if name not in expected]
    report = check_stage(entry(source), skip=skip)
    messages = {result.name: result.message for result in report.failures}
    for name, shown in expected.items():
        assert shown in messages[name], report
    with_message = "\n".join(str(result) for result in report.results)
    for result in report.failures:
        assert "\n" not in result.message, with_message


def test_dropout_is_deterministic_enough(entry) -> None:
    source = VALID.replace(
        "torch.tanh(self.first(upstream))",
        "nn.functional.dropout(self.first(upstream), 0.5, self.training)",
    )
    report = check_stage(entry(source), skip=(*APART, *SLOW))
    assert report.ok, report


RIGHT = {
    "batch normalisation": (
        "        self.last =",
        "        self.norm = nn.BatchNorm2d(config.width)\n        self.last =",
        "torch.tanh(self.first(upstream))",
        "torch.tanh(self.norm(self.first(upstream)))",
    ),
    "buffers of other packages": (
        "        self.last =",
        "        self.register_buffer('one', torch.ones(()), persistent=False)\n        self.last =",
        "return upstream +",
        "return upstream * self.one +",
    ),
    "a teacher that is an average": (
        "        self.last =",
        "        self.teacher = nn.Conv2d(channels, channels, 1).requires_grad_(False)\n"
        "        self.student = nn.Conv2d(channels, channels, 1)\n        self.last =",
        "        estimate = self.make(",
        "        with torch.no_grad():\n"
        "            self.teacher.weight.lerp_(self.student.weight, 0.5)\n"
        "        inputs.upstream = inputs.upstream + 0.1 * self.student(inputs.upstream).float()\n"
        "        estimate = self.make(",
        "        return self.make(upstream +",
        "        return self.make(upstream + 0.1 * self.teacher(upstream).float() +",
    ),
    "a codebook that forward moves": (
        "        self.last =",
        "        self.register_buffer('codes', torch.linspace(-1, 1, 4))\n        self.last =",
        "        estimate = self.make(",
        "        with torch.no_grad():\n"
        "            self.codes.lerp_(inputs.target.float().mean().expand(4), 0.1)\n"
        "        estimate = self.make(",
        "        return self.make(upstream +",
        "        return self.make(upstream + 0.01 * self.codes.mean() +",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", RIGHT)
def test_stages_with_state_pass(case: str, entry) -> None:
    changes, source = RIGHT[case], VALID
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert source.count(old) >= 1, old
        source = source.replace(old, new)
    report = check_stage(entry(source), skip=(*APART, "compile"))
    assert report.ok, report


@pytest.mark.slow
def test_two_processes(entry, warm_python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", warm_python)
    everything_else = [name for name in NAMES if name != "processes"]
    assert_stage(entry(VALID), skip=everything_else)
    # The training itself compares state that no optimizer trains.
    source = VALID.replace(
        "        self.last =",
        "        self.mean = nn.Parameter(torch.zeros(()), requires_grad=False)\n        self.last =",
    ).replace(
        "        estimate = self.make(",
        "        self.mean.copy_(inputs.target.mean())\n        estimate = self.make(",
    )
    (result,) = check_stage(entry(source), skip=everything_else).failures
    assert result.message.startswith("a training on two processes fails: ")
    assert "parameter 'mean' that differs between the 2 processes" in result.message


LATENT = '''
import torch
from torch import nn
from cascadezoo import ConfigError, GeneratorConfig, Stage, StageInputs, StageOutput

class Config(GeneratorConfig):
    """A generator of latents only."""

    def fit(self, output):
        if not output.latent:
            raise ConfigError("", "makes latents only")
        return super().fit(output)

class Impl(Stage):
    """A stage."""
    Config = Config

    def __init__(self, config, geometry):
        super().__init__(config, geometry)
        self.scale = nn.Parameter(torch.ones(geometry.output.channels, 1, 1))

    def preprocess(self, target, upstream, context):
        return StageInputs(target, noise=context.draw.randn(*target.shape))

    def forward(self, inputs):
        estimate = self.scale * inputs.noise
        return StageOutput(estimate, {"mse": (estimate - inputs.target).square().mean()})

    def sample(self, upstream, request):
        shape = self.geometry.output
        return self.scale * request.draw.randn(request.count, shape.channels, shape.size, shape.size)
'''


@pytest.mark.slow
def test_a_generator_of_latents(entry) -> None:
    latent = replace(entry(LATENT), role="generator")
    report = check_stage(latent, skip=(*APART, "compile"))
    assert report.ok, report
    report = check_stage(latent, output=ImageShape(2, 4, latent=True), skip=(*APART, "compile"))
    assert report.ok, report


def test_a_neighbour(entry) -> None:
    source = VALID.replace(
        '    """Of the hidden layer."""\n',
        '    """Of the hidden layer."""\n\n    def check_upstream(self, upstream):\n'
        "        from cascadezoo import ConfigError\n"
        '        if type(upstream).__name__ != "DAEConfig":\n'
        '            raise ConfigError("", "needs a dae.v1")\n',
    )
    skip = [name for name in NAMES if name != "joint-training"]
    (failure,) = check_stage(entry(source), skip=skip).failures
    assert "needs a dae.v1" in failure.message
    neighbour = {"kind": "dae.v1", "config": {"channels": 8, "multipliers": [1], "steps": 2}}
    assert_stage(entry(source), neighbour=neighbour, skip=skip)


@pytest.mark.slow
def test_a_config_that_imports_torch_is_reported_with_its_line(entry) -> None:
    results = {r.name: r for r in check_stage(entry(VALID), skip=SLOW).results}
    result = results["config-without-torch"]
    assert not result.ok
    assert "checked_" in result.message
    assert "torch" in result.message
    assert result.message.endswith(".py:3]")


def test_a_slow_import(entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cascadezoo.testing import import_checks as light

    imported = light.import_apart("json:loads")
    assert imported.fault is None
    assert light.check_light(imported) is None
    (tmp_path / "heavy_thing.py").write_text("x = sum(range(60_000_000))\n")
    assert light.check_light(light.import_apart("heavy_thing")) is not None
    (tmp_path / "ending.py").write_text("import os\nos._exit(3)\n")
    assert light.import_apart("ending").fault is not None


def test_errors_are_reported_with_their_place_and_not_raised(entry) -> None:
    source = VALID.replace(
        "        return self.make(upstream +",
        "        raise OSError('no\\nmore')\n        return self.make(upstream +",
    )
    report = check_stage(entry(source), skip=(*APART, *SLOW))
    message = {r.name: r.message for r in report.failures}["shapes"]
    assert message.startswith("OSError: no more [")
    assert ".py:" in message
    with pytest.raises(AssertionError, match="OSError: no more") as caught:
        report.require()
    assert "stage checked.v1" in str(caught.value)


def test_invalid_settings(entry) -> None:
    report = check_stage(entry(VALID), {"widht": 3}, skip=(*APART, *SLOW))
    states = {r.name: r.state for r in report.results}
    assert states["config"] == "failed"
    assert states["shapes"] == "skipped"
    assert "widht: " in str(report)


def test_an_unknown_check(entry) -> None:
    with pytest.raises(ValueError, match="'shape'"):
        check_stage(entry(VALID), skip=["shape"])


def test_a_report_as_text_and_data() -> None:
    report = Report(
        "stage x.v1", (CheckResult("a", ok=True), CheckResult("b", ok=False, message="m"))
    )
    assert str(report).splitlines() == ["stage x.v1", "  ok      a", "  failed  b: m"]
    assert [r.to_dict() for r in report.results][1] == {
        "check": "b",
        "state": "failed",
        "message": "m",
    }
    assert not report.ok


def test_every_check_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
    rows = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert [name for name in rows if name in NAMES] == list(NAMES)
    docstring = " ".join(str(check_stage.__doc__).split())
    assert f"``{'``, ``'.join(NAMES[:-1])}`` and ``{NAMES[-1]}``" in docstring
