"""Faults of a plugin's code are blamed on the plugin, with file and line, before the training."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from errors_help import raises
from faulty_plugin import FILES, faulty_spec, line_of
from plugin_sites import install

from cascadezoo import Cascade
from cascadezoo.build.build import build_cascade
from cascadezoo.cli.main import main
from cascadezoo.data.split import load_split
from cascadezoo.errors import CascadezooError, InputError, PluginError, TrainingError
from cascadezoo.evaluate.features.base import load_extractor, logits_of
from cascadezoo.evaluate.metrics.base import load_metric
from cascadezoo.plugins.manager import get_host
from cascadezoo.spec import load_spec
from cascadezoo.train.loss_sums import LossSums
from cascadezoo.zoo.list import Zoos


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("faulty") / "site", "cascadezoo-faulty", "0.3", FILES)


@pytest.fixture(autouse=True)
def _installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(site))
    get_host.cache_clear()
    yield
    get_host.cache_clear()
    for name in [name for name in sys.modules if name.startswith("cascadezoo_faulty")]:
        del sys.modules[name]


def blamed(error: CascadezooError, file: str, text: str) -> None:
    """Fail unless the error names distribution, version and the line with that text."""
    where = f"cascadezoo_faulty/{file}:{line_of(file, text)}"
    assert error.fields["distribution"] == "cascadezoo-faulty"
    assert error.fields["version"] == "0.3"
    assert str(error.fields["where"]).endswith(where), error.fields["where"]
    assert "cascadezoo-faulty 0.3" in error.what
    assert where in error.what
    assert "internal error" not in str(error)


RAISED = 'raise ValueError(f"broken {where}")'


@pytest.mark.parametrize(
    ("fault", "method"),
    [
        ("init", "__init__"),
        ("groups", "parameter_groups"),
        ("sample", "sample"),
        ("preprocess", "preprocess"),
        ("forward", "forward"),
    ],
)
def test_an_exception_of_a_stage_names_it(fault: str, method: str, tmp_path: Path) -> None:
    with raises(PluginError, "plugin-stage-failed", name="fix", kind="faulty.v1") as caught:
        build_cascade(faulty_spec(fault), tmp_path / "run", device="cpu")
    blamed(caught.value, "stage.py", RAISED)
    assert f"failed in {method}: ValueError: broken {fault}" in caught.value.what
    assert isinstance(caught.value.__cause__, ValueError)
    assert not list((tmp_path / "run").glob("checkpoints/step-*"))


def test_an_exception_of_upstream_target_names_the_stage() -> None:
    cascade = Cascade.from_spec(faulty_spec("upstream_target"))
    with raises(PluginError, "plugin-stage-failed", name="fix") as caught:
        cascade.targets(torch.zeros(2, 3, 8, 8))
    blamed(caught.value, "stage.py", RAISED)
    cascade = Cascade.from_spec(faulty_spec("target-shape"))
    with raises(PluginError, "plugin-output-shape", name="fix", shape=(2, 3, 4, 8)):
        cascade.targets(torch.zeros(2, 3, 8, 8))


def test_a_wrong_signature_is_blamed_on_the_definition() -> None:
    cascade = Cascade.from_spec(faulty_spec())
    type(cascade.stage("fix")).sample = lambda self, upstream: upstream  # type: ignore[assignment]
    with raises(PluginError, "plugin-stage-failed", name="fix") as caught:
        cascade.sample(1)
    assert "TypeError" in caught.value.what
    assert "test_plugins_blame.py" in str(caught.value.fields["where"])


def test_what_passes_unchanged(tmp_path: Path) -> None:
    with raises(TrainingError, "training") as caught:
        build_cascade(faulty_spec("forward-deliberate"), tmp_path / "a", device="cpu")
    assert caught.value.hint == "do something"
    with pytest.raises(KeyboardInterrupt):
        build_cascade(faulty_spec("forward-interrupt"), tmp_path / "b", device="cpu")
    with raises(TrainingError, "training-out-of-memory"):
        build_cascade(faulty_spec("preprocess-memory"), tmp_path / "c", device="cpu")
    # A stage that ends the process is a fault.
    with raises(PluginError, "plugin-stage-failed", name="fix"):
        build_cascade(faulty_spec("forward-exit"), tmp_path / "d", device="cpu")


def test_errors_of_the_caller_are_not_blamed_on_a_stage() -> None:
    cascade = Cascade.from_spec(faulty_spec())
    own = ZeroDivisionError("mine")

    def watch(_: str, __: torch.Tensor) -> None:
        raise own

    def sample(self: Any, upstream: torch.Tensor, request: Any) -> torch.Tensor:
        request.watch(upstream)
        return upstream

    type(cascade.stage("fix")).sample = sample  # type: ignore[method-assign]
    stage = cascade.stage("coarse")
    stage.sampling_options = frozenset()  # type: ignore[misc]
    with pytest.raises(ZeroDivisionError) as caught:
        cascade.sample_from("fix", torch.zeros(1, 3, 8, 8), watch=watch)
    assert caught.value is own


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("output-type", "plugin-output-type"),
        ("estimate-type", "plugin-output-type"),
        ("estimate-shape", "plugin-output-shape"),
        ("estimate-dtype", "plugin-output-shape"),
        ("estimate-nan", "plugin-estimate-not-finite"),
        ("loss-without-gradient", "plugin-loss-without-gradient"),
        ("loss-of-nothing", "plugin-loss-without-gradient"),
        ("late-loss", "plugin-loss-without-gradient"),
        ("loss-shape", "plugin-output-shape"),
        ("loss-number", "plugin-output-type"),
        ("buffer", "plugin-state-unsaved"),
    ],
)
def test_a_wrong_output_ends_the_training(fault: str, code: str, tmp_path: Path) -> None:
    with raises(PluginError, code, name="fix", kind="faulty.v1") as caught:
        build_cascade(faulty_spec(fault), tmp_path / "run", device="cpu")
    blamed(caught.value, "stage.py", "def forward")
    assert not (tmp_path / "run" / "model").exists()


def test_a_detached_estimate_is_refused_where_gradients_must_pass(tmp_path: Path) -> None:
    spec = faulty_spec("estimate-detached")
    # The stage alone may return a detached estimate, because its loss has a gradient.
    assert build_cascade(spec, tmp_path / "alone", device="cpu").model.is_dir()
    spec["training"]["losses"] = [{"kind": "faulty-loss", "stage": "fix"}]
    with raises(PluginError, "plugin-estimate-detached", name="fix") as caught:
        build_cascade(spec, tmp_path / "loss", device="cpu")
    assert "'faulty-loss' needs" in caught.value.what
    joint = faulty_spec("estimate-detached")
    joint["stages"].append({"name": "last", "kind": "faulty.v1"})
    joint["training"]["phases"] = [
        {"name": "joint", "train": ["coarse", "fix", "last"], "steps": 2, "joint": True}
    ]
    with raises(PluginError, "plugin-estimate-detached", name="fix"):
        build_cascade(joint, tmp_path / "joint", device="cpu")


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("sample-shape", "plugin-output-shape"),
        ("sample-count", "plugin-output-shape"),
        ("sample-type", "plugin-output-type"),
        ("sample-nan", "plugin-samples-not-finite"),
    ],
)
def test_every_sampled_batch_is_checked(fault: str, code: str, tmp_path: Path) -> None:
    cascade = Cascade.from_spec(faulty_spec(fault))
    with raises(PluginError, code, name="fix") as caught:
        cascade.sample_from("fix", torch.full((2, 3, 8, 8), 0.5))
    blamed(caught.value, "stage.py", "def sample")
    with raises(PluginError, code, name="fix"):
        build_cascade(faulty_spec(fault), tmp_path / "run", device="cpu")
    assert not list((tmp_path / "run").glob("checkpoints/step-*"))


def test_figures_are_recorded_and_train_nothing(tmp_path: Path) -> None:
    spec = faulty_spec("figure")
    run = build_cascade(spec, tmp_path / "run", device="cpu").run
    events = (run / "events.jsonl").read_text()
    assert '"fix.brightness"' in events
    plain = build_cascade(faulty_spec(), tmp_path / "plain", device="cpu")
    weights = [
        (folder / "model" / "stages" / "fix" / "model.safetensors").read_bytes()
        for folder in (run, plain.run)
    ]
    assert weights[0] == weights[1]


def test_foreign_buffers_are_adopted(tmp_path: Path) -> None:
    result = build_cascade(faulty_spec(), tmp_path / "run", device="cpu")
    cascade = Cascade.from_pretrained(result.model)
    assert torch.equal(cascade.stage("fix").state_dict()["foreign.index"], torch.arange(8.0))
    assert "count" not in cascade.stage("fix").state_dict()
    assert cascade.sample(2).shape == (2, 3, 8, 8)


@pytest.mark.parametrize("fault", ["attribute", "unstorable", "lost-weight"])
def test_a_stage_that_cannot_be_loaded_is_refused_before_the_training(
    fault: str, tmp_path: Path
) -> None:
    with raises(PluginError, "plugin-not-loadable", name="fix"):
        build_cascade(faulty_spec(fault), tmp_path / "run", device="cpu")
    assert not list((tmp_path / "run").glob("checkpoints/step-*"))


@pytest.mark.parametrize(
    ("fault", "text"),
    [("fit", "no such size"), ("advice", "no advice")],
)
def test_faults_of_a_config(fault: str, text: str, tmp_path: Path) -> None:
    with raises(PluginError, "plugin-stage-failed", name="fix") as caught:
        build_cascade(faulty_spec(fault), tmp_path / "run", device="cpu")
    blamed(caught.value, "config.py", text)


def data_spec(fault: str) -> dict[str, Any]:
    data = {"source": "faulty-data", "config": {"fault": fault}}
    return faulty_spec(data=data)


def test_faults_of_a_dataset() -> None:
    with raises(PluginError, "plugin-dataset-failed", name="faulty-data") as caught:
        load_split(load_spec(data_spec("load")), "train")
    blamed(caught.value, "parts.py", "return np.zeros(3)[5]")
    assert "IndexError" in caught.value.what
    for fault, code in (
        ("form", "plugin-dataset-failed"),
        ("type", "plugin-output-type"),
        ("split", "plugin-dataset-split"),
    ):
        with raises(PluginError, code, name="faulty-data") as caught:
            load_split(load_spec(data_spec(fault)), "train")
        blamed(caught.value, "parts.py", "def data")
    with raises(PluginError, "plugin-dataset-failed", name="faulty-data") as caught:
        load_spec(data_spec("info"))
    blamed(caught.value, "config.py", "no such table")


@pytest.mark.parametrize(
    ("fault", "code", "text"),
    [
        ("make", "plugin-loss-failed", "not made"),
        ("forward", "plugin-loss-failed", "not computed"),
        ("shape", "plugin-output-type", "def forward"),
    ],
)
def test_faults_of_a_loss(fault: str, code: str, text: str, tmp_path: Path) -> None:
    spec = faulty_spec()
    loss = {"kind": "faulty-loss", "stage": "fix", "config": {"fault": fault}}
    spec["training"]["losses"] = [loss]
    with raises(PluginError, code, name="faulty-loss") as caught:
        build_cascade(spec, tmp_path / "run", device="cpu")
    blamed(caught.value, "parts.py", text)


def test_faults_of_extractors_metrics_and_zoos() -> None:
    config = get_host().registry.features.get("faulty-features").entry.load_config()
    for fault, code, text in (
        ("load", "plugin-features-failed", "not loaded"),
        ("type", "plugin-output-type", "def features(config"),
    ):
        with raises(PluginError, code, name="faulty-features") as caught:
            load_extractor("faulty-features", config(fault=fault))
        blamed(caught.value, "parts.py", text)
    with raises(PluginError, "plugin-features-attributes") as caught:
        load_extractor("faulty-features", config(fault="nameless"))
    assert caught.value.fields["attributes"] == [
        "name",
        "version",
        "sha256",
        "num_features",
        "input_size",
    ]
    images = torch.zeros(2, 3, 8, 8)
    extractor = load_extractor("faulty-features", config(fault="features"))
    with raises(PluginError, "plugin-features-failed", name="faulty-features") as caught:
        extractor(images)
    blamed(caught.value, "parts.py", "no features")
    with raises(PluginError, "plugin-output-type", name="faulty-features"):
        load_extractor("faulty-features", config(fault="features-type"))(images)
    with raises(PluginError, "plugin-features-failed") as caught:
        logits_of(extractor, torch.zeros(1, 1))
    blamed(caught.value, "parts.py", "no logits")
    with raises(PluginError, "plugin-metric-failed", name="faulty-metric") as caught:
        load_metric("faulty-metric")(None)  # type: ignore[arg-type]
    assert f"parts.py:{line_of('parts.py', 'return 1 / 0')}" in caught.value.what
    zoos = Zoos.load(get_host().registry.zoos)
    assert any("no zoo" in str(fault) and "parts.py:" in str(fault) for fault in zoos.faults)


def run_command(how: str) -> Any:
    return CliRunner().invoke(main, ["faulty-command", how], standalone_mode=False)


def test_faults_of_a_command() -> None:
    with raises(PluginError, "plugin-command-failed", name="faulty-command") as caught:
        raise run_command("error").exception
    blamed(caught.value, "command.py", '{}["missing"]')
    with raises(PluginError, "plugin-command-failed") as caught:
        raise run_command("file").exception
    blamed(caught.value, "command.py", 'open("no-such-file")')
    with raises(InputError, "input"):
        raise run_command("deliberate").exception
    shown = CliRunner().invoke(main, ["faulty-command", "error"])
    assert shown.exit_code == 1
    assert "internal error" not in shown.stderr
    assert "cascadezoo-faulty 0.3" in shown.stderr
    assert CliRunner().invoke(main, ["faulty-command", "usage"]).exit_code == 2
    assert CliRunner().invoke(main, ["faulty-command", "exit"]).exit_code == 7
    assert CliRunner().invoke(main, ["faulty-command", "fine"]).output == "done\n"


def test_flags_are_read_with_the_losses() -> None:
    sums = LossSums()
    sums.add({"a": torch.tensor(1.0), "b": torch.tensor(3.0)})
    sums.flags["stage"] = torch.tensor(False)
    assert sums.take() == {"a": 1.0, "b": 3.0}
    assert sums.finite == {"stage": 0.0}
    assert not sums.flags
