from __future__ import annotations

import json
from importlib.metadata import entry_points

import pytest

from cascadezoo.plugins.registry import StageEntry

GOOD = """
from cascadezoo.plugins.hookspecs import hookimpl
from cascadezoo.plugins.registry import StageEntry

@hookimpl
def register_stages():
    return [StageEntry(name="wave.v1", role="refiner", summary={summary!r}, impl="no_such_wave:Stage")]
"""

# The module of a broken plugin, the code of its problem, a value in the message, and the line.
BROKEN = {
    "import error": ("import os\nimport no_such_module\n", "import-failed", "no_such_module", 2),
    "syntax error": ("x = 1\ndef f(:\n    pass\n", "import-failed", "SyntaxError", 2),
    "exits": ("import sys\nsys.exit(3)\n", "import-failed", "SystemExit", 2),
    "hook that raises": (
        "from cascadezoo.plugins.hookspecs import hookimpl\n\n"
        "@hookimpl\ndef register_stages():\n    raise ValueError('oh\\x1b[31m no')\n",
        "hook-failed",
        "oh\\x1b[31m no",
        5,
    ),
    "misspelt hook": (
        "from cascadezoo.plugins.hookspecs import hookimpl\n\n"
        "@hookimpl\ndef register_stage():\n    return []\n",
        "hook-unknown",
        "'register_stage'",
        3,
    ),
    "rubbish": (
        "from cascadezoo.plugins.hookspecs import hookimpl\n\n"
        "@hookimpl\ndef register_stages():\n    return ['flow']\n",
        "entry-type",
        "str",
        3,
    ),
    "imports torch": (
        "from cascadezoo.plugins.hookspecs import hookimpl\nimport json, torch\n",
        "imports-heavy",
        "torch",
        2,
    ),
    "hook that imports torch": (
        "from cascadezoo.plugins.hookspecs import hookimpl\n\n@hookimpl\ndef register_stages():\n"
        "    import torch\n    return []\n",
        "imports-heavy",
        "register_stages() imports torch",
        5,
    ),
    "another API level": (
        "x = 1\nCASCADEZOO_API = 3\n",
        "api-level",
        "pip install --upgrade cascadezoo",
        2,
    ),
    "taken kind": (
        GOOD.format(summary="mine").replace("wave.v1", "flow.v1"),
        "name-reserved",
        "'flow.v1' is built in",
        5,
    ),
}


@pytest.mark.skipif(len(entry_points(group="cascadezoo")) > 1, reason="plugins are installed here")
def test_none_installed(invoke):
    result = invoke("plugins", "list")
    assert result.exit_code == 0
    assert "--all" in result.stdout
    assert json.loads(invoke("plugins", "list", "--json").stdout) == []


def test_all_shows_the_built_in_entries(invoke):
    row = json.loads(invoke("plugins", "list", "--all", "--json").stdout)[0]
    assert (row["distribution"], row["state"], row["problems"]) == ("cascadezoo", "loaded", [])
    assert "flow.v1" in row["registers"]["stage kind"]
    assert "register_stages" in row["hooks"]
    assert "cascadezoo:builtin" in invoke("plugins", "list", "--all").stdout


def test_a_plugin_and_its_kind_are_listed(cascadezoo, plugin):
    source = GOOD.format(summary="waves \x1b[5m and\nError: more")
    env = plugin("cascadezoo-wave", source.replace("no_such_wave:Stage", "json:dumps"))
    rows = json.loads(cascadezoo("plugins", "list", "--json", env=env).stdout)
    assert all(0 <= row.pop("seconds") < 0.5 for row in rows)
    assert [row for row in rows if row["distribution"] == "cascadezoo-wave"] == [
        {
            "distribution": "cascadezoo-wave",
            "version": "1.0",
            "plugin": "cascadezoo-wave:main",
            "entry_point": "cascadezoo_wave",
            "state": "loaded",
            "hooks": ["register_stages"],
            "registers": {"stage kind": ["wave.v1"]},
            "problems": [],
        }
    ]
    listed = cascadezoo("stages", "list", "wave*", env=env)
    assert listed.stderr == ""
    assert listed.stdout.splitlines()[1].split() == [
        "wave.v1",
        "refiner",
        "cascadezoo-wave",
        "1.0",
        "waves",
        "\\x1b[5m",
        "and\\nError:",
        "more",
    ]
    limited = cascadezoo("plugins", "list", env=env | {"CASCADEZOO_LOAD_PLUGINS": ""})
    assert "disabled" in limited.stdout
    assert "CASCADEZOO_LOAD_PLUGINS" in limited.stdout


@pytest.mark.parametrize("case", BROKEN)
def test_broken_plugin_is_reported_with_file_and_line(case, cascadezoo, plugin):
    source, code, shown, line = BROKEN[case]
    env = plugin("cascadezoo-broken", source)
    result = cascadezoo("plugins", "list", env=env)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert shown in result.stdout
    assert f"cascadezoo_broken.py:{line}" in result.stdout
    assert "\x1b" not in result.stdout
    rows = json.loads(cascadezoo("plugins", "list", "--json", env=env).stdout)
    problems = [
        p for row in rows for p in row["problems"] if row["plugin"].startswith("cascadezoo-b")
    ]
    assert [p["code"] for p in problems] == [code]


