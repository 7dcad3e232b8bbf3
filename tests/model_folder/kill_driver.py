"""Kills a command before each of its file events in turn, and runs it again after each kill.

``python kill_driver.py FIRST STEP TEMPLATE WORK FOLDER ARGUMENT...`` kills before the events FIRST,
FIRST + STEP and so on, and at last after all of them: it copies TEMPLATE to WORK for each kill,
runs ``cascadezoo ARGUMENT...`` there and prints one JSON row for each kill. FOLDER is the model
folder that the command changes. Every run is a fork of this process, which has imported everything.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import cascadezoo
import cascadezoo.evaluate.evaluate_model
import cascadezoo.hub.pull
import cascadezoo.tune.tune_model
from cascadezoo.cards.card_file import read_card
from cascadezoo.cli.main import main
from cascadezoo.model_folder.files import model_files, read_file
from cascadezoo.model_folder.integrity import check_files
from cascadezoo.model_folder.layout import CONFIG, read_config

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate")
KILLED = 77


def kill_before(number: int) -> None:
    """Let this process die before its file event of that number."""
    count = 0

    def event() -> None:
        nonlocal count
        if count == number:
            os._exit(KILLED)
        count += 1

    def audit(name: str, args: tuple[Any, ...]) -> None:
        if name in EVENTS or (name == "open" and isinstance(args[2], int) and args[2] & WRITES):
            event()

    fsync = os.fsync

    def synced(file: Any) -> None:
        event()
        fsync(file)

    os.fsync = synced
    sys.addaudithook(audit)


def forked(action: Callable[[], object]) -> tuple[int, str]:
    """Run an action in a fork; returns its exit code and its result, or its error."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        code = 0
        try:
            result = str(action())
        except SystemExit as error:
            code, result = int(error.code or 0), ""
        except BaseException as error:  # noqa: BLE001
            code, result = 99, repr(error)
        os.write(write, result.encode())
        os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        text = file.read().decode()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


def run(arguments: list[str]) -> int:
    """Run a command in this process; returns its exit code."""
    output = os.open("../output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        main(arguments, prog_name="cascadezoo")
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def killed(arguments: list[str], number: int) -> bool:
    def command() -> None:
        kill_before(number)
        sys.exit(run(arguments))

    return forked(command)[0] == KILLED


def again(arguments: list[str], folder: Path) -> str:
    """Run the command again; the results of everything that a user may do then."""
    code = run(arguments)
    row = {"again": code, "output": Path("../output").read_text() if code else ""}
    row |= {"state": state(folder), "load": load(folder)}
    return json.dumps({**row, "card": run(["card", str(folder), "--check"]), "files": contents()})


def state(folder: Path) -> str:
    """A digest of the model as readers see it; fails if its files do not fit each other."""
    config = read_config(folder)
    check_files(folder, config)
    names = sorted([CONFIG, *model_files(folder)])
    read_card(folder)
    rows = {name: hashlib.sha256(read_file(folder, name)).hexdigest() for name in names}
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    assert set(config.files) <= set(names), names
    return digest


def load(folder: Path) -> str:
    cascade = cascadezoo.Cascade.from_pretrained(folder)
    return str(float(cascade.sample(1, seed=0).sum()))


def contents() -> list[str]:
    return sorted(str(p) for p in Path().rglob("*") if p.is_file())


def drive(numbers: range, template: Path, work: Path, folder: Path, arguments: list[str]) -> None:
    def fresh() -> None:
        os.chdir("/")
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(template, work)
        os.chdir(work)

    fresh()
    old = forked(lambda: state(folder))[1] if folder.exists() else ""
    code, text = forked(lambda: again(arguments, folder))
    assert code == 0, text
    print(json.dumps({"old": old, **json.loads(text)}))
    for number in numbers:
        fresh()
        if not killed(arguments, number):
            return
        row = {"number": number, "killed": None}
        if folder.exists():
            row["killed"] = forked(lambda: state(folder))
        code, text = forked(lambda: again(arguments, folder))
        assert code == 0, (number, text)
        print(json.dumps({**row, **json.loads(text)}), flush=True)
    raise AssertionError("the command does not end")


if __name__ == "__main__":
    torch.set_num_threads(1)
    first, step = int(sys.argv[1]), int(sys.argv[2])
    folders = [Path(name) for name in sys.argv[3:6]]
    drive(range(first, 1000, step), *folders, sys.argv[6:])
