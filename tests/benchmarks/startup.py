"""Compares commands without torch with ``python -c "import click, pydantic"``."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "cascadezoo --help": ["-m", "cascadezoo", "--help"],
    "cascadezoo stages list": ["-m", "cascadezoo", "stages", "list"],
    "cascadezoo validate shapes-demo": ["-m", "cascadezoo", "validate", "shapes-demo"],
}
BASE = ["-c", "import click, pydantic"]


def seconds(arguments: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    for name, arguments in COMMANDS.items():
        seconds(arguments)
        pairs = [(seconds(arguments), seconds(BASE)) for _ in range(11)]
        mine, base = (statistics.median(column) * 1000 for column in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"{name}: {mine:.0f} ms, click and pydantic {base:.0f} ms, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
