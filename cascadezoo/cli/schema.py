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
@click.option("--kind", metavar="KIND", help="Only the config of this stage kind.")
@click.option("--json", "as_json", is_flag=True, help="Changes nothing: a schema is JSON.")
def command(what: str, kind: str | None, as_json: bool) -> None:
    """Print the JSON Schema of specs, for editors.

    It knows the config of every installed stage kind, dataset and loss. Name the file in a spec
    as "$schema", and an editor completes and checks while you write. WHAT is spec or metrics: the
    latter is the schema of a model's metrics.json.
    """
    if what == "metrics":
        if kind is not None:
            raise click.UsageError("--kind is of specs, not of metrics.json")
        from cascadezoo.model_folder.metrics_file import metrics_schema

        echo_json(metrics_schema())
        return
    from cascadezoo.spec.schema import kind_schema, spec_schema

    echo_json(spec_schema() if kind is None else kind_schema(kind))
