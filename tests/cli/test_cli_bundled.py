"""No command writes into a model that ships inside the package."""

from __future__ import annotations

import shutil

import pytest
from errors_help import check_failed, raises

from cascadezoo.errors import InputError
from cascadezoo.model_folder.integrity import replace_files
from cascadezoo.model_folder.layout import read_config
from cascadezoo.zoo.list import bundled_folder, find
from cascadezoo.zoo.manifest import read_manifest, write_manifest


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def bundled():
    """The bundled model's folder; it must stay the same to the byte, and is restored if not."""
    folder = bundled_folder(find("shapes-tiny"))
    before = contents(folder)
    siblings = sorted(folder.parent.iterdir())
    yield folder
    after = contents(folder)
    for name in after.keys() - before.keys():
        (folder / name).unlink()
    for name, data in before.items():
        if after.get(name) != data:
            (folder / name).write_bytes(data)
    assert after == before
    assert sorted(folder.parent.iterdir()) == siblings


@pytest.fixture
def edited(bundled, tmp_path):
    """A copy of the model whose card a person edited: publishing it would change the original."""
    copy = shutil.copytree(bundled, tmp_path / "copy")
    with (copy / "README.md").open("a") as card:
        card.write("\nMine.\n")
    return copy


TUNE = ["tune", "shapes-tiny", "--over", "steps", "--values", "steps=1", "-n", 10, "-q"]

CHANGES = {
    "tune --write": [*TUNE, "--write"],
    "evaluate --save": ["evaluate", "shapes-tiny", "--metrics", "inception-score", "-n", 24,
                        "--save", "-q"],
    "card": ["card", "shapes-tiny"],
    "card --force": ["card", "shapes-tiny", "--force"],
}  # fmt: skip


@pytest.mark.parametrize("args", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("by_path", [False, True])
def test_commands_that_change_a_model(invoke, bundled, tmp_path, monkeypatch, args, by_path):
    monkeypatch.chdir(tmp_path)
    args = [bundled if by_path and arg == "shapes-tiny" else arg for arg in args]
    done = invoke(*args)
    assert done.exit_code == 2, done.output
    assert "ships with cascadezoo" in done.stderr
    assert "cascadezoo pull shapes-tiny --to models/shapes-tiny" in done.stderr
    assert list(tmp_path.iterdir()) == []


OUTPUTS = {
    "publish": ["publish", "COPY", "BUNDLED"],
    "pull": ["pull", "COPY", "--to", "BUNDLED"],
    "pull to a subfolder": ["pull", "COPY", "--to", "BUNDLED/copy"],
    "build": ["build", "shapes-tiny", "-o", "BUNDLED/run", "-q"],
    "build --fresh": ["build", "shapes-tiny", "-o", "BUNDLED", "--fresh", "-q"],
    "sweep": ["sweep", "shapes-ablation-tiny", "-o", "BUNDLED/sweep"],
    "tune": [*TUNE, "-o", "BUNDLED"],
    "sample to a picture": ["sample", "shapes-tiny", "-n", 1, "-o", "BUNDLED/samples.png"],
    "sample to a folder": ["sample", "shapes-tiny", "-n", 1, "-o", "BUNDLED/images/"],
    "report": ["report", "shapes-tiny", "-o", "BUNDLED/report.html"],
}


@pytest.mark.parametrize("args", OUTPUTS.values(), ids=OUTPUTS.keys())
def test_commands_that_write_to_a_place(invoke, bundled, edited, args):
    names = {"COPY": str(edited), "BUNDLED": str(bundled)}
    args = [
        str(arg).replace("BUNDLED", names["BUNDLED"]).replace("COPY", names["COPY"]) for arg in args
    ]
    done = invoke(*args)
    assert done.exit_code == 2, done.output
    check_failed(done, "input-path-bundled")


def test_the_functions_below_the_commands_refuse_too(bundled):
    from cascadezoo import Cascade

    with raises(InputError, "input-path-bundled"):
        replace_files(bundled, read_config(bundled), {"README.md": b"mine"})
    with raises(InputError, "input-path-bundled"):
        write_manifest(bundled / "zoo.json", read_manifest())
    with raises(InputError, "input-path-bundled"):
        Cascade.from_pretrained(bundled).save_pretrained(bundled)
