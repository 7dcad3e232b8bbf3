"""``cascadezoo doctor``."""

from __future__ import annotations

import click

from cascadezoo.cli.options import examples, json_option
from cascadezoo.cli.output import echo, echo_json, table


@click.command(
    "doctor",
    epilog=examples(
        "cascadezoo doctor",
        "cascadezoo doctor --json",
    ),
)
@json_option
def command(as_json: bool) -> None:
    """Check this machine: packages, devices, weights, caches.

    Exits with 1 if something that cascadezoo itself needs is missing, too old or broken.
    Missing weights are no error: they are downloaded when they are needed.
    """
    from cascadezoo.cli.machine_report import examine

    findings = examine()
    if as_json:
        echo_json({"ok": all(f.ok for f in findings), "checks": [f.to_dict() for f in findings]})
    else:
        rows = [("ok" if f.ok else "BROKEN", f.part, f.name, f.text) for f in findings]
        echo(table(("STATE", "PART", "WHAT", "FOUND"), rows))
        for finding in findings:
            if finding.hint is not None:
                echo(f"Hint: {finding.name}: {finding.hint}")
    if not all(finding.ok for finding in findings):
        raise click.exceptions.Exit(1)
