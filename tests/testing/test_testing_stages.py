"""Each check of a stage finds what it is there for, and lets the rest pass."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from cascadezoo.plugins.registry import StageEntry
from cascadezoo.testing import CheckResult, Report, assert_stage, check_stage
from cascadezoo.testing.stage_checks import NAMES

SOUND = '''
"""A sound refiner."""
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

# What is changed, which check must fail and what it must say.
SPOILT = {
    "estimate of another size": (
        (
            "estimate = self.make(",
            "estimate = self.make(",
            "return StageOutput(estimate,",
            "return StageOutput(estimate[..., 1:],",
        ),
        {
            "shapes": "the estimate is torch.float32 (4, 3, 16, 15), not torch.float32 (4, 3, 16, 16)"
        },
    ),
    "images out of range": (
        (".clamp(-1, 1)", " * 9"),
        {"shapes": "sample() leaves [-1, 1]"},
    ),
    "loss that is no scalar": (
        (".square().mean()", ".square().mean(0)"),
        {"shapes": "the loss 'mse' is torch.float32 (3, 16, 16), not torch.float32 ()"},
    ),
    "loss of an unknown group": (
        (
            '{"mse": (estimate - inputs.target).square().mean()}',
            '{"mse": Loss(estimate.mean(), "no")}',
        ),
        {
            "shapes": "the loss 'mse' is of group 'no'; there are generator",
            "joint-training": "'no'",
        },
    ),
    "no losses": (
        ('{"mse": (estimate - inputs.target).square().mean()}', "{}"),
        {"shapes": "forward gives no losses"},
    ),
    "not a StageOutput": (
        ("return StageOutput(estimate,", "return (estimate,"),
        {"shapes": "forward gives a tuple, not a StageOutput"},
    ),
    "labels are needed": (
        ("        return StageInputs(", "        context.labels + 1\n        return StageInputs("),
        {"no-labels": "TypeError"},
    ),
    "branch on what a tensor holds": (
        (
            "    def make(self, upstream):\n",
            "    def make(self, upstream):\n        upstream.max().item() > 9\n",
        ),
        {"plan": "item() cannot be called on meta tensors"},
    ),
    "parameter that is never used": (
        (
            "        self.last =",
            "        self.idle = nn.Parameter(torch.ones(3))\n        self.last =",
        ),
        {"gradients": "the losses of group 'generator' do not reach idle"},
    ),
    "parameter in no group": (
        (
            "    def make(",
            "    def parameter_groups(self):\n        return {'generator': list(self.first.parameters())}\n\n    def make(",
        ),
        {"gradients": "last.weight is in no group"},
    ),
    "estimate without a gradient": (
        ("return StageOutput(estimate,", "return StageOutput(estimate.detach(),"),
        {"gradients": "the estimate has no gradient"},
    ),
    "estimate that ignores its upstream": (
        (
            "return upstream + self.last(torch.tanh(self.first(upstream))).float()",
            "return 0.1 * upstream.detach() + self.last(torch.tanh(self.first(upstream.detach()))).float()",
        ),
        {"gradients": "the estimate does not follow from the upstream image"},
    ),
    "step that draws for itself": (
        (
            "noise=context.draw.randn(len(target), 1, 1, 1)",
            "noise=torch.randn(len(target), 1, 1, 1)",
        ),
        {"determinism": "a training step draws other numbers each time; draw only by context.draw"},
    ),
    "images that are drawn otherwise": (
        ("request.draw.randn(request.count, 1, 1, 1)", "torch.randn(request.count, 1, 1, 1)"),
        {
            "determinism": "sample() draws other numbers each time",
            "batch-split": "images differ by",
        },
    ),
    "images that see each other": (
        (
            "    def make(self, upstream):\n",
            "    def make(self, upstream):\n        upstream = upstream + upstream.mean()\n",
        ),
        {"batch-split": "images differ by"},
    ),
    "constant on the device of the moment": (
        (
            "        self.last =",
            "        self.register_buffer('one', torch.ones(()), persistent=False)\n        self.last =",
        ),
        {"save-load": "the buffer one is not saved and has no values after loading: make it with"},
    ),
    "weights that are kept elsewhere": (
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
        {"bf16": "under bf16 autocast the estimate is torch.bfloat16; end with .float()"},
    ),
    "another estimate where it is compiled": (
        (
            "        return StageOutput(estimate,",
            "        estimate = estimate + torch.compiler.is_compiling()\n"
            "        return StageOutput(estimate,",
        ),
        {"compile": "compiled, the estimate differs by 1"},
    ),
    "half precision in the loss": (
        (
            "(estimate - inputs.target).square().mean()",
            "torch.nn.functional.conv2d(estimate, self.first.weight).square().mean()",
        ),
        {"bf16": "the loss 'mse' is torch.bfloat16, not float32"},
    ),
    "weights that no step changes": (
        (".square().mean()}", ".square().mean() * 0}"),
        {"joint-training": "4 steps of training change no weight of checked.v1", "gradients": ""},
    ),
    "loss that is no number": (
        (".square().mean()}", ".square().mean() / 0}"),
        {"joint-training": "checked.mse is inf", "shapes": "the loss 'mse' is not finite"},
    ),
    "field without a docstring": (
        ('    """Of the hidden layer."""\n', ""),
        {"docs": "the field 'width' of Config has no docstring"},
    ),
    "stage without a docstring": (
        ('    """A stage."""\n', ""),
        {"docs": "has no docstring"},
    ),
    "config that changes when it is fitted again": (
        (
            '    """Of the hidden layer."""\n',
            '    """Of the hidden layer."""\n\n    def fit(self, output):\n        return self.model_copy(update={"width": self.width + 1})\n',
        ),
        {"config": "a resolved config does not resolve to itself"},
    ),
    "config that fits nothing": (
        (
            '    """Of the hidden layer."""\n',
            '    """Of the hidden layer."""\n\n    def fit(self, output):\n        from cascadezoo import ConfigError\n        raise ConfigError("width", "is odd")\n',
        ),
        {"config": "fits no images of 16x16, 32x32, 64x64: width is odd; give size="},
    ),
}


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    numbers = iter(range(1000))
    made = []

    def make(source: str, light: bool = True) -> StageEntry:
        module = f"checked_{tmp_path.name}_{next(numbers)}".replace("-", "_")
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        made.append(module)
        return StageEntry(
            name="checked.v1",
            role="refiner",
            summary="s",
            config=f"{module}:Config",
            impl=f"{module}:Impl",
        )

    yield make
    for module in made:
        sys.modules.pop(module, None)


# Those that need a process of their own, and the two that take seconds, where they are not meant.
APART = ("config-without-torch", "import-cost")
SLOW = ("compile", "joint-training")


def test_a_sound_stage_passes(entry) -> None:
    report = check_stage(entry(SOUND), skip=APART)
    assert report.ok, report
    states = {r.name: r.state for r in report.results}
    assert list(states.values()).count("skipped") == len(APART)
    assert len(states) == 14
    assert_stage(entry(SOUND), size=12, channels=1, num_classes=None, skip=APART)


@pytest.mark.parametrize("case", SPOILT)
def test_each_fault_is_found_by_its_check(case: str, entry) -> None:
    changes, wanted = SPOILT[case]
    source = SOUND
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert source.count(old) >= 1, old
        source = source.replace(old, new)
    skip = [name for name in (*APART, *SLOW) if name not in wanted]
    report = check_stage(entry(source), skip=skip)
    found = {result.name: result.message for result in report.failures}
    for name, message in wanted.items():
        assert message in found.get(name, "not found"), report
    assert set(wanted) <= set(found)
    with_message = "\n".join(str(result) for result in report.results)
    for result in report.failures:
        assert "\n" not in result.message, with_message


def test_dropout_is_no_lack_of_determinism(entry) -> None:
    source = SOUND.replace(
        "torch.tanh(self.first(upstream))",
        "nn.functional.dropout(self.first(upstream), 0.5, self.training)",
    )
    report = check_stage(entry(source), skip=(*APART, *SLOW))
    assert report.ok, report


def test_a_config_that_imports_torch_is_told_with_its_line(entry) -> None:
    found = {r.name: r for r in check_stage(entry(SOUND), skip=SLOW).results}
    result = found["config-without-torch"]
    assert not result.ok
    assert result.message.startswith("checked_")
    assert "imports torch [" in result.message
    assert result.message.endswith(".py:3]")


def test_an_import_that_takes_long(entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cascadezoo.testing import import_checks as light

    imported = light.import_apart("json:loads")
    assert imported.fault is None
    assert light.check_light(imported) is None
    (tmp_path / "heavy_thing.py").write_text("x = sum(range(60_000_000))\n")
    assert "s of processor time" in str(light.check_light(light.import_apart("heavy_thing")))
    (tmp_path / "ending.py").write_text("import os\nos._exit(3)\n")
    assert "ends Python" in str(light.import_apart("ending"))


def test_what_fails_is_reported_with_its_place_and_never_raised(entry) -> None:
    source = SOUND.replace(
        "        return self.make(upstream +",
        "        raise OSError('no\\nmore')\n        return self.make(upstream +",
    )
    report = check_stage(entry(source), skip=(*APART, *SLOW))
    message = {r.name: r.message for r in report.failures}["shapes"]
    assert message.startswith("OSError: no more [")
    assert ".py:" in message
    with pytest.raises(
        AssertionError, match=r"stage checked.v1 fails \d+ of its checks:\n  failed  "
    ) as caught:
        report.require()
    assert "OSError: no more" in str(caught.value)


def test_settings_that_do_not_validate(entry) -> None:
    report = check_stage(entry(SOUND), {"widht": 3}, skip=(*APART, *SLOW))
    states = {r.name: r.state for r in report.results}
    assert states["config"] == "failed"
    assert states["shapes"] == "skipped"
    assert "widht: " in str(report)


def test_a_check_that_there_is_not(entry) -> None:
    with pytest.raises(ValueError, match="there is no check 'shape'; there are config, "):
        check_stage(entry(SOUND), skip=["shape"])


def test_a_report_tells_what_it_is() -> None:
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
    told = " ".join(str(check_stage.__doc__).split())
    assert f"``{'``, ``'.join(NAMES[:-1])}`` and ``{NAMES[-1]}``" in told
