"""``cascadezoo card``: the card written anew, and what a person wrote kept."""

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


def test_what_is_current_stays(invoke, card):
    before = (card / "README.md").read_bytes()
    done = invoke("card", card)
    assert done.exit_code == 0, done.output
    assert "is as it was" in done.stdout
    assert (card / "README.md").read_bytes() == before
    assert invoke("card", card, "--check").exit_code == 0


def test_a_block_that_is_missing_or_old_is_renewed(invoke, card):
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


def test_what_a_person_wrote_is_kept_and_told(invoke, card):
    edit(card, "# lone\n", "# lone\n\nOutside.\n")
    edit(card, "## How to use it", "## How I use it")
    done = invoke("card", card)
    assert done.exit_code == 0
    assert "kept as edited: use" in done.stdout
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


def test_somebodys_own_card_is_not_replaced_unasked(invoke, card):
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


def test_a_card_that_claims_too_much_fails_its_check(invoke, card):
    line = "| `fid.inception.n50000` | FID | 1.79 | |\n"
    edit(card, "| `inception-score", f"{line}| `inception-score")
    done = invoke("card", card, "--check")
    assert done.exit_code == 1
    assert "fid.inception.n50000" in done.stdout


@pytest.mark.parametrize(
    ("spoil", "error"),
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
def test_models_that_are_not_whole(invoke, card, spoil, error):
    spoil(card)
    done = invoke("card", card)
    assert done.exit_code == 2
    check_failed(done, **error)


def test_bundled_models_and_contradictions(invoke):
    done = invoke("card", "shapes-tiny")
    assert done.exit_code == 2
    check_failed(done, "input-model-read-only", name="shapes-tiny")
    assert invoke("card", "shapes-tiny", "--print", "--check").exit_code == 2
    assert invoke("card", "shapes-tiny", "--check").exit_code == 0
