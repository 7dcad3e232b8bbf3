"""The wording of errors of the command line and of problems of plugins."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cascadezoo.cli.errors import report
from cascadezoo.cli.image_files import format_of, open_images
from cascadezoo.cli.main import main
from cascadezoo.errors import CascadezooError, InputError
from cascadezoo.plugins.manager import PluginHost, get_host
from cascadezoo.plugins.registry import StageEntry
from cascadezoo.spec.configs import ImageShape
from cascadezoo.testing.template import write_project
from cascadezoo.zoo.list import bundled_folder, find


def opened(path: str, n: int) -> None:
    what = format_of(path, None)
    with open_images(Path(path), what, n=n, image=ImageShape(3, 8), labelled=False, force=False):
        pass


def command(*args: str) -> None:
    main(list(args), standalone_mode=False)


# Calls in a folder with a file and a folder of images; and their error messages.
MESSAGES: dict[str, tuple[Callable[[], object], str]] = {
    "an unknown image format": (
        lambda: format_of("a.jpg", None),
        "images cannot be written as .jpg (a.jpg)\n"
        "Hint: use a .png file (a grid), an .npz file, or a folder DIR/",
    ),
    "a strip in an npz": (
        lambda: format_of("a.npz", "stages"),
        "--stages needs a .png file, not a.npz\nHint: -o stages.png --stages",
    ),
    "a picture of too many images": (
        lambda: opened("a.png", 9_000_000),
        "a picture of 9000000 images is too large\nHint: -o DIR/ or -o images.npz",
    ),
    "a folder with images": (
        lambda: opened("images/", 1),
        "images already contains 000000.png\n"
        "Hint: choose another folder with -o, or replace the files with --force",
    ),
    "a folder that is a file": (
        lambda: opened("file/", 1),
        "file cannot be written: File exists\nHint: choose another path with -o",
    ),
    "a guidance grid of two models": (
        lambda: command("report", "a", "b", "--guidance", "1"),
        "--guidance takes one model, not 2\n"
        "Hint: name one model, or omit --guidance to compare them on a page",
    ),
    "a guidance grid in an npz": (
        lambda: command("report", "a", "--guidance", "1", "-o", "a.npz"),
        "--guidance needs a .png file, not a.npz\nHint: -o guidance.png",
    ),
    "a report in a png": (
        lambda: command("report", "a", "-o", "a.png"),
        "the report needs an .html file, not a.png\nHint: -o report.html",
    ),
    "a report of too many models": (
        lambda: command("report", *map(str, range(13))),
        "a page takes at most 12 models, not 13\nHint: write several pages",
    ),
    "an unknown shipped spec": (
        lambda: command("specs", "show", "shapes-dem"),
        "unknown shipped spec 'shapes-dem'\nHint: did you mean 'shapes-demo'?",
    ),
    "a check of an unknown plugin": (
        lambda: command("plugins", "check", "wabe"),
        "no plugin of the distribution 'wabe' is installed\n"
        f"Hint: installed: {', '.join(sorted({p.origin.distribution for p in get_host().plugins}))}",
    ),
    "a malformed setting of a check": (
        lambda: command("plugins", "check", "cascadezoo", "--set", "x=1"),
        "--set 'x=1' does not have the form ENTRY:PATH=VALUE",
    ),
    "a project in a bundled model": (
        lambda: write_project("wave", "refiner", bundled_folder(find("shapes-tiny")) / "plugin"),
        f"{bundled_folder(find('shapes-tiny')) / 'plugin'} is inside a model that ships with "
        "cascadezoo, which is read-only",
    ),
    "a kind of a missing plugin": (
        lambda: get_host().registry.stages.get("autoencoder-kl.v3"),
        "unknown stage kind 'autoencoder-kl.v3'\n",
    ),
    "cascadezoo that is not installed": (
        lambda: not_installed(),
        "the built-in stages are not registered: cascadezoo is imported but not installed\n"
        "Hint: pip install . (or pip install -e . in a checkout)",
    ),
}


def not_installed() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cascadezoo.plugins.manager.entry_points", lambda group: [])
        get_host.__wrapped__()


@pytest.mark.parametrize("case", MESSAGES)
def test_message(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("hello")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "000000.png").touch()
    call, message = MESSAGES[case]
    with pytest.raises(CascadezooError) as caught:
        call()
    assert str(caught.value).startswith(message)


USAGE = {
    "evaluate a --metrics ,": "Invalid value for '--metrics': name at least one metric, or all",
    "evaluate a --check -n 10": "--check takes its settings from the card; remove -n",
    "card a --print --check": "--print and --check exclude each other",
    "sample a --stages --trajectory": "--stages and --trajectory exclude each other",
    "sample a --stage up": "--stage needs --trajectory",
    "schema metrics --kind flow.v1": "--kind applies to specs, not to metrics",
    "tune a --over s --values s=1 --values s=2": "Invalid value for '--values': 's' is set twice",
    "biuld": "unknown command 'biuld'; did you mean 'build'?",
    "plugins check cascadezoo --skip nothing": "unknown check 'nothing'; the checks are",
}


@pytest.mark.parametrize("line", USAGE)
def test_usage_message(line: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        main(line.split(), standalone_mode=False)
    assert caught.value.format_message().startswith(USAGE[line])


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (InputError("it is wrong", hint="change it"), "Error: it is wrong\nHint: change it\n"),
        (KeyboardInterrupt(), "Error: interrupted\n"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x"),
            "Error: /data/x: No space left on device\n"
            "Hint: free space on that disk and try again\n",
        ),
        (
            MemoryError(),
            "Error: out of memory: MemoryError\n"
            "Hint: use a smaller batch or cascade; cascadezoo plan SPEC shows the memory it needs\n",
        ),
        (
            ZeroDivisionError("division by zero"),
            "Error: internal error: ZeroDivisionError: division by zero\n"
            "Hint: run again with CASCADEZOO_DEBUG=1 and report the output\n",
        ),
    ],
)
def test_report_of_an_error(
    error: BaseException, lines: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report(error, as_json=False)
    assert capsys.readouterr().err == lines


def test_hint_of_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["validate"], prog_name="cascadezoo")
    assert result.stderr.splitlines()[-1] == "Hint: cascadezoo validate --help shows the usage"


HEAD = "from cascadezoo import StageEntry, hookimpl\n\n@hookimpl\n"

PROBLEMS = {
    "import torch_missing\n": "cannot be loaded: ModuleNotFoundError: No module named 'torch_missing'",
    f"{HEAD}def register_stage():\n    return []\n": "unknown hook 'register_stage'; the hooks are "
    "register_stages, register_datasets, ",
    "def register_stages():\n    return []\n": "'register_stages' is not marked with "
    "@cascadezoo.hookimpl, so it is not called",
    f"{HEAD}def register_stages():\n    return ['x']\n": "register_stages() returned a str, not a "
    "StageEntry",
    f"{HEAD}def register_stages(x):\n    return []\n": "register_stages() is not a valid hook: ",
    f"{HEAD}def register_stages():\n    return [StageEntry(name='a.v1', role='refiner', "
    "summary='', impl='m:X', api=9)]\n": "stage 'a.v1' needs API level 9; this cascadezoo has level "
    "1; pip install --upgrade cascadezoo",
    "CASCADEZOO_API = 0\n": "the plugin needs API level 0; this cascadezoo has level 1; pip install "
    "--upgrade dist-bad",
}


@pytest.mark.parametrize("source", PROBLEMS)
def test_problem_of_a_plugin(source: str, plugin) -> None:
    (problem,) = PluginHost([plugin("dist-bad", "0.1", source)]).problems
    assert problem.message.startswith(PROBLEMS[source])


def test_contested_and_deprecated_kinds(plugin) -> None:
    entry = "def register_stages():\n    return [StageEntry(name='a.v1', role='refiner', "
    source = f"{HEAD}{entry}summary='', impl='m:X')]\n"
    host = PluginHost([plugin(name, "1.0", source) for name in ("dist-a", "dist-b")])
    text = "stage kind 'a.v1' is claimed by dist-a 1.0 and dist-b 1.0; neither is used"
    assert [problem.message for problem in host.problems] == [text, text]
    host = PluginHost(
        [plugin("dist-c", "1.0", source.replace("impl=", "deprecated='use b', impl="))]
    )
    with pytest.warns(FutureWarning) as caught:
        host.registry.stages.get("a")
    assert str(caught[0].message) == "stage kind 'a.v1' is deprecated: use b"


def test_malformed_entries() -> None:
    fields = {"name": "a.v1", "role": "refiner", "summary": "", "impl": "a:b"}
    for wrong, message in {
        ("name", "Wave"): "stage name 'Wave' does not have the form 'name.v1 or namespace/name.v1'",
        ("impl", "x"): "stage 'a.v1': impl='x' does not have the form 'package.module:Name'",
        ("deprecated", " "): "stage 'a.v1': deprecated must state what to use instead",
    }.items():
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared
            StageEntry(**{**fields, wrong[0]: wrong[1]})
        assert str(caught.value) == message
