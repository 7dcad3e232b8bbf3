"""Builds what a tag releases: ``python tools/release_dist.py TAG FOLDER``.

``v0.2.0`` is the package, ``cascadezoo-gan-v0.2.0`` the plugin in ``plugins/cascadezoo-gan``. The
version of the built files must be that of the tag.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_TAG = re.compile(r"(?:(?P<plugin>cascadezoo-[a-z0-9-]+)-)?v(?P<version>[0-9][0-9a-z.]*)")


def project_of(tag: str) -> tuple[Path, str]:
    """The folder of the project that a tag releases, and the version.

    Raises:
        ValueError: the tag has another form, or no such plugin exists.
    """
    match = _TAG.fullmatch(tag)
    if match is None:
        raise ValueError(f"{tag!r} is neither vX.Y.Z nor PLUGIN-vX.Y.Z")
    folder = ROOT if match["plugin"] is None else ROOT / "plugins" / match["plugin"]
    if not (folder / "pyproject.toml").is_file():
        raise ValueError(f"{tag!r} names no project: {folder.name} does not exist")
    return folder, match["version"]


def main(tag: str, out: str) -> None:
    """Build the wheel and the sdist of a tag, and compare their version with it."""
    folder, version = project_of(tag)
    command = [sys.executable, "-m", "build", "--outdir", out, str(folder)]
    subprocess.run(command, check=True)  # noqa: S603 - our own command line
    built = sorted(path.name for path in Path(out).iterdir())
    wrong = [name for name in built if f"-{version}-" not in name and f"-{version}.tar" not in name]
    if wrong or len(built) != 2:
        sys.exit(f"the tag {tag} does not match what was built: {', '.join(built)}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except ValueError as error:
        sys.exit(str(error))
