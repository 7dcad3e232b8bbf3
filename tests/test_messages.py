"""The wording of errors. All other tests assert codes, fields and values."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cascadezoo.build.run_folder import RunFolder
from cascadezoo.cards.card_file import read_card
from cascadezoo.data.folder import FolderConfig
from cascadezoo.data.holdout import holdout_indices
from cascadezoo.data.npz import NpzConfig
from cascadezoo.errors import CascadezooError
from cascadezoo.evaluate.metrics.kid import require_enough
from cascadezoo.hub.client import translated
from cascadezoo.hub.locate import locate
from cascadezoo.hub.publish.preconditions import check_options, repo_of
from cascadezoo.hub.publish.publish_model import read_destination
from cascadezoo.hub.refs import parse_reference
from cascadezoo.model_folder.layout import parse_config, read_config
from cascadezoo.model_folder.metrics_file import parse_metrics, read_metrics
from cascadezoo.plugins.manager import get_registry
from cascadezoo.spec import apply_settings, load_spec, parse_json, shipped_specs
from cascadezoo.stages.request_options import checked_interval, chosen_sampler, chosen_steps
from cascadezoo.sweep.spec import read_sweep, shipped_sweeps
from cascadezoo.train.engine import pick_device
from cascadezoo.zoo.manifest import parse_manifest, read_manifest_file


def npz(**arrays: object) -> str:
    np.savez("data.npz", **arrays)  # type: ignore[arg-type]
    return "data.npz"


def full_disk() -> None:
    with translated("org/name"):
        raise OSError(28, "No space left on device", "/cache/x")


def not_a_run() -> None:
    with RunFolder(Path("run")).locked():
        pass


def several_problems() -> None:
    load_spec(
        "shapes-demo",
        settings=["colour=red", "stages.0.kind=flwo.v1", "training.batch_size=0"],
    )


# Calls in a folder with an empty folder, a file and a run; and their error messages.
MESSAGES: dict[str, tuple[Callable[[], object], str]] = {
    "an unknown spec": (
        lambda: load_spec("shapes-dmo"),
        "spec 'shapes-dmo' not found: it is neither a file nor a shipped spec\n"
        f"Hint: give a .json or .yaml file, or one of {', '.join(shipped_specs())}",
    ),
    "a spec with several problems": (
        lambda: several_problems(),
        "shapes-demo has 3 problems:\n"
        "  training.batch_size: input should be greater than or equal to 1, not 0\n"
        "  colour: unknown key\n"
        "  stages.0.kind: unknown stage kind 'flwo.v1' (did you mean 'flow.v1' or 'flow-sr.v1' or 'mean-flow.v1'? A plugin may provide it: pip install DISTRIBUTION; cascadezoo stages list shows the installed ones)",
    ),
    "broken JSON": (
        lambda: parse_json(b"{\n  oops: 1}", "x.json"),
        "x.json has 1 problem:\n"
        "  is not valid JSON: Expecting property name enclosed in double quotes at line 2, column 3",
    ),
    "a list for a spec": (
        lambda: parse_json(b"[1]", "x.json"),
        "x.json has 1 problem:\n  is not a JSON object",
    ),
    "a duplicate key": (
        lambda: parse_json(b'{"a": 1, "a": 2}', "x.json"),
        "x.json has 1 problem:\n  duplicate key 'a' in an object",
    ),
    "a setting without a value": (
        lambda: apply_settings({"a": 1}, ["a"]),
        "--set 'a' does not have the form path=value",
    ),
    "a setting below a number": (
        lambda: apply_settings({"a": 1}, ["a.b=1"]),
        "--set 'a.b=1': 'b' is inside a value without parts",
    ),
    "a setting of no item": (
        lambda: apply_settings({"a": [1]}, ["a.7=1"]),
        "--set 'a.7=1': no item '7'\nHint: use 0 to 0",
    ),
    "a sweep that is not there": (
        lambda: read_sweep("nix"),
        "sweep 'nix' not found: it is neither a file nor a shipped sweep\n"
        f"Hint: use a .json file, or one of {', '.join(shipped_sweeps())}",
    ),
    "an unknown stage kind": (
        lambda: get_registry().stages.get("pixelshufle.v1"),
        "unknown stage kind 'pixelshufle.v1'\n"
        "Hint: did you mean 'pixelshuffle.v1'? A plugin may provide it: pip install DISTRIBUTION; cascadezoo stages list shows the installed ones",
    ),
    "an unknown metric": (
        lambda: get_registry().metrics.get("kidd"),
        "unknown metric 'kidd'\n"
        "Hint: did you mean 'kid'? A plugin may provide it: pip install DISTRIBUTION",
    ),
    "no data file": (
        lambda: NpzConfig(path="no.npz").info(),
        "file no.npz not found\nHint: a relative path starts from the current directory",
    ),
    "a text for a data file": (
        lambda: NpzConfig(path="file").info(),
        "file is not a readable .npz file: File is not a zip file\n"
        "Hint: create it with numpy.savez(path, images=..., labels=...), or download it again",
    ),
    "images of floats": (
        lambda: NpzConfig(path=npz(images=np.zeros((2, 4, 4), np.float32))).info(),
        "data.npz: images 'images' are float32, not uint8\n"
        "Hint: save them as numbers from 0 to 255: (images * 255).round().astype('uint8')",
    ),
    "a folder without images": (
        lambda: FolderConfig(path="empty").info(),
        "empty contains no images\n"
        "Hint: image files end in .png, .jpg, .jpeg, .jpe, .jfif, .webp, .tif, .tiff, .bmp, .gif, .ppm, .pgm, .pbm, .pnm",
    ),
    "nothing left to train on": (
        lambda: holdout_indices(1, 0.5, "train", source="data.npz"),
        "data.npz: holdout 0.5 of 1 image leaves no training images\n"
        "Hint: lower data.config.holdout, or set it to 0 to train on all images",
    ),
    "no model folder": (
        lambda: locate("./none"),
        "model './none' not found: no such folder\nHint: check the spelling of the path",
    ),
    "a folder that holds no model": (
        lambda: locate("./empty"),
        "./empty contains no model: it has no config.json\n"
        "Hint: give the run folder of a finished build, or its model/ folder",
    ),
    "a file for a model": (
        lambda: locate("./file"),
        "./file is a file, not a model folder\n"
        "Hint: write ./folder for a folder, NAME for a model of the zoo, org/name[@revision] for the Hub",
    ),
    "an address for a model": (
        lambda: parse_reference("https://example.org/x"),
        "'https://example.org/x' is a URL, not a model\n"
        "Hint: for a repo on the Hub, write hf://org/name",
    ),
    "a model that does not exist": (
        lambda: parse_reference("shapes-nothing"),
        "model 'shapes-nothing' not found: it is neither a folder nor listed by a zoo\n"
        "Hint: did you mean 'shapes-tiny'?",
    ),
    "an invalid repo id": (
        lambda: parse_reference("hf://org"),
        "'org' is not a repo id\nHint: write org/name, with letters, digits, '-', '_' and '.'",
    ),
    "two revisions": (
        lambda: parse_reference("hf://a/b@v1", "v2"),
        "'hf://a/b@v1' and the revision 'v2' contradict each other\nHint: give only one revision",
    ),
    "a model folder without a config": (
        lambda: read_config(Path("empty")),
        "empty is not a model folder: it has no config.json\n"
        "Hint: give the run folder of a finished build, or a pulled model",
    ),
    "the config of another library": (
        lambda: parse_config(b"{}", "config.json"),
        "config.json is not the config of a cascadezoo model\n"
        "Hint: load the model with the library that wrote it",
    ),
    "no figures": (
        lambda: read_metrics(Path("empty")),
        "empty has no metrics.json, so its figures are unknown\n"
        "Hint: give the run folder of a finished build, or measure the model: cascadezoo evaluate MODEL --save",
    ),
    "figures of another form": (
        lambda: parse_metrics(b'{"figures": 3}', "metrics.json"),
        "metrics.json does not validate:\n"
        "  name: is missing\n"
        "  spec_digest: is missing\n"
        "  figures: input should be a valid list, not 3\n"
        "Hint: pull or copy the model again; a newer cascadezoo may have written it",
    ),
    "a card that is no text": (
        lambda: read_card(Path("run")),
        "run/README.md is not UTF-8 text (byte 0)\nHint: save it as UTF-8",
    ),
    "a folder that is no run": (
        lambda: not_a_run(),
        "run is neither a run folder nor empty: it contains 'README.md'\n"
        "Hint: choose another folder with -o DIR",
    ),
    "too few images": (
        lambda: require_enough(12, 100, 1000),
        "KID with subsets of 1000 cannot be measured on 12 generated and 100 real images\n"
        'Hint: set "evaluation.samples" to at least 1000',
    ),
    "no steps": (
        lambda: chosen_steps(0, 25),
        "cannot sample in 0 steps\nHint: use 1 or more",
    ),
    "more steps than timesteps": (
        lambda: chosen_steps(30, 25, 25),
        "cannot sample in 30 steps: the model was trained with 25 timesteps\nHint: use 1 to 25",
    ),
    "an unknown sampler": (
        lambda: chosen_sampler("magic", "ddim", {"ddim", "ddpm"}),
        "this stage has no sampler 'magic'\nHint: use one of ddim, ddpm",
    ),
    "no interval": (
        lambda: checked_interval((0.9, 0.1)),
        "invalid guidance interval (0.9, 0.1)\n"
        "Hint: give two increasing noise levels between 0 (clean) and 1 (pure noise)",
    ),
    "an unknown device": (
        lambda: pick_device("abacus"),
        "unknown device 'abacus'\nHint: use auto, cpu, cuda, cuda:N or mps",
    ),
    "a full disk": (
        lambda: full_disk(),
        "org/name: /cache/x: No space left on device\n"
        "Hint: free space, or set HF_HOME (the folder of the cache) to a writable folder",
    ),
    "no repo to publish to": (
        lambda: repo_of("models"),
        "'models' is not a repo id\nHint: write org/name, with letters, digits, '-', '_' and '.'",
    ),
    "a commit to publish to": (
        lambda: check_options(
            "0123456789abcdef0123456789abcdef01234567", create_pr=False, tag=None
        ),
        "--revision is a commit, but a model is published to a branch\n"
        "Hint: name a branch with --revision, or leave it out",
    ),
    "a revision of a destination": (
        lambda: read_destination("org/name@v1"),
        "'org/name@v1' contains a revision, which is not part of a destination\n"
        "Hint: write org/name --revision v1",
    ),
    "no manifest": (
        lambda: parse_manifest({"version": 1, "models": 3}, "zoo.json"),
        "zoo.json is not a zoo manifest:\n"
        "  models: input should be a valid list, not 3\n"
        "Hint: write entries with cascadezoo zoo add REF; docs/hub.md describes them",
    ),
    "a folder for a manifest": (
        lambda: read_manifest_file(Path("empty")),
        "empty cannot be read: Is a directory",
    ),
}


@pytest.fixture
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "run"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("hello")
    (tmp_path / "run" / "README.md").write_bytes(b"\xff")


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("case", MESSAGES)
def test_message(case: str) -> None:
    call, message = MESSAGES[case]
    with pytest.raises(CascadezooError) as caught:
        call()
    assert str(caught.value) == message


def test_message_as_json() -> None:
    with pytest.raises(CascadezooError) as caught:
        chosen_steps(30, 25, 25)
    assert json.loads(json.dumps(caught.value.to_dict())) == {
        "code": "sample-steps-too-many",
        "message": "cannot sample in 30 steps: the model was trained with 25 timesteps",
        "hint": "use 1 to 25",
        "fields": {"steps": 30, "most": 25},
    }
