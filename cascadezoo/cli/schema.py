"""``cascadezoo schema``."""

from __future__ import annotations

import click

from cascadezoo.cli.options import examples
from cascadezoo.cli.output import echo_json


@click.command(
    "schema",
    epilog=examples(
        "cascadezoo schema > cascadezoo.schema.json",
        "cascadezoo schema --kind flow.v1",
        "cascadezoo schema metrics",
    ),
)
@click.argument("what", type=click.Choice(["spec", "metrics"]), default="spec")
@click.option("--kind", metavar="KIND", help="Print only the config of this stage kind.")
@click.option("--json", "as_json", is_flag=True, help="Has no effect: a schema is always JSON.")
def command(what: str, kind: str | None, as_json: bool) -> None:
    """Print the JSON Schema of specs, for editors.

    It includes the config of every installed stage kind, dataset and loss. If a spec names the
    file as "$schema", editors complete and check it. WHAT is spec or metrics; metrics prints the
    schema of a model's metrics.json.
    """
    if what == "metrics":
        if kind is not None:
            raise click.UsageError("--kind applies to specs, not to metrics")
        from cascadezoo.model_folder.metrics_file import metrics_schema

        echo_json(metrics_schema())
        return
    from cascadezoo.spec.schema import kind_schema, spec_schema

    echo_json(spec_schema() if kind is None else kind_schema(kind))
