"""The index of plugins: ``plugins search``, and hints for plugins that are not installed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from plugin_sites import cascadezoo, environment, install, lay_out

from cascadezoo.cli.main import main
from cascadezoo.errors import SpecError
from cascadezoo.plugins.index import indexed, provider_of, read_index, search_index
from cascadezoo.plugins.registry import Origin
from cascadezoo.spec import load_spec
from cascadezoo.spec.requires import derive_urls, install_advice, stated_urls
from cascadezoo.testing.template import write_project
from cascadezoo.util.limits import PROJECT_URL

GAN = "https://github.com/cascadezoo/cascadezoo/tree/main/plugins/cascadezoo-gan"


def invoke(*args: str) -> Result:
    return CliRunner().invoke(main, ["plugins", "search", *args], prog_name="cascadezoo")


def names(query: str) -> list[str]:
    return [plugin.name for plugin in search_index(query)]


def test_search() -> None:
    assert len(names("")) == len(read_index()) >= 5
    assert names("") == sorted(names(""))
    assert names("GAN adversaries") == ["cascadezoo-gan"]
    assert names("linear-sr.v1") == ["cascadezoo-hello"]
    assert names("ar-prior") == ["cascadezoo-tokens"]
    assert names("spec MNIST") == ["cascadezoo-models", "cascadezoo-tokens"]
    assert names("gan nonsense") == []
    assert indexed("Cascadezoo_GAN") == provider_of("srgan") == provider_of("srgan.v1")
    assert provider_of("srgan.v2") is None


def test_every_row_is_complete() -> None:
    for plugin in read_index():
        assert re.fullmatch(PROJECT_URL, plugin.url)
        assert plugin.versions
        assert plugin.requires.startswith("cascadezoo")
        assert plugin.registers
        assert all(plugin.registers.values())
        assert plugin.description == " ".join(plugin.description.split())


def test_the_command() -> None:
    result = invoke("gan")
    assert result.exit_code == 0
    assert GAN in result.stdout
    assert "gan.v1, srgan.v1" in result.stdout
    result = invoke("nonsense")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no plugin that matches 'nonsense'" in result.stderr
    data = json.loads(invoke("gan", "--json").stdout)
    assert (data["hub"], data["problems"]) == (None, [])
    assert data["index"] == [
        {
            "name": "cascadezoo-gan",
            "description": data["index"][0]["description"],
            "url": GAN,
            "registers": {"stage kind": ["gan.v1", "srgan.v1"]},
            "versions": ["0.1.0"],
            "requires": "cascadezoo>=0.1.0",
            "installed": None,
        }
    ]


def test_installed_plugins_are_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = install(tmp_path / "site", "cascadezoo-gan", "0.7", {"__init__.py": ""})
    monkeypatch.syspath_prepend(str(site))
    installed = {
        row["name"]: row["installed"] for row in json.loads(invoke("--json").stdout)["index"]
    }
    assert installed["cascadezoo-gan"] == "0.7"
    assert set(installed.values()) == {"0.7", None}
    (line,) = (row for row in invoke().stdout.splitlines() if row.startswith("cascadezoo-gan "))
    assert line.split()[1:3] == ["0.1.0", "0.7"]


# --- whose package it is


def test_hints_say_whose_a_package_is() -> None:
    stated = {"wave": "https://example.org/wave", "cascadezoo-gan": "https://example.org/evil"}
    known = install_advice(["cascadezoo-gan>=0.2"], stated)
    # The index is reviewed, so its address is shown and not the one that the model states.
    assert known == f"pip install 'cascadezoo-gan>=0.2' (cascadezoo-gan is {GAN})"
    advice = install_advice(["wave"], stated)
    assert advice.startswith(
        "pip install 'wave' (wave is https://example.org/wave, says the author"
    )
    unknown = install_advice(["blurry>=1"], stated)
    assert unknown.startswith(
        "the name blurry comes from the author of the spec or model and is not"
    )
    assert unknown.endswith("before you run pip install 'blurry>=1'")
    mixed = install_advice(["blurry", "wave"], stated)
    assert "the name blurry comes from" in mixed
    assert "https://example.org/wave" in mixed
    assert mixed.index("comes from") < mixed.index("pip install")


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "ftp://example.org/a",
        "https://user:password@example.org/a",
        "https://example.org/a'; touch owned; '",
        "https://example.org/a b",
        "https://example.org/\u202e",
        "https://ex\u0430mple.org/a",
        "https://example.org/a\n",
        "https://example.org/" + "a" * 300,
        "",
        1,
    ],
)
def test_addresses_that_could_deceive_are_refused(url: object) -> None:
    assert stated_urls({"wave": url, "other": "https://example.org/a"}) == {
        "other": "https://example.org/a"
    }
    data = load_spec("shapes-tiny").spec.to_dict() | {"project_urls": {"wave": url}}
    with pytest.raises(SpecError, match="project_urls"):
        load_spec(data)


def test_addresses_are_read_from_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    rows = {
        "first": [
            "Project-URL: Changelog, https://example.org/c",
            "Project-URL: Source Code, https://example.org/s",
        ],
        "second": [
            "Project-URL: Homepage, https://example.org/h",
            "Home-page: https://example.org/x",
        ],
        "third": ["Home-page: https://example.org/x", "Project-URL: Issues, https://example.org/i"],
        "fourth": ["Project-URL: Issues, https://example.org/i"],
        "fifth": ["Project-URL: Homepage, javascript:alert(1)", "Home-page: UNKNOWN"],
        "sixth": [],
    }
    for name, lines in rows.items():
        install(site, name, "1.0", {"__init__.py": ""})
        with (site / f"{name}-1.0.dist-info" / "METADATA").open("a") as file:
            file.writelines(f"{line}\n" for line in lines)
    monkeypatch.syspath_prepend(str(site))
    origins = [Origin(name, "1.0", f"{name}:main") for name in (*rows, "absent", "cascadezoo")]
    assert derive_urls(origins, {"first": "https://example.org/stated"}) == {
        "first": "https://example.org/stated",
        "second": "https://example.org/h",
        "third": "https://example.org/x",
        "fourth": "https://example.org/i",
    }
    assert derive_urls(origins, {})["first"] == "https://example.org/s"


RESOLVE = """
import sys
from cascadezoo import CascadeSpec, load_spec
spec = load_spec(sys.argv[1]).spec
again = load_spec(spec).spec
assert again == spec
plain = CascadeSpec.model_validate({k: v for k, v in spec.to_dict().items() if k != "project_urls"})
assert (plain.digest(), plain.training_digest()) == (spec.digest(), spec.training_digest())
print(spec.to_json())
"""


def test_a_spec_records_the_projects_of_its_plugins(tmp_path: Path) -> None:
    project = write_project("wave", "upsampler", tmp_path / "wave")
    file = project / "pyproject.toml"
    file.write_text(
        file.read_text()
        .replace("# [project.urls]", "[project.urls]")
        .replace("# Repository", "Repository")
    )
    site = tmp_path / "site"
    lay_out(project, site)
    (block,) = re.findall(r"```json\n(.*?)```", (project / "README.md").read_text(), re.S)
    path = tmp_path / "spec.json"
    path.write_text(block)
    done = subprocess.run(
        [sys.executable, "-c", RESOLVE, str(path)],
        env=environment(site),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    url = "https://github.com/NAME/cascadezoo-wave"
    assert json.loads(done.stdout)["project_urls"] == {"cascadezoo-wave": url}
    # Without the plugin the error shows the address.
    path.write_text(done.stdout)
    failed = cascadezoo("validate", path)
    assert failed.returncode == 2
    assert f"pip install 'cascadezoo-wave>=0.1.0' (cascadezoo-wave is {url}, says" in failed.stderr


def test_specs_without_plugins_have_no_addresses() -> None:
    assert "project_urls" not in load_spec("shapes-tiny").spec.to_dict()


def test_a_kind_of_the_index_is_found_by_its_name() -> None:
    data = load_spec("shapes-tiny").spec.to_dict()
    data["stages"][2] = {"name": "refine", "kind": "srgan.v1"}
    with pytest.raises(SpecError, match="srgan") as caught:
        load_spec(data)
    assert f"the plugin cascadezoo-gan provides it: pip install cascadezoo-gan ({GAN})" in str(
        caught.value
    )
    assert indexed("cascadezoo-wave") is None
