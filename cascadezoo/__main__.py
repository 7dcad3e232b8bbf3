"""``python -m cascadezoo``: the same as the command ``cascadezoo``."""

from cascadezoo.cli.main import main

main(prog_name="python -m cascadezoo")
