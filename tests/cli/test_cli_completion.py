"""Shell completion, as the shells call it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cascadezoo.spec import shipped_specs

PUBLISHED = Path(__file__).parents[1] / "published" / "tiny"


def complete(line: str, folder: Path, *, shell: str = "bash") -> list[str]:
    """The completions of the last word of a command line."""
    words = line.split(" ")
    env = {
        **os.environ,
        "_CASCADEZOO_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    code = "from cascadezoo.cli.main import main; main(prog_name='cascadezoo')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return [row.partition(",")[2] for row in done.stdout.splitlines() if row]


def test_specs(tmp_path: Path) -> None:
    (tmp_path / "shapes-mine.json").write_text("{}")
    (tmp_path / "shapes-notes.txt").write_text("")
    (tmp_path / "shapes-folder").mkdir()
    shipped = [name for name in shipped_specs() if name.startswith("shapes")]
    rows = complete("cascadezoo build shapes", tmp_path)
    assert rows == [*shipped, "shapes-folder/", "shapes-mine.json"]


def test_models(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "own"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    (tmp_path / "runs" / "other").mkdir()
    assert complete("cascadezoo sample runs/ow", tmp_path) == ["runs/own", "runs/own/"]
    assert complete("cascadezoo sample shapes", tmp_path) == ["shapes-tiny"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cascadezoo stages show flow.", ["flow.v1"]),
        ("cascadezoo sample shapes-tiny --stage r", ["refine"]),
        ("cascadezoo sample shapes-tiny --steps c", ["coarse="]),
        ("cascadezoo sample shapes-tiny --label s", ["square", "star"]),
        ("cascadezoo validate shapes-demo --set training.b", ["training.batch_size="]),
        ("cascadezoo plan shapes-demo --set stages.up.config.h", ["stages.up.config.hidden="]),
        ("cascadezoo evaluate shapes-tiny --set evaluation.sa", ["evaluation.samples="]),
        # What cannot be read completes to nothing.
        ("cascadezoo sample no-model --label s", []),
        ("cascadezoo sample org/none --label s", []),
        ("cascadezoo validate no-spec --set training.b", []),
        ("cascadezoo sample ~no-such-user/", []),
    ],
)
def test_options(line: str, expected: list[str], tmp_path: Path) -> None:
    assert complete(line, tmp_path) == expected


def test_completion_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "os.environ |= {'_CASCADEZOO_COMPLETE': 'bash_complete', 'COMP_CWORD': '4',\n"
        "               'COMP_WORDS': 'cascadezoo sample shapes-tiny --label s'}\n"
        "from cascadezoo.cli.main import main\n"
        "try:\n"
        "    main(prog_name='cascadezoo')\n"
        "except SystemExit:\n"
        "    print(sorted({'torch', 'torchvision', 'huggingface_hub'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