# Configs with problems that loading the plugin does not show: the code, a value, and the line.
CONFIGS = {
    "imports torch": ("import json\nimport torch\n", "imports-heavy", "torch", "wave_config.py:2"),
    "imports torch indirectly": (
        "\n\nimport wave_layers\n",
        "imports-heavy",
        "wave.v1 imports torch",
        "wave_config.py:3",
    ),
    "imports torch and hides the error": (
        "try:\n    import numpy\nexcept ImportError:\n    pass\n\n\nclass C:\n    pass\n",
        "imports-heavy",
        "numpy",
        "wave_config.py:2",
    ),
    "import error": (
        "import no_such_module\n",
        "unusable",
        "ModuleNotFoundError",
        "wave_config.py:1",
    ),
    "not a config": (
        "class C:\n    pass\n",
        "unusable",
        "cascadezoo.Model",
        "cascadezoo_wave.py:5",
    ),
    "missing": ("x = 1\n", "unusable", "AttributeError", "cascadezoo_wave.py:5"),
    "missing implementation": (
        "from cascadezoo import RefinerConfig as C\n",
        "unusable",
        "no_such_wave",
        "cascadezoo_wave.py:5",
    ),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_faulty_config_is_reported_with_file_and_line(case, cascadezoo, plugin, tmp_path):
    content, code, shown, line = CONFIGS[case]
    source = GOOD.format(summary="w").replace("impl=", "config='wave_config:C', impl=")
    env = plugin("cascadezoo-wave", source)
    (tmp_path / "site" / "wave_config.py").write_text(content)
    (tmp_path / "site" / "wave_layers.py").write_text("import torch\n")
    rows = json.loads(cascadezoo("plugins", "list", "--json", env=env).stdout)
    (row,) = [row for row in rows if row["distribution"] == "cascadezoo-wave"]
    assert row["state"] == "faulty"
    (problem,) = row["problems"]
    assert problem["code"] == f"config-{code}"
    assert shown in problem["message"]
    assert problem["where"].endswith(line)
    assert cascadezoo("stages", "list", env=env).returncode == 0
    assert cascadezoo("validate", "shapes-demo", env=env).returncode == 0


def test_plugins_list_imports_no_torch(tmp_path, plugin):
    import os
    import subprocess
    import sys

    source = GOOD.format(summary="w").replace("impl=", "config='wave_config:C', impl=")
    env = plugin("cascadezoo-wave", source)
    (tmp_path / "site" / "wave_config.py").write_text("import torch\n")
    code = (
        "import sys\nfrom cascadezoo.cli.main import main\n"
        "try:\n    main(['plugins', 'list'])\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **env}, check=False)
    assert done.returncode == 0


def test_deprecated_kind_is_listed_and_warns_in_one_line(cascadezoo, plugin, lone, spec_file):
    source = GOOD.format(summary="old").replace(
        "impl=", "deprecated='use wave.v2', config='cascadezoo:RefinerConfig', impl="
    )
    env = plugin("cascadezoo-wave", source)
    assert "old (deprecated: use wave.v2)" in cascadezoo("stages", "list", env=env).stdout
    lone["stages"].append({"name": "wave", "kind": "wave.v1"})
    result = cascadezoo("validate", str(spec_file(lone)), env=env)
    assert result.returncode == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("Warning: ")
    assert "'wave.v1'" in line
    assert line.endswith(": use wave.v2")


def test_broken_plugin_does_not_affect_other_commands(cascadezoo, plugin):
    env = plugin("cascadezoo-broken", BROKEN["import error"][0])
    listed = cascadezoo("stages", "list", env=env)
    assert listed.returncode == 0
    assert "flow.v1" in listed.stdout
    assert "cascadezoo plugins list" in listed.stderr
    assert cascadezoo("validate", "shapes-demo", env=env).returncode == 0
    rows = json.loads(cascadezoo("plugins", "list", "--json", env=env).stdout)
    (row,) = [row for row in rows if row["distribution"] == "cascadezoo-broken"]
    assert row["state"] == "broken"
    assert row["problems"][0]["where"].endswith("cascadezoo_broken.py:2")


def test_contested_kind_is_an_error_that_names_both_plugins(cascadezoo, plugin):
    plugin("cascadezoo-first", GOOD.format(summary="mine"))
    env = plugin("cascadezoo-thief", GOOD.format(summary="mine"))
    result = cascadezoo("stages", "show", "wave.v1", "--json", env=env)
    assert result.returncode == 1
    error = json.loads(result.stderr)["error"]
    assert error["code"] == "plugin-contested"
    assert "cascadezoo-first 1.0" in error["message"]
    assert "cascadezoo-thief 1.0" in error["message"]
    assert cascadezoo("validate", "paper-baseline", env=env).returncode == 0


def test_kind_whose_config_cannot_be_imported(cascadezoo, plugin):
    env = plugin(
        "cascadezoo-wave",
        GOOD.format(summary="w").replace("impl=", "config='no_such_wave:C', impl="),
    )
    result = cascadezoo("stages", "show", "wave", "--json", env=env)
    assert result.returncode == 1
    error = json.loads(result.stderr)["error"]
    assert error["code"] == "plugin-import-failed"
    assert error["fields"]["name"] == "wave.v1"
    assert "no_such_wave:C: ModuleNotFoundError" in error["message"]
    assert error["hint"].startswith("cascadezoo plugins list")


def test_the_form_of_an_entry_is_checked():
    with pytest.raises(ValueError, match="'Wave'"):
        StageEntry(name="Wave", role="refiner", summary="", impl="no_such_wave:Stage")
