"""``cascadezoo card``."""

from __future__ import annotations

import click

from cascadezoo.cli.options import examples, json_option, model_argument
from cascadezoo.cli.output import clean, echo, echo_json


@click.command(
    "card",
    epilog=examples(
        "cascadezoo card runs/shapes-demo",
        "cascadezoo card runs/shapes-demo --print",
        "cascadezoo card models/digits --check",
    ),
)
@model_argument()
@click.option("--print", "show", is_flag=True, help="Print the card and write nothing.")
@click.option(
    "--check", is_flag=True, help="Exit with 1 if the card differs from what would be written."
)
@click.option("--force", is_flag=True, help="Also replace edited parts.")
@json_option
@click.pass_context
def command(
    ctx: click.Context, model: str, show: bool, check: bool, force: bool, as_json: bool
) -> None:
    """Regenerate a model's card and keep manual edits.

    README.md is generated from the spec and metrics.json. Its parts between the comments
    <!-- cascadezoo:begin ... --> are replaced, except edited parts. All other text is kept. MODEL
    is a run folder or a model folder; --print and --check accept any model.
    """
    from cascadezoo.cards.card_file import inspect_card
    from cascadezoo.errors import InputError
    from cascadezoo.hub.locate import locate
    from cascadezoo.model_folder.integrity import replace_files, require_writable
    from cascadezoo.model_folder.layout import CARD, read_config
    from cascadezoo.model_folder.metrics_file import read_metrics
    from cascadezoo.model_folder.trained_spec import published_spec

    if show and check:
        raise click.UsageError("--print and --check exclude each other")
    folder = locate(model)
    writes = not (show or check)
    config = require_writable(folder, model) if writes else read_config(folder)
    spec = published_spec(folder, config)
    state = inspect_card(folder, spec, read_metrics(folder).to_dict(), force=force)
    card = state.renewed
    if card.own and writes:
        raise InputError(
            f"{folder / CARD} was not written by cascadezoo",
            hint="--force replaces it; --print shows the generated card",
            code="input-card-foreign",
            path=folder / CARD,
        )
    # Also with an unchanged card: config.json must record the sha256 of manual edits.
    if writes:
        replace_files(folder, config, {CARD: card.text.encode()})
    result = {
        "model": str(folder),
        "name": spec.name,
        "current": state.unchanged if writes else state.current,
        "written": writes,
        "kept": list(card.kept),
        "added": list(card.added),
        "own": card.own,
        "faults": list(state.faults),
    }
    if as_json:
        echo_json({**result, "card": card.text} if show else result)
    elif show:
        echo(card.text.rstrip("\n"))
    else:
        _show(result)
    if check and (state.faults or not (state.current or card.own)):
        ctx.exit(1)


def _show(result: dict[str, object]) -> None:
    for fault in _texts(result["faults"]):
        echo(f"fault: {clean(fault)}")
    if kept := _texts(result["kept"]):
        echo(f"kept edited parts: {', '.join(kept)} (--force replaces them)")
    if added := _texts(result["added"]):
        echo(f"{'added' if result['written'] else 'missing'}: {', '.join(added)}")
    path = f"{clean(result['model'])}/README.md"
    if result["own"]:
        echo(f"{path} was not written by cascadezoo")
    elif result["written"]:
        echo(f"{path} {'is unchanged' if result['current'] else 'was rewritten'}")
    else:
        echo(f"{path} is {'up to date' if result['current'] else 'out of date'}")


def _texts(value: object) -> list[str]:
    return [str(text) for text in value] if isinstance(value, list) else []
