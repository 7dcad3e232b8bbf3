"""The pages that install plugins: what is written into them, and how they are run.

``python tests/docs/plugin_pages.py write`` brings them, and the index of plugins, up to date with
plugins/.
``... run first-plugin.md`` does in this folder what a page says, with whatever pip and python come
first on the PATH. Tests put a ``pip`` there that copies a project and writes its metadata, so that
they need neither a build nor a network; ``.ci/plugins`` runs the same pages with the real one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from test_docs import ROOT, Block, blocks

PLUGINS = ROOT / "plugins"
PAGES = (
    "first-plugin.md",
    "use-a-plugin.md",
    "hooks.md",
    "latent-and-token-stages.md",
    "adversarial-stages.md",
    "plugin-list.md",
)


@dataclass(frozen=True)
class Project:
    """A plugin's folder with its pyproject.toml."""

    folder: Path

    @cached_property
    def table(self) -> dict[str, Any]:
        return tomllib.loads((self.folder / "pyproject.toml").read_text())["project"]

    @property
    def name(self) -> str:
        return self.table["name"]

    @property
    def package(self) -> Path:
        """The folder that is imported: beside pyproject.toml or in src/."""
        module = self.name.replace("-", "_")
        found = [p for p in (self.folder / module, self.folder / "src" / module) if p.is_dir()]
        assert len(found) == 1, f"{self.folder} holds no package {module}"
        return found[0]

    def install(self, site: Path) -> None:
        """Put the package and its metadata into a folder of modules, as pip would."""
        shutil.copytree(
            self.package,
            site / self.package.name,
            ignore=shutil.ignore_patterns("__pycache__"),
            dirs_exist_ok=True,
        )
        info = site / f"{self.package.name}-{self.table['version']}.dist-info"
        info.mkdir(exist_ok=True)
        rows = {"Metadata-Version": "2.4", "Name": self.name, "Version": self.table["version"]}
        metadata = [f"{key}: {value}" for key, value in rows.items()]
        metadata += [f"Requires-Dist: {text}" for text in self.table.get("dependencies", [])]
        urls = self.table.get("urls", {}).items()
        metadata += [f"Project-URL: {label}, {url}" for label, url in urls]
        (info / "METADATA").write_text("\n".join(metadata) + "\n")
        groups = self.table.get("entry-points", {})
        lines = [
            line
            for group, points in groups.items()
            for line in (f"[{group}]", *(f"{key} = {value}" for key, value in points.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        (info / "INSTALLER").write_text("test\n")


def projects() -> list[Project]:
    """Whatever lies in plugins/."""
    return [Project(path.parent) for path in sorted(PLUGINS.glob("*/pyproject.toml"))]


def emulated(folder: Path) -> dict[str, str]:
    """An environment whose ``pip install FOLDER...`` installs into the folder given here."""
    site, bins = folder / "site", folder / "bin"
    site.mkdir(parents=True)
    bins.mkdir()
    here = str(Path(__file__).parent)
    pip = bins / "pip"
    pip.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {here!r})\n"
        f"from plugin_pages import pip\npip(sys.argv[1:], {str(site)!r})\n"
    )
    pip.chmod(pip.stat().st_mode | stat.S_IXUSR)
    # `cascadezoo` and `python` of this environment, whatever else is on the PATH.
    path = (str(bins), str(Path(sys.executable).parent), os.environ["PATH"])
    return {**os.environ, "PATH": os.pathsep.join(path), "PYTHONPATH": str(site)}


def pip(arguments: list[str], site: str) -> None:
    """What the pages ask of pip: ``install`` of folders, nothing else."""
    command, *folders = arguments
    if command != "install" or not folders or not all(Path(f).is_dir() for f in folders):
        raise SystemExit(f"the pages' tests know no `pip {' '.join(arguments)}`")
    for folder in folders:
        Project(Path(folder)).install(Path(site))


def shell(text: str, folder: Path, env: dict[str, str]) -> str:
    """Run a bash block; returns what it printed on stdout."""
    return _run(["bash", "-euo", "pipefail", "-c", text], text, folder, env)


def python(text: str, folder: Path, env: dict[str, str]) -> str:
    """Run a Python block with the first python on the PATH."""
    program = shutil.which("python", path=env["PATH"])
    assert program is not None
    return _run([program, "-c", text], text, folder, env)


def _run(command: list[str], text: str, folder: Path, env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    return done.stdout


def write(page: list[Block], folder: Path) -> None:
    """Write the files that a page shows."""
    for block in page:
        if block.title:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)


def run_page(name: str, folder: Path, env: dict[str, str]) -> None:
    """Do what a page of docs/ says, from its first block to its last.

    A ``text`` block after a command shows lines of what that prints.
    """
    if not (folder / "plugins").exists():
        (folder / "plugins").symlink_to(PLUGINS, target_is_directory=True)
    printed = ""
    for block in blocks(ROOT / "docs" / name):
        if block.text.startswith("# not run:"):
            continue
        if block.title:
            write([block], folder)
        elif block.language == "bash":
            printed = shell(block.text, folder, env)
        elif block.language == "python":
            printed = python(block.text, folder, env)
        elif block.language == "diff":
            (folder / "change.diff").write_text(block.text)
            shell("git apply --directory=cascadezoo-hello change.diff", folder, env)
        elif block.language == "text":
            seen = {" ".join(line.split()) for line in printed.splitlines()}
            for line in block.text.splitlines():
                assert " ".join(line.split()) in seen, f"{name}: {line!r} is not in\n{printed}"


def updated(name: str) -> str:
    """A page of docs/ as it should be: files of plugins in its titled blocks, and the list."""
    text = (ROOT / "docs" / name).read_text()
    for block in blocks(ROOT / "docs" / name):
        path = PLUGINS / (block.title or "")
        if path.is_file():
            head = f'```{block.language} title="{block.title}"\n'
            text = text.replace(f"{head}{block.text}```", f"{head}{path.read_text()}```")
    if LIST.search(text):
        text = LIST.sub(lambda found: f"{found[1]}\n\n{listing()}\n{found[2]}", text)
    return text


LIST = re.compile(r"(<!-- made from plugins/ -->).*?(<!-- end -->)", re.S)


def listing() -> str:
    """What the plugins in plugins/ register, as sections of a page."""
    with tempfile.TemporaryDirectory() as folder:
        env = emulated(Path(folder) / "env")
        for project in projects():
            project.install(Path(env["PYTHONPATH"]))
        stages = json.loads(shell("cascadezoo stages list --json", Path(folder), env))
        specs = json.loads(shell("cascadezoo specs list --json", Path(folder), env))
        plugins = json.loads(shell("cascadezoo plugins list --json", Path(folder), env))
    about = {row["kind"]: row for row in stages}
    described = {row["name"]: row["description"] for row in specs}
    sections = []
    for project in projects():
        rows = [
            (name, about[name]["role"], about[name]["summary"])
            if name in about
            else (name, what, described.get(name, "") if what == "spec" else "")
            for plugin in plugins
            if plugin["distribution"] == project.name
            for what, names in plugin["registers"].items()
            for name in names
        ]
        lines = [f"| `{name}` | {what} | {summary} |" for name, what, summary in rows]
        table = "\n".join(["| name | sort | what it is |", "| --- | --- | --- |", *lines])
        install = f"`pip install ./plugins/{project.folder.name}`"
        about_it = f"{project.table['description']}.\n\n{install}"
        sections.append(f"### {project.name}\n\n{about_it}\n\n{table}\n")
    return "\n".join(sections)


INDEX = ROOT / "cascadezoo" / "plugins" / "plugin_index.json"
REPOSITORY = "https://github.com/cascadezoo/cascadezoo/tree/main/plugins/"


def updated_index() -> dict[str, Any]:
    """The index of plugins, with what the projects in plugins/ state and register."""
    own = {project.name: project for project in projects()}
    with tempfile.TemporaryDirectory() as folder:
        env = emulated(Path(folder) / "env")
        for project in own.values():
            project.install(Path(env["PYTHONPATH"]))
        listed = json.loads(shell("cascadezoo plugins list --json", Path(folder), env))
    index = json.loads(INDEX.read_text())
    old = {row["name"]: row for row in index["plugins"]}
    rows = [row for name, row in old.items() if name not in own]
    for name, project in own.items():
        registers: dict[str, list[str]] = {}
        for plugin in listed:
            if plugin["distribution"] == name:
                for what, names in plugin["registers"].items():
                    registers.setdefault(what, []).extend(names)
        (needed,) = (
            text
            for text in project.table["dependencies"]
            if re.match(r"cascadezoo(?![\w.-])", text)
        )
        versions = old[name]["versions"] if name in old else []
        version = project.table["version"]
        rows.append(
            {
                "name": name,
                "description": project.table["description"],
                "url": project.table.get("urls", {}).get("Repository", REPOSITORY + name),
                "registers": registers,
                "versions": [*(v for v in versions if v != version), version],
                "requires": needed,
            }
        )
    return {**index, "plugins": sorted(rows, key=lambda row: row["name"])}


def main(command: str, *pages: str) -> None:
    """``run PAGE...`` or ``write``."""
    if command == "run":
        for name in pages:
            run_page(name, Path.cwd(), dict(os.environ))
    elif command == "write":
        for name in PAGES:
            (ROOT / "docs" / name).write_text(updated(name))
        INDEX.write_text(json.dumps(updated_index(), indent=2, ensure_ascii=False) + "\n")
    else:
        raise SystemExit("usage: plugin_pages.py run PAGE... | write")


if __name__ == "__main__":
    main(*sys.argv[1:])
