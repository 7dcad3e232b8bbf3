"""``cascadezoo evaluate``: its output, files and exit codes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest
from errors_help import check_failed

ROOT = Path(__file__).parents[2]
OPTIONS = ["--metrics", "kid", "-n", 24, "--set", "evaluation.subset_size=12", "-q"]


@pytest.fixture(scope="module")
def measured(model, tmp_path_factory):
    from cascadezoo import evaluate_model

    folder = shutil.copytree(model, tmp_path_factory.mktemp("measured") / "model")
    settings = ["evaluation.subset_size=12", "evaluation.subsets=8"]
    assert evaluate_model(folder, ["kid"], n=24, settings=settings, save=True).ok
    return folder


@pytest.fixture
def card(measured, tmp_path):
    return shutil.copytree(measured, tmp_path / "model")


def tampered(folder, **changes):
    path = folder / "metrics.json"
    data = json.loads(path.read_text())
    data["figures"][0].update(changes)
    path.write_text(json.dumps(data))


def test_figures_are_shown(invoke, model):
    done = invoke("evaluate", model, *OPTIONS)
    assert done.exit_code == 0, done.output
    assert "kid.small.n24" in done.stdout
    assert "Kernel Inception Distance, lower is better" in done.stdout
    assert "x 10^-3" in done.stdout
    assert "--save" in done.stderr
    assert not (model / "metrics.json").exists()


def test_figures_as_json(invoke, model):
    done = invoke("evaluate", model, *OPTIONS, "--seed", 3, "--split", "test", "--json")
    data = json.loads(done.stdout)
    figure = data["figures"][0]
    assert (data["ok"], data["problems"], data["saved"]) == (True, [], False)
    assert (figure["name"], figure["seed"], figure["n_real"]) == ("kid.small.n24.test", 3, 24)


def test_the_choice_of_auto_is_shown_and_recorded(invoke, model):
    done = invoke("evaluate", model, *OPTIONS[:-1], "--compile", "auto", "--json")
    assert json.loads(done.stdout)["compiled"] is None
    assert "compiled: nothing (expected to save 0 s" in done.stderr
    done = invoke("evaluate", model, "--check", "--compile", "auto")
    assert done.exit_code == 2
    assert "--compile" in done.stderr


def test_progress_is_on_stderr(invoke, model):
    done = invoke("evaluate", model, *OPTIONS[:-1], "--json")
    assert "sampling 24 images" in done.stderr
    json.loads(done.stdout)


def test_a_requested_metric_that_cannot_be_measured_exits_with_2(invoke, model):
    done = invoke("evaluate", model, "--metrics", "psnr,kid", "-n", 24, "-q")
    assert done.exit_code == 2  # PSNR needs an upsampler
    assert "kid.small.n24" in done.stdout
    assert "\npsnr " in done.stdout
    assert done.stderr.splitlines()[-1].startswith("Error: psnr ")
    done = invoke("evaluate", model, "--metrics", "psnr,kid", "-n", 24, "-q", "--json")
    data = json.loads(done.stdout)
    assert (done.exit_code, data["ok"]) == (2, False)
    assert [row["metric"] for row in data["problems"]] == ["psnr"]


def test_no_metric_to_measure_exits_with_2(invoke, model):
    done = invoke("evaluate", model, "-q")  # its spec names no metrics
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["--metrics", "kd"], {"code": "lookup", "kind": "metric", "name": "kd"}),
        (["--metrics", ","], {"code": "usage", "shown": "metric"}),
        (["--extractor", "tiny"], {"code": "lookup", "kind": "feature extractor", "name": "tiny"}),
        (["--set", "seed=1"], {"code": "input-setting-trained", "setting": "seed=1"}),
        (["-n", "0"], {"code": "usage", "shown": "'0'"}),
        (["--precision", "fp16"], {"code": "usage", "shown": "'fp16'"}),
        (["--check", "-n", "10"], {"code": "usage", "shown": "-n"}),
        (["--check", "--save"], {"code": "usage", "shown": "--save"}),
    ],
)
def test_bad_input(invoke, model, args, error):
    done = invoke("evaluate", model, *args, "-q")
    assert done.exit_code == 2
    check_failed(done, **error)


def test_bundled_models_are_not_written(invoke):
    done = invoke("evaluate", "shapes-tiny", "--save", "-q")
    assert done.exit_code == 2
    check_failed(done, "input-model-read-only", shown="cascadezoo pull shapes-tiny --to")


def test_saved_figures_match_the_schema(invoke, card):
    done = invoke("evaluate", card, "--metrics", "inception-score", "-n", 24, "--save", "-q")
    assert done.exit_code == 0, done.output
    assert "wrote metrics.json and README.md" in done.stdout
    data = json.loads((card / "metrics.json").read_text())
    assert [row["metric"] for row in data["figures"]][:1] == ["kid"]
    schema = json.loads(invoke("schema", "metrics").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(data, schema)
    bundled = ROOT / "cascadezoo" / "zoo" / "models" / "shapes-tiny" / "metrics.json"
    jsonschema.validate(json.loads(bundled.read_text()), schema)
    del data["figures"][0]["value"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema)


def test_the_schema_in_docs_is_current(invoke):
    """To update it: cascadezoo schema metrics > docs/metrics.schema.json."""
    published = (ROOT / "docs" / "metrics.schema.json").read_text()
    assert json.loads(published) == json.loads(invoke("schema", "metrics").stdout)
    assert invoke("schema", "metrics", "--kind", "flow.v1").exit_code == 2
    assert json.loads(invoke("schema").stdout) == json.loads(invoke("schema", "spec").stdout)


def test_check_of_a_correct_card(invoke, card):
    done = invoke("evaluate", card, "--check", "-q")
    assert done.exit_code == 0, done.output
    assert "all 1 figures match" in done.stdout
    assert "not checked" in done.stdout  # the speed
    data = json.loads(invoke("evaluate", card, "--check", "-q", "--json").stdout)
    assert data["ok"]
    assert [row["holds"] for row in data["figures"]] == [True, None]


def test_check_of_a_wrong_figure_shows_its_numbers(invoke, card):
    tampered(card, value=-1.0)
    done = invoke("evaluate", card, "--check", "-q")
    assert done.exit_code == 1
    line = next(row for row in done.stdout.splitlines() if row.startswith("kid.small.n24"))
    assert "-1 " in line
    assert "FAILS" in line
    assert "fault: metrics.json" in done.stdout
    assert "1 of 1 figures do not match" in done.stdout
    data = json.loads(invoke("evaluate", card, "--check", "-q", "--json").stdout)
    (failed,) = [row for row in data["figures"] if row["holds"] is False]
    assert failed["difference"] == pytest.approx(failed["measured"] + 1.0)
    assert set(failed) == {
        *("name", "stated", "measured", "difference", "tolerance", "holds", "reason")
    }


def test_check_of_a_card_with_added_text(invoke, card):
    with (card / "README.md").open("a") as file:
        file.write("\nmine\n")
    assert invoke("evaluate", card, "--check", "-q").exit_code == 0
    assert invoke("card", card).exit_code == 0
    assert invoke("evaluate", card, "--check", "-q").exit_code == 0
    assert "mine" in (card / "README.md").read_text()


def test_the_command_on_the_card_reproduces_the_figure(invoke, card):
    text = (card / "README.md").read_text()
    line = next(row for row in text.splitlines() if "--metrics kid" in row)
    args = line.replace("path/to/lone", str(card)).split()[1:]
    data = json.loads(invoke(*args, "-q", "--json").stdout)
    stated = json.loads((card / "metrics.json").read_text())["figures"][0]
    assert data["figures"][0]["name"] == stated["name"]
    assert data["figures"][0]["value"] == pytest.approx(stated["value"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(datetime.now(tz=UTC).toordinal() % 2 == 0, reason="measured every other day")
def test_check_of_the_bundled_model(cascadezoo):
    done = cascadezoo("evaluate", "shapes-tiny", "--check", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all 1 figures match" in done.stdout


@pytest.mark.slow
def test_ctrl_c_exits_with_130_and_changes_nothing(card, warm_python):
    before = {path: path.read_bytes() for path in card.rglob("*") if path.is_file()}
    size = "evaluation.subset_size=12"
    line = ["evaluate", str(card), "--metrics", "kid", "-n", "1000000", "--save", "--set", size]
    process = subprocess.Popen(
        [warm_python, "-m", "cascadezoo", *line], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while not process.stderr.readline().startswith("sampling"):
        assert process.poll() is None
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    process.stderr.close()
    assert {path: path.read_bytes() for path in card.rglob("*") if path.is_file()} == before
