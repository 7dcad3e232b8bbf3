"""``python -m cascadezoo``: the same as the command ``cascadezoo``."""

from cascadezoo.cli.main import main

if __name__ == "__main__":
    main(prog_name="cascadezoo")
