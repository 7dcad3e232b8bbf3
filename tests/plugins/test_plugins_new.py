"""``plugins new`` and ``plugins check``: the written project works unchanged, for every kind."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from errors_help import raises
from hypothesis import given, settings
from hypothesis import strategies as st
from plugin_sites import cascadezoo, environment, install, lay_out, wave

from cascadezoo.cli.main import main
from cascadezoo.cli.plugins import KINDS as OFFERED
from cascadezoo.errors import InputError
from cascadezoo.testing.template import KINDS, described, project_name, write_project

ROOT = Path(__file__).parents[2]


def invoke(*args: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args], prog_name="cascadezoo")


def run_tests(*folders: Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of projects in one process; without folders those of the project in ``cwd``."""
    line = ["-q", "-p", "no:cacheprovider", "-W", "error"]
    where = ["--rootdir", str(cwd), *(str(f / "tests") for f in folders)] if folders else []
    return subprocess.run(
        [sys.executable, "-m", "pytest", *line, *where],
        cwd=cwd,
        env=environment() | env,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )


STAGES = ("generator", "upsampler", "refiner", "decoder")
CHECKED = tuple(kind for kind in KINDS if kind not in ("generator", "refiner", "decoder"))
"""The kinds for which `plugins check` repeats the checks of the projects' own tests."""


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A new project of each kind."""
    top = tmp_path_factory.mktemp("projects")
    return {kind: write_project(f"my-{kind}", kind, top / kind) for kind in KINDS}


@pytest.fixture(scope="module")
def site(projects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All projects, installed."""
    folder = tmp_path_factory.mktemp("site")
    for project in projects.values():
        lay_out(project, folder)
    return folder


@pytest.mark.slow
def test_every_kind_passes_its_own_tests(projects: dict[str, Path], site: Path) -> None:
    # One process for all: most of the time goes into importing torch.
    tests = run_tests(*projects.values(), cwd=site.parent, PYTHONPATH=str(site))
    assert tests.returncode == 0, tests.stdout
    assert f"{2 * len(KINDS)} passed" in tests.stdout


@pytest.mark.slow
def test_every_kind_passes_the_checks(
    projects: dict[str, Path], tmp_path: Path, warm_python: str
) -> None:
    for kind in CHECKED:
        lay_out(projects[kind], tmp_path)
    line = ("plugins", "check", "--json")
    checked = cascadezoo(*line, site=tmp_path, timeout=1800, python=warm_python)
    assert checked.returncode == 0, checked.stdout
    states: dict[str, list[str]] = {}
    for row in json.loads(checked.stdout):
        rows = states.setdefault(row["distribution"].removeprefix("cascadezoo-my-"), [])
        rows += [check["state"] for check in row["checks"]]
    assert {kind: set(rows) for kind, rows in states.items()} == {key: {"ok"} for key in CHECKED}
    counts = {kind: len(rows) for kind, rows in states.items()}
    assert counts == {kind: {"dataset": 9, "upsampler": 22}.get(kind, 8) for kind in CHECKED}


def test_every_kind_is_loaded_without_problems(site: Path) -> None:
    listed = json.loads(cascadezoo("plugins", "list", "--json", site=site).stdout)
    assert {row["distribution"]: (row["state"], row["problems"]) for row in listed} == {
        f"cascadezoo-my-{kind}": ("loaded", []) for kind in KINDS
    }
    registered = {row["distribution"].removeprefix("cascadezoo-my-"): row for row in listed}
    for kind, row in registered.items():
        ((_, names),) = row["registers"].items()
        assert names == [f"my-{kind}.v1" if kind in STAGES else f"my-{kind}"]


