"""The wording of errors, in one place; all other tests ask for codes, fields and values."""

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


# What is done in a folder that has an empty folder, a file and a run; and what is then said.
MESSAGES: dict[str, tuple[Callable[[], object], str]] = {
    "an unknown spec": (
        lambda: load_spec("shapes-dmo"),
        "spec 'shapes-dmo' not found: it is neither a file nor a shipped spec\n"
        f"Hint: give a .json file, or one of {', '.join(shipped_specs())}",
    ),
    "a spec with several problems": (
        lambda: several_problems(),
        "shapes-demo has 3 problems:\n"
        "  training.batch_size: input should be greater than or equal to 1, not 0\n"
        "  colour: unknown key\n"
        "  stages.0.kind: there is no stage kind 'flwo.v1' (did you mean 'flow.v1' or 'flow-sr.v1'? If a plugin brings it, install that: pip install DISTRIBUTION; cascadezoo stages list)",
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
        "there is no sweep 'nix': no such file, and no shipped sweep of that name\n"
        f"Hint: give a .json file, or one of {', '.join(shipped_sweeps())}",
    ),
    "an unknown stage kind": (
        lambda: get_registry().stages.get("pixelshufle.v1"),
        "there is no stage kind 'pixelshufle.v1'\n"
        "Hint: did you mean 'pixelshuffle.v1'? If a plugin brings it, install that: pip install DISTRIBUTION; cascadezoo stages list",
    ),
    "an unknown metric": (
        lambda: get_registry().metrics.get("kidd"),
        "there is no metric 'kidd'\n"
        "Hint: did you mean 'kid'? If a plugin brings it, install that: pip install DISTRIBUTION",
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
        "there is no model './none': no such folder\nHint: look at how the path is written",
    ),
    "a folder that holds no model": (
        lambda: locate("./empty"),
        "./empty holds no model: there is no config.json in it\n"
        "Hint: give the run folder of a finished build, or its model/ folder",
    ),
    "a file for a model": (
        lambda: locate("./file"),
        "./file is a file, not a model folder\n"
        "Hint: write ./folder for a folder, NAME for a model of the zoo, org/name[@revision] for the Hub",
    ),
    "an address for a model": (
        lambda: parse_reference("https://example.org/x"),
        "'https://example.org/x' is an address, not a model\n"
        "Hint: write hf://org/name for a repo on the Hub",
    ),
    "a model that no zoo lists": (
        lambda: parse_reference("shapes-nothing"),
        "there is no model 'shapes-nothing': no such folder, and no zoo lists it\n"
        "Hint: did you mean 'shapes-tiny'?",
    ),
    "no id of a repo": (
        lambda: parse_reference("hf://org"),
        "'org' is not the id of a repo on the Hub\n"
        "Hint: it has the form org/name, of letters, digits, '-', '_' and '.'",
    ),
    "two revisions": (
        lambda: parse_reference("hf://a/b@v1", "v2"),
        "'hf://a/b@v1' names one revision, and 'v2' is another\nHint: give one of them",
    ),
    "a model folder without a config": (
        lambda: read_config(Path("empty")),
        "empty is not a model folder: it has no config.json\n"
        "Hint: give a run folder that `cascadezoo build` finished, or a pulled model",
    ),
    "the config of another library": (
        lambda: parse_config(b"{}", "config.json"),
        "config.json is not the config of a cascadezoo model\n"
        "Hint: other libraries' models have a config.json too; load it with the one it names",
    ),
    "no figures": (
        lambda: read_metrics(Path("empty")),
        "empty has no metrics.json, so nothing is known of its figures\n"
        "Hint: give the run folder of a finished build, or measure: cascadezoo evaluate MODEL --save",
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
        "run is not a run folder, and it is not empty: there is 'README.md'\n"
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
        "there is no device 'abacus'\nHint: use auto, cpu, cuda, cuda:N or mps",
    ),
    "a full disk": (
        lambda: full_disk(),
        "org/name: /cache/x: No space left on device\n"
        "Hint: make room or take a folder that you may write to: HF_HOME says where the cache is",
    ),
    "no repo to publish to": (
        lambda: repo_of("models"),
        "'models' is not the id of a repo on the Hub\n"
        "Hint: it has the form org/name, of letters, digits, '-', '_' and '.'",
    ),
    "a commit to publish to": (
        lambda: check_options(
            "0123456789abcdef0123456789abcdef01234567", create_pr=False, tag=None
        ),
        "a commit cannot be published to\nHint: give --revision a branch, or leave it out",
    ),
    "a revision of a destination": (
        lambda: read_destination("org/name@v1"),
        "'org/name@v1' names a revision, which is not part of where a model goes\n"
        "Hint: org/name --revision v1",
    ),
    "no manifest": (
        lambda: parse_manifest({"version": 1, "models": 3}, "zoo.json"),
        "zoo.json is not a zoo manifest:\n"
        "  models: input should be a valid list, not 3\n"
        "Hint: `cascadezoo zoo add REF` writes entries; docs/hub.md describes them",
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
def test_what_is_said(case: str) -> None:
    act, said = MESSAGES[case]
    with pytest.raises(CascadezooError) as caught:
        act()
    assert str(caught.value) == said


def test_what_json_says() -> None:
    with pytest.raises(CascadezooError) as caught:
        chosen_steps(30, 25, 25)
    assert json.loads(json.dumps(caught.value.to_dict())) == {
        "code": "sample-steps-too-many",
        "message": "cannot sample in 30 steps: the model was trained with 25 timesteps",
        "hint": "use 1 to 25",
        "fields": {"steps": 30, "most": 25},
    }
