"""The campaign ``specs``: shipped specs, spoilt, given to ``validate`` and ``plan``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from campaigns.engine import Campaign
from campaigns.mutate import change, hostile, to_json, words
from campaigns.outcome import ROOT
from campaigns.trial import Trial

__all__ = ["Specs"]

PRESETS = ROOT / "cascadezoo" / "spec" / "presets"


class Specs(Campaign):
    """``validate`` and ``plan`` answer any spec, the second within 10 seconds and 2 GiB."""

    name = "specs"
    cpu_seconds = 10.0

    def run(self, trial: Trial) -> None:
        random = trial.random
        preset = random.choice(sorted(PRESETS.glob("*.json")))
        text, title = _spoilt(trial, json.loads(preset.read_text()))
        trial.say(f"{preset.stem}: {title}")
        trial.watch.read += ("/",)  # data that the user's own spec names may be looked at
        path = Path("spec.json")
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        checked = trial.command("validate", path)
        planned = trial.command("plan", path, *random.choice([(), ("--json",)]))
        if planned.ok:
            trial.require(checked.ok, "plan accepts what validate refuses", checked.text)
        if checked.ok and random.random() < 0.3:
            resolved = trial.command("validate", path, "--resolved")
            again = Path("again.json")
            again.write_text(resolved.text.split("\nWarning")[0], encoding="utf-8")
            trial.require(trial.command("validate", again).ok, "a resolved spec does not validate")


def _spoilt(trial: Trial, spec: dict[str, Any]) -> tuple[str, str]:
    random = trial.random
    how = random.random()
    if how < 0.12:
        return words(random, json.dumps(spec)), "the text itself"
    if how < 0.45:
        return _larger(trial, spec)
    if how < 0.55:
        spec["data"] = _data(trial)
        return to_json(random, spec), f"data = {spec['data']}"
    done = [change(random, spec) for _ in range(random.choice([1, 1, 1, 2, 4]))]
    return to_json(random, spec), "; ".join(done)


def _larger(trial: Trial, spec: dict[str, Any]) -> tuple[str, str]:
    """A cascade of any kinds, whose numbers are valid by themselves and large."""
    random = trial.random
    kinds = _kinds()
    size = random.choice([8, 16, 32, 64, 256, 1024, 4096])
    spec = {**spec, "data": {"source": "shapes", "config": {"size": min(size, 256)}}}
    if size > 256:
        spec["data"]["size"] = size
    roles = [["generator"], ["generator", "upsampler"], ["generator", "upsampler", "refiner"]]
    roles += [["generator", "decoder"], ["generator", "refiner", "refiner"]]
    stages, done = [], [f"data {size}"]
    for number, role in enumerate(random.choice(roles)):
        kind, fields = random.choice(kinds[role])
        config: dict[str, Any] = {}
        for name in random.sample(fields, min(len(fields), random.choice([0, 1, 1, 2, 3]))):
            config[name] = random.choice(
                [2, 3, 8, 16, 64, 256, 1000, 1024, 2048, 8192, 16384, 65536]
            )
        stages.append({"name": f"s{number}", "kind": kind, "config": config})
        done.append(f"{kind} {config}")
    spec["stages"] = stages
    names = [stage["name"] for stage in stages]
    spec["training"] = {"phases": [{"name": "all", "train": names, "steps": 10}]}
    if random.random() < 0.3:
        spec["training"]["batch_size"] = random.choice([1, 4096, 65536, 10**6])
    spec["evaluation"] = {"metrics": []}
    return json.dumps(spec), "; ".join(done)


def _kinds() -> dict[str, list[tuple[str, list[str]]]]:
    """The installed kinds by role, each with the whole numbers of its config."""
    from cascadezoo.plugins.manager import get_registry

    rows: dict[str, list[tuple[str, list[str]]]] = {}
    for row in get_registry().stages:
        fields = row.entry.load_config().model_fields.items()
        numbers = sorted(name for name, field in fields if "int" in str(field.annotation))
        rows.setdefault(row.entry.role, []).append((row.entry.name, numbers))
    return {role: sorted(kinds) for role, kinds in rows.items()}


def _data(trial: Trial) -> dict[str, Any]:
    random = trial.random
    source = random.choice(["npz", "folder", "shapes", "mnist", "cifar10", "nowhere"])
    places = ["\0", "~nobody", "~nobody/x", "x" * 5000, "/" * 5000, "nowhere.npz", "", ".", "a\0b"]
    config: dict[str, Any] = {}
    if source in ("npz", "folder"):
        config["path"] = random.choice(places)
    if random.random() < 0.5:
        config[random.choice(["path", "test_path", "limit", "root", "resize"])] = hostile(
            random, "x"
        )
    data: dict[str, Any] = {"source": source, "config": config}
    if random.random() < 0.5:
        data["size"] = hostile(random, 16)
    return data
