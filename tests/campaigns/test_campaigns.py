"""The harness reports each kind of fault, and seeded cases of each campaign hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from campaigns.outcome import EXIT_CODES, ROOT, Finding, Outcome, known_codes
from campaigns.planted import FAULTS
from campaigns.summary import Summary, docs_table
from campaigns.trial import cause_of

SEED = 0
KNOWN: dict[str, str] = {}
"""Cases below that fail until what they found is mended: ``campaign:seed:index`` and why."""


def campaigns(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.campaigns", *map(str, args)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )


def check_cases(tmp_path: Path, *names: str, cases: int) -> None:
    """Fail unless just those cases of KNOWN fail that are among these."""
    path = tmp_path / "result.json"
    done = campaigns(*names, "--cases", cases, "--seed", SEED, "--json", path)
    assert path.is_file(), done.stdout + done.stderr
    data = json.loads(path.read_text())
    assert {n: row["cases"] for n, row in data["campaigns"].items()} == dict.fromkeys(names, cases)
    ran = {f"{name}:{SEED}:{n}" for name in names for n in range(cases)}
    failed = {row["case"] for row in data["failures"]}
    assert failed == ran & KNOWN.keys(), done.stdout
    assert done.returncode == (1 if failed else 0)


@pytest.mark.slow
def test_planted_faults_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    done = campaigns("planted", "--cases", len(FAULTS), "--jobs", 4, "--json", path)
    assert done.returncode == 1
    rows: dict[str, dict[str, Any]] = {
        r["case"]: r for r in json.loads(path.read_text())["failures"]
    }
    for number, (fault, kind) in enumerate(FAULTS):
        row = rows.get(f"planted:0:{number}")
        if kind in ("clean", "refused"):
            assert row is None, row
            continue
        assert row is not None, (fault, done.stdout)
        assert kind in {f["kind"] for f in row["findings"]}, (fault, row)
        assert kind == "opened" or all(f["kind"] == kind for f in row["findings"]), (fault, row)
    assert "repeat: python -m tests.campaigns --only planted:0:0" in done.stdout
    assert json.loads(path.read_text())["campaigns"]["planted"]["refused"] == 1


@pytest.mark.slow
def test_a_case_is_the_same_each_time() -> None:
    case = f"specs:{SEED}:3"
    lines = campaigns("--only", case, "--only", case, "--verbose").stdout.splitlines()
    titles = [line for line in lines if line.startswith(f"{case}: ")]
    assert len(titles) == 2
    assert titles[0] == titles[1]


@pytest.mark.slow
def test_kills_and_full_disks(tmp_path: Path) -> None:
    check_cases(tmp_path, "kill", "disk", cases=8)


@pytest.mark.slow
def test_files_of_strangers_and_servers(tmp_path: Path) -> None:
    check_cases(tmp_path, "folders", "specs", "data", "hub", "server", cases=10)


def test_options_are_checked() -> None:
    for args in (["nothing"], ["--only", "folders"], ["--minutes", "1", "--cases", "1"]):
        done = campaigns(*args)
        assert done.returncode == 2
        assert "usage:" in done.stderr


def test_codes_are_read_from_the_docs() -> None:
    from cascadezoo.errors import CascadezooError, SampleError

    codes = known_codes()
    assert {CascadezooError.code, SampleError.code, "usage", "system", "memory"} <= codes
    assert "internal" not in codes
    assert "sample-count" in codes
    assert EXIT_CODES == (1, 2, 130)


def test_a_cause_names_the_place() -> None:
    text = (
        "Traceback (most recent call last):\n"
        f'  File "{ROOT}/cascadezoo/spec/files.py", line 3, in load_spec\n    x\n'
        '  File "/usr/lib/python3/json.py", line 9, in loads\n    y\n'
        "json.decoder.JSONDecodeError: no: line 1\n"
    )
    assert cause_of(text) == "json.decoder.JSONDecodeError in cascadezoo/spec/files.py:load_spec"


def test_the_summary() -> None:
    summary = Summary()
    assert not summary.add(Outcome("kill:0:0", seconds=2.0, peak=3 << 20))
    assert not summary.add(Outcome("kill:0:1", refused=True))
    broken = [Finding("wrong", "two is three")]
    assert summary.add(Outcome("kill:0:2", findings=broken))
    assert not summary.add(Outcome("kill:0:3", findings=broken))
    assert summary.table().splitlines()[1].split()[:5] == ["kill", "4", "1", "1", "2"]
    assert summary.classes() == ["    2  kill: wrong: two is three  --only kill:0:2"]
    data = {**summary.to_dict(), "seconds": 120, "seed": 5, "machine": "a machine"}
    table = docs_table(json.loads(json.dumps(data)))
    assert "| kill | 4 | 1 | 1 | 2 | 2.0 | 3 MiB |" in table
    assert table.endswith("4 cases with the seed 5 in 2 minutes on a machine; 2 failed.")
