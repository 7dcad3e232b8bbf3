"""Makes a bundled model from a trained one: half-precision weights, card, pictures, manifest entry.

    python tests/gpu/bundle_model.py RUN cifar10 --set stages.0.config.guidance=2.0

Figures are not copied. Measure the result with ``cascadezoo evaluate FOLDER --save`` while the
plugin is not installed, then run ``python tests/gpu/bundle_model.py --manifest``.
"""

import argparse
import json
from pathlib import Path

from cascadezoo import Cascade
from cascadezoo._version import __version__
from cascadezoo.cards.render_card import render_card
from cascadezoo.cascade.stage_costs import stage_rows
from cascadezoo.hub.locate import locate
from cascadezoo.model_folder.integrity import seal
from cascadezoo.model_folder.layout import CARD, METRICS, SAMPLES
from cascadezoo.model_folder.metrics_file import DataRow, read_metrics
from cascadezoo.report.images import samples_picture
from cascadezoo.spec import load_spec
from cascadezoo.zoo.entry import bundled_entry
from cascadezoo.zoo.manifest import Manifest, read_manifest_file, write_manifest

HERE = Path(__file__).parents[2] / "plugins" / "cascadezoo-models" / "cascadezoo_models"
SHOWN = 36


def make(run: str, name: str, description: str, settings: list[str]) -> None:
    """Write ``models/NAME``."""
    source = locate(run)
    trained = Cascade.from_pretrained(source)
    data = trained.spec.to_dict()
    data["requires"] = []
    data["description"] = description or data["description"]
    changes = [f"name={json.dumps(name)}", *settings]
    resolved = load_spec(data, settings=changes)
    cascade = Cascade(resolved, list(trained.stages)).eval()
    folder = HERE / "models" / name
    cascade.save_pretrained(folder, weights="bf16")
    # The samples are drawn with the rounded weights.
    cascade = Cascade.from_pretrained(folder)
    samples = cascade.sample(SHOWN, seed=0, return_stages=True)
    samples_picture(samples[cascade.names[-1]], samples).save(folder / SAMPLES)
    info = cascade.resolved.data_info
    before = read_metrics(source)
    metrics = before.model_copy(
        update={
            "name": name,
            "spec_digest": cascade.spec.digest(),
            "figures": [],
            "stages": stage_rows(cascade),
            "data": DataRow(
                source=cascade.spec.data.source,
                title=info.title,
                license=info.license,
                hub_id=info.hub_id,
            ),
        }
    )
    (folder / METRICS).write_text(metrics.to_json(), encoding="utf-8")
    card = render_card(cascade.spec, metrics.to_dict(), info)
    (folder / CARD).write_text(card, encoding="utf-8")
    seal(folder, cascade.spec, __version__)


def main() -> None:
    """Run the command line; see the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?")
    parser.add_argument("name", nargs="?")
    parser.add_argument("--description", default="")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--manifest", action="store_true")
    args = parser.parse_args()
    if args.run:
        make(args.run, args.name, args.description, args.settings)
    models = [bundled_entry(folder) for folder in sorted((HERE / "models").iterdir())]
    file = HERE / "zoo_manifest.json"
    before = read_manifest_file(file)
    manifest = Manifest(version=1, models=models, defaults=before.defaults if before else {})
    write_manifest(file, manifest)


if __name__ == "__main__":
    main()