@pytest.mark.slow
def test_every_kind_passes_mypy(projects: dict[str, Path], tmp_path: Path) -> None:
    """With the options of this repository, so that a cache of torch's types can be used again."""
    packages, tests = [], []
    for project in projects.values():
        table = tomllib.loads((project / "pyproject.toml").read_text())["tool"]["mypy"]
        (package,) = (p.parent for p in project.glob("*/__init__.py"))
        assert table == {
            "strict": True,
            "files": [package.name, "tests"],
            "plugins": ["pydantic.mypy"],
        }
        packages.append(str(package))
        tests.append(str(project / "tests"))
    cache = tmp_path / "cache"
    if (ROOT / ".mypy_cache").is_dir():
        shutil.copytree(ROOT / ".mypy_cache", cache)
    line = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(cache)]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *line, *packages, *tests],
        cwd=ROOT,
        env=environment(MYPYPATH=os.pathsep.join(map(str, projects.values()))),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_kind_passes_ruff(projects: dict[str, Path]) -> None:
    folders = [str(project) for project in projects.values()]
    for tool in (["check"], ["format", "--check"]):
        # Each file is checked with the options of its own project.
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *tool, "--no-cache", *folders],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
    project = projects["loss"]
    fault = project / "cascadezoo_my_loss" / "fault.py"
    fault.write_text("import os\n")
    line = [sys.executable, "-m", "ruff", "check", "--no-cache", str(project)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    fault.unlink()
    assert {"F401", "D100"} <= set(done.stdout.split())


def test_the_texts_of_the_projects(projects: dict[str, Path]) -> None:
    for kind, project in projects.items():
        files = [p for p in project.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
        texts = {p.relative_to(project).as_posix(): p.read_text() for p in files}
        assert not [name for name, text in texts.items() if re.search(r"\$[a-zA-Z]", text)]
        for block in re.findall(r"```json\n(.*?)```", texts["README.md"], re.S):
            json.loads(block)
        workflow = yaml.safe_load(texts[".github/workflows/ci.yml"])
        assert workflow["permissions"] == {"contents": "read"}
        steps = workflow["jobs"]["test"]["steps"]
        assert [step["run"] for step in steps if "run" in step] == [
            "python -m pip install -e '.[dev]'",
            "ruff check .",
            "ruff format --check .",
            "mypy",
            "python -m pytest",
            f"cascadezoo plugins check cascadezoo-my-{kind}",
        ]
        uses = [step["uses"] for step in steps if "uses" in step]
        assert uses == ["actions/checkout@v4", "actions/setup-python@v5"]
        needed = tomllib.loads(texts["pyproject.toml"])["project"]["optional-dependencies"]["dev"]
        assert {re.split("[><=]", text)[0] for text in needed} == {"mypy", "pytest", "ruff"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_says_what_it_wrote(kind: str, tmp_path: Path) -> None:
    result = invoke("plugins", "new", "tidal-wave", "--kind", kind, "-o", tmp_path / "project")
    assert result.exit_code == 0, result.output
    assert f"wrote a plugin with {described(kind)} to " in result.stdout
    assert "cascadezoo plugins check cascadezoo-tidal-wave" in result.stdout


@pytest.mark.parametrize(
    ("name", "kind", "file", "line"),
    [
        ("callback", "callback", "callback.py", "class MyCallback(Callback):"),
        ("stage", "refiner", "stage.py", "class MyStage(Stage):"),
        ("data", "dataset", "config.py", "class MyDataConfig(DataConfig):"),
        ("tensor", "loss", "loss.py", "class MyTensor(nn.Module):"),
        ("call-back", "callback", "callback.py", "class CallBack(Callback):"),
    ],
)
def test_classes_hide_no_imported_name(
    name: str, kind: str, file: str, line: str, tmp_path: Path
) -> None:
    project = write_project(name, kind, tmp_path / "p")
    package = project / project_name(name).replace("-", "_")
    assert line in (package / file).read_text().splitlines()


def test_names_of_built_in_commands_are_refused(tmp_path: Path) -> None:
    for name, kind in (("validate", "command"), ("shapes-tiny", "specs"), ("lpips", "loss")):
        result = invoke("plugins", "new", name, "--kind", kind, "-o", tmp_path / "p", "--json")
        assert result.exit_code == 2
        assert json.loads(result.stderr)["error"]["code"] == "input-plugin-name-taken"
    assert not (tmp_path / "p").exists()
    # The name is free for what is no command.
    assert invoke("plugins", "new", "validate", "-o", tmp_path / "p").exit_code == 0


RESOLVE = """
import json, sys
from cascadezoo import load_spec
for kind, data in json.load(sys.stdin).items():
    print(kind, load_spec(data).spec.requires)
"""


def test_the_specs_of_the_readmes_resolve(projects: dict[str, Path], site: Path) -> None:
    specs = {}
    for kind, project in projects.items():
        for block in re.findall(r"```json\n(.*?)```", (project / "README.md").read_text(), re.S):
            specs[kind] = json.loads(block)
            if "stages" not in specs[kind]:
                specs[kind] |= {
                    "name": "m",
                    "data": {"source": "shapes", "config": {"size": 16}},
                    "stages": [{"name": "coarse", "kind": "flow.v1"}],
                }
    assert set(KINDS) - set(specs) == {"zoo", "specs", "command"}
    done = subprocess.run(
        [sys.executable, "-c", RESOLVE],
        env=environment(site),
        input=json.dumps(specs),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert set(lines) == set(specs)
    for kind in STAGES:
        assert f"cascadezoo-my-{kind}>=0.1.0" in lines[kind]


def test_help_offers_all_kinds() -> None:
    assert tuple(KINDS) == OFFERED
    prose = [described(kind) for kind in ("upsampler", "loss", "features", "specs")]
    assert prose == ["an upsampler", "a loss", "a feature extractor", "a spec"]


def test_the_default_folder_and_json(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = json.loads(invoke("plugins", "new", "cascadezoo-wave", "--json").stdout)
    assert result["distribution"] == "cascadezoo-wave"
    assert result["kind"] == "generator"
    assert result["folder"] == "cascadezoo-wave"
    assert result["files"] == [
        ".github/workflows/ci.yml",
        ".gitignore",
        "README.md",
        "cascadezoo_wave/__init__.py",
        "cascadezoo_wave/config.py",
        "cascadezoo_wave/py.typed",
        "cascadezoo_wave/stage.py",
        "pyproject.toml",
        "tests/test_cascadezoo_wave.py",
    ]
    assert all((tmp_path / "cascadezoo-wave" / name).is_file() for name in result["files"])


def test_existing_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    result = invoke("plugins", "new", "wave", "-o", tmp_path / "mine", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stderr)["error"]["code"] == "input-output-exists"
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    result = invoke("plugins", "new", "wave", "-o", tmp_path / "mine" / "notes.txt")
    assert result.exit_code == 2
    (tmp_path / "empty").mkdir()
    assert invoke("plugins", "new", "wave", "-o", tmp_path / "empty").exit_code == 0


@pytest.mark.parametrize(
    "name", ["", "-", "9waves", "Wave!", "cascadezoo", "a/b", "wäve", "x" * 41, "cascadezoo-"]
)
def test_invalid_names(name: str, tmp_path: Path) -> None:
    with raises(InputError, "input-plugin-name"):
        write_project(name, "refiner", tmp_path / "p")
    assert not (tmp_path / "p").exists()


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=12))
def test_a_name_is_refused_or_becomes_valid_for_pip_and_python(name: str) -> None:
    try:
        distribution = project_name(name)
    except InputError:
        return
    assert re.fullmatch(r"cascadezoo(-[a-z0-9]+)+", distribution)
    assert distribution.replace("-", "_").isidentifier()
    assert project_name(distribution) == distribution


# --- check


COSTLY = ("compile", "joint-training", "resume", "round-trip", "processes")
"""The checks that take the most time."""


@pytest.mark.slow
def test_check_of_a_faulty_plugin(tmp_path: Path, warm_python: str) -> None:
    files = wave()
    files["config.py"] = "import torch\n" + files["config.py"]
    files["stage.py"] = files["stage.py"].replace(".clamp(-1, 1)", "* 5")
    site = install(tmp_path / "site", "cascadezoo-wave", "1.0", files)
    skip = [word for name in COSTLY for word in ("--skip", name)]
    result = cascadezoo("plugins", "check", *skip, site=site, python=warm_python)
    assert result.returncode == 1
    assert "cascadezoo_wave/config.py:1]" in result.stdout
    assert "sample() exceeds [-1, 1]" in result.stdout
    assert "skipped compile" in result.stdout
    assert re.search(r"22 checks, [34] failed", result.stdout)
    # Other settings.
    line = ["--set", "wave.v1:strength=0.001", *skip, "--json"]
    checked = cascadezoo(
        "plugins", "check", "cascadezoo-wave", *line, site=site, python=warm_python
    )
    rows = json.loads(checked.stdout)
    assert [row["ok"] for row in rows] == [True, False, True]


@pytest.mark.slow
def test_check_of_unknown_names(tmp_path: Path, warm_python: str) -> None:
    site = install(tmp_path / "site", "cascadezoo-wave", "1.0", wave())
    for args, code, shown in (
        (["wabe"], "lookup-plugin", "cascadezoo, cascadezoo-wave"),
        (["wave", "--skip", "nonsense"], "usage", "'nonsense'"),
        (["wave", "--set", "wave.v2:x=1"], "input-setting-form", "wave.v1"),
    ):
        line = ("plugins", "check", *args, "--json")
        result = cascadezoo(*line, site=site, python=warm_python)
        assert result.returncode == 2
        assert json.loads(result.stderr)["error"]["code"] == code
        assert shown in result.stderr
    result = cascadezoo(
        "plugins", "check", site=site, python=warm_python, CASCADEZOO_LOAD_PLUGINS=""
    )
    assert result.returncode == 0
    assert "skipped loads:" in result.stdout


@pytest.mark.slow
def test_check_of_a_plugin_that_cannot_be_loaded(tmp_path: Path, warm_python: str) -> None:
    site = install(tmp_path / "site", "cascadezoo-wave", "1.0", {"__init__.py": "import nope"})
    result = cascadezoo("plugins", "check", site=site, python=warm_python)
    assert result.returncode == 1
    assert re.search("failed  loads: .*ModuleNotFoundError", result.stdout)
    assert "__init__.py:1" in result.stdout


@pytest.mark.slow
def test_pip_installs_the_project(tmp_path: Path, warm_python: str) -> None:
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    project = write_project("wave", "upsampler", tmp_path / "wave")
    site = tmp_path / "site"
    line = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-q"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *line, "--target", str(site), str(project)],
        check=True,
    )
    assert "wave.v1" in cascadezoo("stages", "list", site=site).stdout
    skip = [word for name in COSTLY for word in ("--skip", name)]
    line = ("plugins", "check", "cascadezoo-wave", *skip)
    result = cascadezoo(*line, site=site, cwd=tmp_path, python=warm_python)
    assert result.returncode == 0, result.stdout
    # The tests run on the installed package, not on the project folder.
    (project / "cascadezoo_wave").rename(tmp_path / "elsewhere")
    tests = run_tests(cwd=project, PYTHONPATH=str(site))
    assert tests.returncode == 0, tests.stdout
