"""``cascadezoo card``: it renews the card and keeps manual edits."""

from __future__ import annotations

import json
import shutil

import pytest
from errors_help import check_failed

from cascadezoo.model_folder.integrity import check_files
from cascadezoo.model_folder.layout import read_config


@pytest.fixture(scope="module")
def measured(model, tmp_path_factory):
    from cascadezoo import evaluate_model

    folder = shutil.copytree(model, tmp_path_factory.mktemp("measured") / "model")
    assert evaluate_model(folder, ["inception-score"], n=24, extractor="small", save=True).measured
    return folder


@pytest.fixture
def card(measured, tmp_path):
    return shutil.copytree(measured, tmp_path / "model")


def edit(folder, old, new):
    path = folder / "README.md"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_current_card_stays_the_same(invoke, card):
    before = (card / "README.md").read_bytes()
    done = invoke("card", card)
    assert done.exit_code == 0, done.output
    assert json.loads(invoke("card", card, "--json").stdout)["current"] is True
    assert (card / "README.md").read_bytes() == before
    assert invoke("card", card, "--check").exit_code == 0


def test_a_missing_or_outdated_block_is_renewed(invoke, card):
    metrics = json.loads((card / "metrics.json").read_text())
    text = (card / "README.md").read_text()
    start, end = text.index("<!-- cascadezoo:begin limits"), text.index("end limits -->")
    (card / "README.md").write_text(text[:start] + text[end + len("end limits -->") :])
    assert invoke("card", card, "--check").exit_code == 1
    done = invoke("card", card)
    assert "added: limits" in done.stdout
    assert "## Data, limits and intended use" in (card / "README.md").read_text()
    check_files(card, read_config(card), ["README.md", "metrics.json"])
    assert json.loads((card / "metrics.json").read_text()) == metrics


def test_manual_edits_are_kept_and_reported(invoke, card):
    edit(card, "# lone\n", "# lone\n\nOutside.\n")
    edit(card, "## How to use it", "## How I use it")
    done = invoke("card", card)
    assert done.exit_code == 0
    assert ": use (" in done.stdout
    text = (card / "README.md").read_text()
    assert "Outside." in text
    assert "## How I use it" in text
    check_files(card, read_config(card), ["README.md"])
    result = json.loads(invoke("card", card, "--json").stdout)
    assert (result["kept"], result["written"], result["current"]) == (["use"], True, True)
    invoke("card", card, "--force")
    text = (card / "README.md").read_text()
    assert "## How to use it" in text
    assert "Outside." not in text


def test_print_writes_nothing(invoke, card):
    edit(card, "# lone\n", "# lone\n\nOutside.\n")
    before = (card / "README.md").read_bytes()
    done = invoke("card", card, "--print")
    assert done.stdout.startswith("---\n")
    assert "Outside." in done.stdout
    assert (card / "README.md").read_bytes() == before
    data = json.loads(invoke("card", card, "--print", "--json").stdout)
    assert data["card"].startswith("---\n")
    bundled = invoke("card", "shapes-tiny", "--print", "--force")
    assert 'Cascade.from_pretrained("shapes-tiny")' in bundled.stdout


def test_a_foreign_card_is_replaced_only_with_force(invoke, card):
    (card / "README.md").write_text("# mine\n")
    done = invoke("card", card)
    assert done.exit_code == 2
    check_failed(done, "input-card-foreign", shown="--force")
    assert (card / "README.md").read_text() == "# mine\n"
    assert invoke("card", card, "--force").exit_code == 0
    assert "## Figures" in (card / "README.md").read_text()


def test_a_missing_card_is_written(invoke, card):
    (card / "README.md").unlink()
    assert invoke("card", card, "--check").exit_code == 1
    assert invoke("card", card).exit_code == 0
    assert invoke("evaluate", card, "--check", "-q").exit_code == 0


def test_a_card_with_an_unrecorded_figure_fails_its_check(invoke, card):
    line = "| `fid.inception.n50000` | FID | 1.79 | |\n"
    edit(card, "| `inception-score", f"{line}| `inception-score")
    done = invoke("card", card, "--check")
    assert done.exit_code == 1
    assert "fid.inception.n50000" in done.stdout
    assert len(json.loads(invoke("card", card, "--check", "--json").stdout)["faults"]) == 1


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (
            lambda m: (m / "metrics.json").unlink(),
            {"code": "model-damaged", "faults": {"metrics.json": "missing"}},
        ),
        (
            lambda m: (m / "metrics.json").write_text("{"),
            {"code": "model-damaged", "faults": {"metrics.json": "size"}},
        ),
        (lambda m: (m / "README.md").write_bytes(b"\xff"), {"code": "model-card-not-text"}),
        (lambda m: (m / "config.json").write_text("{}"), {"code": "model-config-foreign"}),
    ],
)
def test_damaged_models_are_refused(invoke, card, damage, error):
    damage(card)
    done = invoke("card", card)
    assert done.exit_code == 2
    check_failed(done, **error)


def test_bundled_models_and_contradictions(invoke):
    done = invoke("card", "shapes-tiny")
    assert done.exit_code == 2
    check_failed(done, "input-model-read-only", name="shapes-tiny")
    assert invoke("card", "shapes-tiny", "--print", "--check").exit_code == 2
    assert invoke("card", "shapes-tiny", "--check").exit_code == 0
