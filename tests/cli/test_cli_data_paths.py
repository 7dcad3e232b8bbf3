"""No command opens what a model's config.json names, without the user's confirmation."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascadezoo.model_folder.integrity import seal
from cascadezoo.model_folder.layout import read_config
from cascadezoo.model_folder.trained_spec import published_spec

OUTSIDE = "OUTSIDE"
"""Stands for a folder that no command may touch."""

FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "device": ("npz", {"path": "/dev/zero"}),
    "fifo": ("npz", {"path": f"{OUTSIDE}/fifo"}),
    "file": ("npz", {"path": f"{OUTSIDE}/images.npz"}),
    "relative file": ("npz", {"path": f"../{OUTSIDE}/images.npz"}),
    "nul": ("npz", {"path": "a\0b"}),
    "home of another user": ("npz", {"path": "~nobody/x.npz"}),
    "slash share": ("folder", {"path": "//server/share"}),
    "backslash share": ("folder", {"path": "\\\\server\\share"}),
    "long": ("npz", {"path": "x" * 5000}),
    "folder": ("folder", {"path": OUTSIDE, "test_path": OUTSIDE}),
    "root": ("folder", {"path": "/", "labels": False}),
    "process": ("folder", {"path": "/proc/self"}),
    "surrogate": ("npz", {"path": "\udcff"}),
    "torchvision root": ("mnist", {"root": f"{OUTSIDE}/made"}),
    "no such source": ("sonar", {"path": f"{OUTSIDE}/images.npz"}),
}
LIGHT = {
    "sample": ["sample", "MODEL", "-n", "1", "-q", "-o", "one.png"],
    "card": ["card", "MODEL", "--print"],
    "report": ["report", "MODEL", "-n", "1", "-q", "-o", "page.html"],
    "evaluate": ["evaluate", "MODEL", "--metrics", "kid", "-n", "10", "-q"],
}
ALL = {
    **LIGHT,
    "save": ["evaluate", "MODEL", "--metrics", "inception-score", "-n", "24", "-q", "--save"],
    "grid": ["report", "MODEL", "--guidance", "1", "-n", "1", "-q", "-o", "grid.png"],
    "stages": ["sample", "MODEL", "-n", "1", "--stages", "-q", "-o", "s.png"],
    "check card": ["card", "MODEL", "--check"],
    "pull": ["pull", "MODEL"],
    "pull to": ["pull", "MODEL", "--to", "copy"],
    "publish": ["publish", "MODEL", "./published"],
    "features": ["report", "MODEL", "-n", "1", "--features", "5", "-q", "-o", "page.html"],
    "stages of evaluate": ["evaluate", "MODEL", "--stages", "-n", "10", "-q"],
    "all metrics": ["evaluate", "MODEL", "--metrics", "psnr,label-agreement", "-n", "10", "-q"],
    "check": ["evaluate", "MODEL", "--check", "-q"],
    "tune": ["tune", "MODEL", "--over", "steps", "--values", "steps=1", "-n", "10", "-q"],
    "write card": ["card", "MODEL"],
}
THOROUGH = ("fifo", "folder", "torchvision root")
REFUSED = {"features", "tune"}
"""Commands that end without the data."""


@dataclass
class Runner:
    """The audited process; see audited_commands.py."""

    folder: Path
    process: subprocess.Popen[str]
    count: int = 0

    def run(self, *args: object) -> dict[str, Any]:
        self.count += 1
        cwd = self.folder / f"cwd{self.count}"
        row = {"cwd": str(cwd), "args": [str(a) for a in args]}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(row) + "\n")
        self.process.stdin.flush()
        result: dict[str, Any] = json.loads(self.process.stdout.readline())
        return result

    def touched(self, result: dict[str, Any]) -> list[tuple[str, str]]:
        """The events outside of Python, this project, the temporary folder and the system."""
        allowed = [sys.prefix, sys.base_prefix, str(Path(os.__file__).parent)]
        allowed += ["/proc", "/sys", "/usr", "/etc", "/dev/null", "/dev/urandom", "/dev/shm"]
        allowed += [str(Path(__file__).parents[2]), *sys.path, str(self.folder)]
        rows = []
        for event, path in result["opened"]:
            place = os.path.realpath(self.folder / "cwd1" / path) if "\0" not in path else path
            outside = _within(place, [str(self.folder / OUTSIDE)]) or place == "/proc/self"
            if event.startswith("socket") or outside or not _within(place, allowed):
                rows.append((event, path[:200]))
        return rows


def _within(place: str, folders: list[str]) -> bool:
    return any(f and (place == f or place.startswith(f.rstrip("/") + "/")) for f in folders)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("audit")
    outside = folder / OUTSIDE
    outside.mkdir()
    os.mkfifo(outside / "fifo")
    images = np.random.default_rng(0).integers(0, 255, (64, 8, 8, 3), np.uint8)
    np.savez(outside / "images.npz", images=images, labels=np.arange(64) % 8)
    environment = {
        **os.environ,
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder),
        "CASCADEZOO_CACHE": str(folder / "cache"),
        "CASCADEZOO_DATA": str(folder / "data"),
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
    }
    (folder / "home").mkdir()
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("audited_commands.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as process:
        yield Runner(folder, process)
        assert process.stdin is not None
        process.stdin.close()
    os.close(os.open(outside / "fifo", os.O_RDONLY | os.O_NONBLOCK))


def named(value: Any, outside: Path) -> Any:
    return str(value).replace(OUTSIDE, str(outside)) if str(value).startswith(OUTSIDE) else value


@pytest.fixture
def stranger(model: Path, runner: Runner, request: pytest.FixtureRequest) -> Path:
    """A model whose config.json names files of this machine."""
    source, config = FORMS[request.param]
    folder = runner.folder / f"model {runner.count}"
    shutil.copytree(model, folder)
    config = {key: named(value, runner.folder / OUTSIDE) for key, value in config.items()}
    return edited(folder, source=source, config=config)


def edited(folder: Path, **changes: Any) -> Path:
    """Change the data in config.json, as a stranger could."""
    raw = json.loads((folder / "config.json").read_text())
    raw["spec"]["data"] |= changes
    raw["spec"]["evaluation"] |= {"subsets": 2, "subset_size": 5}
    (folder / "config.json").write_text(json.dumps(raw))
    return folder


@pytest.mark.parametrize("stranger", FORMS, indirect=True)
def test_commands_open_nothing_that_a_model_names(
    stranger: Path, runner: Runner, request: pytest.FixtureRequest
) -> None:
    form = request.node.callspec.params["stranger"]
    for name, args in (ALL if form in THOROUGH else LIGHT).items():
        result = runner.run(*(str(stranger) if a == "MODEL" else a for a in args))
        assert runner.touched(result) == [], name
        assert not (runner.folder / OUTSIDE / "made").exists()
        if name in REFUSED:
            assert result["code"] == "data-untrusted", (name, result)
        elif name in ("evaluate", "all metrics", "stages of evaluate"):
            assert result["exit_code"] == 2, (name, result)
            assert form == "no such source" or "--trust-data" in result["output"], result
        elif name in ("check", "check card"):
            assert result["exit_code"] in (0, 1, 2), (name, result)
            assert result["code"] in (None, "model-no-metrics"), (name, result)
        elif name == "card" or (name == "write card" and result["exit_code"]):
            assert result["code"] in (None, "model-no-metrics"), (name, result)
        else:
            assert result["exit_code"] == 0, (name, result)
        assert "internal" not in result["output"]


@pytest.mark.parametrize("field", ["size", "channels", "num_classes"])
def test_a_spec_that_leaves_something_to_its_data_is_refused(
    field: str, model: Path, runner: Runner
) -> None:
    folder = runner.folder / f"open {field}"
    shutil.copytree(model, folder)
    path = str(runner.folder / OUTSIDE / "images.npz")
    edited(folder, source="npz", config={"path": path}, **{field: None})
    for name, args in ALL.items():
        result = runner.run(*(str(folder) if a == "MODEL" else a for a in args))
        assert (result["exit_code"], result["code"]) == (2, "model-spec-unresolved"), (name, result)
        assert runner.touched(result) == [], name


@pytest.mark.parametrize("stranger", ["file"], indirect=True)
@pytest.mark.parametrize("command", ["evaluate", "features", "tune"])
def test_the_user_confirms_the_data(stranger: Path, runner: Runner, command: str) -> None:
    args = [str(stranger) if a == "MODEL" else a for a in ALL[command]]
    result = runner.run(*args, "--trust-data")
    assert result["exit_code"] == 0, result
    assert [Path(path).name for _, path in runner.touched(result)] == ["images.npz"]
    if command != "features":
        path = runner.folder / OUTSIDE / "images.npz"
        result = runner.run(*args, "--set", f"data.config.path={path}")
        assert result["exit_code"] == 0, result


@pytest.mark.parametrize("stranger", ["folder"], indirect=True)
def test_a_path_of_the_user_does_not_cover_another_one(stranger: Path, runner: Runner) -> None:
    mine = runner.folder / "mine"
    args = [str(stranger) if a == "MODEL" else a for a in ALL["tune"]]
    result = runner.run(*args, "--set", f"data.config.path={mine}")
    assert result["code"] == "data-untrusted"
    assert "test_path" in result["output"]
    assert runner.touched(result) == []


def test_a_run_folder_of_a_stranger_opens_nothing(model: Path, runner: Runner) -> None:
    run = runner.folder / "run"
    shutil.copytree(model, run / "model")
    path = str(runner.folder / OUTSIDE / "images.npz")
    edited(run / "model", source="npz", config={"path": path})
    config = read_config(run / "model")
    seal(run / "model", published_spec(run / "model", config), config.cascadezoo_version)
    spec = read_config(run / "model").spec
    (run / "spec.json").write_text(json.dumps(spec))
    (run / "run.json").write_text(json.dumps({"name": "lone", "state": "done", "format": 1}))
    result = runner.run("tune", run, "--over", "steps", "-n", "10", "-q")
    assert (result["code"], runner.touched(result)) == ("data-untrusted", [])
    shutil.rmtree(run / "model")
    result = runner.run("report", run, "-q", "-o", "page.html")
    assert (result["exit_code"], runner.touched(result)) == (0, [])


@pytest.mark.slow
def test_data_of_a_model_that_was_built_here(runner: Runner, lone: dict[str, Any]) -> None:
    images = runner.folder / "mine.npz"
    shutil.copy(runner.folder / OUTSIDE / "images.npz", images)
    lone["data"] = {"source": "npz", "config": {"path": str(images)}}
    lone["evaluation"] |= {"samples": 10, "subsets": 2, "subset_size": 5}
    (runner.folder / "spec.json").write_text(json.dumps(lone))
    run = runner.folder / "built"
    assert runner.run("build", runner.folder / "spec.json", "-o", run, "-q")["exit_code"] == 0
    shutil.copytree(run / "model", runner.folder / "moved")
    for place in (run, runner.folder / "moved"):
        result = runner.run(*(str(place) if a == "MODEL" else a for a in ALL["evaluate"]))
        assert result["exit_code"] == 0, result
    edited(runner.folder / "moved", config={"path": str(runner.folder / "other.npz")})
    result = runner.run("tune", runner.folder / "moved", "--over", "steps", "-n", "10", "-q")
    assert result["code"] == "data-untrusted"
    shutil.rmtree(runner.folder / "cache" / "built")
    assert runner.run("tune", run, "--over", "steps", "-n", "10", "-q")["code"] == "data-untrusted"
    assert runner.run("build", runner.folder / "spec.json", "-o", run, "-q")["exit_code"] == 0
    result = runner.run(*(str(run) if a == "MODEL" else a for a in ALL["evaluate"]))
    assert result["exit_code"] == 0, result
