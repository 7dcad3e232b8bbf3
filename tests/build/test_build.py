"""The main job on a spec of seconds: what it writes, how it goes on, how it fails."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file

from cascadezoo.build import build_cascade
from cascadezoo.cascade import Cascade
from cascadezoo.errors import (
    CheckpointError,
    DataError,
    InputError,
    Interrupted,
    ResourceError,
    RunFolderError,
    RunLocked,
    TrainingError,
    WeightsUnavailable,
)
from cascadezoo.spec import load_spec
from cascadezoo.train.checkpoint import CheckpointStore
from cascadezoo.train.events import read_events

TINY = "diffusion-pixelshuffle-vit-tiny"
QUICK = ["evaluation.metrics=[]"]


def weights(model: Path) -> dict[str, torch.Tensor]:
    rows = {}
    for path in sorted(model.glob("stages/*/model.safetensors")):
        for name, tensor in load_file(path).items():
            rows[f"{path.parent.name}/{name}"] = tensor
    assert rows
    return rows


def same(a: Path, b: Path) -> bool:
    one, two = weights(a), weights(b)
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole build, never changed by a test."""
    out = tmp_path_factory.mktemp("built") / "run"
    build_cascade(TINY, out, device="cpu")
    return out


def test_the_run_folder(built: Path) -> None:
    names = {p.relative_to(built).as_posix() for p in built.rglob("*") if p.is_file()}
    model = {
        "model/README.md",
        "model/config.json",
        "model/metrics.json",
        "model/samples.png",
        *(f"model/stages/{n}/model.safetensors" for n in ("coarse", "up", "refine")),
    }
    assert model | {"spec.json", "run.json", "events.jsonl", "curves.png"} <= names
    assert {n for n in names if n.startswith("model/")} == model
    spec = load_spec(TINY).spec
    assert json.loads((built / "spec.json").read_text()) == spec.to_dict()
    assert load_spec(built).spec == spec


def test_the_model_folder_holds_together(built: Path) -> None:
    import hashlib

    config = json.loads((built / "model/config.json").read_text())
    for name, record in config["files"].items():
        data = (built / "model" / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == record["sha256"]
        assert len(data) == record["size"]
    assert set(config["files"]) == {
        p.relative_to(built / "model").as_posix()
        for p in (built / "model").rglob("*")
        if p.is_file() and p.name != "config.json"
    }
    assert config["requires"] == ["cascadezoo>=0.1.0"]


def test_figures_tell_how_they_were_got(built: Path) -> None:
    metrics = json.loads((built / "model/metrics.json").read_text())
    names = [figure["name"] for figure in metrics["figures"]]
    assert names == ["kid.small.n64", "images-per-second.n64"]
    assert metrics["figures"][0]["data_digest"] == metrics["training"]["data_digest"]
    card = (built / "model/README.md").read_text()
    for figure in metrics["figures"]:
        assert f"`{figure['name']}`" in card
    assert "not Inception" in card
    assert metrics["training"]["seconds_per_epoch"].keys() == {"coarse", "cascade", "joint"}


def test_the_card_is_what_the_hub_reads(built: Path) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(built / "model/README.md")
    assert card.data.library_name == "cascadezoo"
    assert card.data.license == "apache-2.0"
    (result,) = card.data.eval_results
    assert result.metric_name == "kid.small.n64"
    assert result.metric_args["n"] == 64


def test_pictures(built: Path) -> None:
    for name in ("model/samples.png", "curves.png"):
        with Image.open(built / name) as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 50


def test_events(built: Path) -> None:
    rows = list(read_events(built / "events.jsonl"))
    marks = [(r["phase"], r["state"]) for r in rows if r["event"] == "phase"]
    assert marks == [(p, s) for p in ("coarse", "cascade", "joint") for s in ("start", "end")]
    logs = [r for r in rows if r["event"] == "log"]
    assert {k for r in logs for k in r["losses"]} == {"coarse.mse", "up.mse", "refine.mse"}
    forcing = [r["teacher_forcing"] for r in logs if r["phase"] == "cascade"]
    assert forcing == sorted(forcing, reverse=True)
    assert forcing[-1] == pytest.approx(0.1)
    assert all(r["seconds"] > 0 for r in rows if r["event"] == "epoch")


def test_training_lowers_the_loss(built: Path) -> None:
    rows = [r for r in read_events(built / "events.jsonl") if r["event"] == "log"]
    coarse = [r["losses"]["coarse.mse"] for r in rows if r["phase"] == "coarse"]
    assert coarse[-1] < 0.9 * coarse[0]


def test_the_model_loads_and_samples(built: Path) -> None:
    cascade = Cascade.from_pretrained(built)
    images = cascade.sample(4, seed=1)
    assert images.shape == (4, 3, 16, 16)
    assert images.dtype == torch.float32
    assert float(images.abs().max()) <= 1.0
    assert torch.equal(images, Cascade.from_pretrained(built / "model").sample(4, seed=1))


def test_building_again_does_nothing(built: Path) -> None:
    before = (built / "model/config.json").stat().st_mtime_ns
    result = build_cascade(TINY, built, device="cpu")
    assert result.already_done
    assert [f.name for f in result.figures] == ["kid.small.n64", "images-per-second.n64"]
    assert (built / "model/config.json").stat().st_mtime_ns == before


def test_another_evaluation_trains_nothing_again(built: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(built, run)
    events = (run / "events.jsonl").read_text()
    result = build_cascade(
        TINY, run, device="cpu", settings=["evaluation.samples=40", "evaluation.subset_size=20"]
    )
    assert result.figures[0].name == "kid.small.n40"
    assert (run / "events.jsonl").read_text() == events
    assert same(run / "model", built / "model")


def test_another_spec_in_the_folder_is_refused(built: Path) -> None:
    before = sorted(p.stat().st_mtime_ns for p in built.rglob("*"))
    with pytest.raises(RunFolderError, match="from another spec") as caught:
        build_cascade(TINY, built, device="cpu", seed=5)
    assert "--fresh" in str(caught.value.hint)
    assert sorted(p.stat().st_mtime_ns for p in built.rglob("*")) == before


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    built: Path, tmp_path: Path
) -> None:
    build_cascade(TINY, tmp_path / "a", device="cpu", settings=QUICK)
    assert same(tmp_path / "a/model", built / "model")
    build_cascade(TINY, tmp_path / "b", device="cpu", settings=QUICK, seed=1)
    assert not same(tmp_path / "b/model", built / "model")


class StopAt:
    """Shows nothing, and sends this process a signal at a step of a phase."""

    def __init__(self, phase: int, step: int, number: signal.Signals) -> None:
        self.wanted, self.number, self.now = (phase, step), number, 0

    def phase(self, name: str, number: int, count: int, total: int, done: int) -> None:
        self.now = number

    def step(self, done: int, epoch: int, epochs: int) -> None:
        if (self.now, done) == self.wanted:
            os.kill(os.getpid(), self.number)

    def __getattr__(self, name: str) -> Any:
        return lambda *args: None


@pytest.mark.parametrize(
    ("phase", "step", "number"),
    [
        (0, 1, signal.SIGINT),
        (0, 7, signal.SIGTERM),
        (0, 16, signal.SIGTERM),
        (1, 3, signal.SIGINT),
        (2, 8, signal.SIGTERM),
    ],
)
def test_a_stopped_build_goes_on_to_the_same_weights(
    built: Path, tmp_path: Path, phase: int, step: int, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    with pytest.raises(Interrupted, match=f"stopped by {number.name}") as caught:
        build_cascade(TINY, run, device="cpu", settings=QUICK, progress=StopAt(phase, step, number))
    assert caught.value.exit_code == 130
    assert "cascadezoo build" in str(caught.value.hint)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    build_cascade(run / "spec.json", run, device="cpu")
    assert same(run / "model", built / "model")
    logged = [r["step"] for r in read_events(run / "events.jsonl") if r["event"] == "log"]
    assert logged == sorted(set(logged))


def start(run: Path, *settings: str) -> subprocess.Popen[bytes]:
    changes = [part for setting in settings for part in ("--set", setting)]
    options = ("-o", str(run), "--quiet", "--device", "cpu")
    return subprocess.Popen(
        [sys.executable, "-m", "cascadezoo", "build", TINY, *options, *changes],
        stderr=subprocess.PIPE,
    )


def wait_for(run: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + 120
    while time.monotonic() < limit and process.poll() is None:
        if any(r.get("step", 0) >= step for r in read_events(run / "events.jsonl")):
            return
        time.sleep(0.005)
    pytest.fail(f"step {step} was not reached: {process.stderr.read().decode()}")


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 11, 16, 21, 27])
def test_a_killed_build_goes_on_to_the_same_weights(built: Path, tmp_path: Path, step: int) -> None:
    run = tmp_path / "run"
    settings = (*QUICK, "training.checkpoint_seconds=0", "training.log_steps=1")
    process = start(run, *settings)
    wait_for(run, step, process)
    process.kill()
    process.communicate()
    build_cascade(TINY, run, device="cpu", settings=settings)
    assert same(run / "model", built / "model")


@pytest.mark.slow
def test_sigterm_on_the_command_line(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(run, *QUICK, "training.phases.0.steps=100000", "training.log_steps=1")
    wait_for(run, 2, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"a checkpoint is written" in err
    assert b"cascadezoo build" in err
    assert CheckpointStore(run / "checkpoints").newest() is not None


def test_two_builds_into_one_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with FileLock(run / ".lock"), pytest.raises(RunLocked, match="another build is at work"):
        build_cascade(TINY, run, device="cpu")


def test_fresh_starts_over_and_touches_nothing_else(built: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(built, run)
    (run / "notes.txt").write_text("mine")
    build_cascade(TINY, run, device="cpu", settings=QUICK, seed=3, resume=False)
    assert not same(run / "model", built / "model")
    assert (run / "notes.txt").read_text() == "mine"


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    for resume in (None, False):
        with pytest.raises(RunFolderError, match="not a run folder, and it is not empty"):
            build_cascade(TINY, tmp_path, device="cpu", resume=resume)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="nothing to resume"):
        build_cascade(TINY, tmp_path / "run", device="cpu", resume=True)


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RunFolderError, match="cannot be written"):
        build_cascade(TINY, tmp_path / "run", device="cpu")


def test_data_that_are_not_there(tmp_path: Path) -> None:
    settings = ['data={"source": "npz", "config": {"path": "nowhere.npz"}}']
    with pytest.raises(InputError, match=r"nowhere\.npz"):
        build_cascade(TINY, tmp_path / "run", device="cpu", settings=settings)


def test_labels_that_the_spec_does_not_expect(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels lie in \[0, 7\], outside of 3 classes"):
        build_cascade(TINY, tmp_path / "run", device="cpu", settings=["data.num_classes=3"])


@pytest.mark.parametrize("width", [10**9, 200_000])
def test_more_channels_than_memory(tmp_path: Path, width: int) -> None:
    with pytest.raises(ResourceError, match=r"(GiB|EiB)"):
        build_cascade(
            TINY, tmp_path / "run", device="cpu", settings=[f"stages.up.config.hidden={width}"]
        )
    assert not (tmp_path / "run").exists()


def test_weights_that_cannot_be_had_stop_before_the_training(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    loss = 'training.losses=[{"stage": "refine", "kind": "lpips", "config": {"net": "alex"}}]'
    for setting in (loss, "evaluation.extractor=inception"):
        run = tmp_path / "run"
        with pytest.raises(WeightsUnavailable):
            build_cascade(TINY, run, device="cpu", settings=[setting, "data.size=16"])
        assert not list(read_events(run / "events.jsonl"))
        shutil.rmtree(run)


def test_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    settings = [*QUICK, "training.optimizer.lr=10", "training.clip_norm=null"]
    settings += ["training.optimizer.eps=1e-30", "training.phases.0.steps=400"]
    settings += ["training.optimizer.weight_decay=0", "training.ema=null"]
    with pytest.raises(TrainingError, match="coarse.mse is (nan|inf)"):
        build_cascade(TINY, tmp_path / "run", device="cpu", settings=settings)


def test_a_full_disk_keeps_the_former_checkpoint(tmp_path: Path) -> None:
    """The kernel refuses the write, as it does on a full disk."""
    run = tmp_path / "run"
    code = (
        "import resource, sys\n"
        "from cascadezoo.build import build_cascade\n"
        "from cascadezoo.train import checkpoint\n"
        "save, done = checkpoint.CheckpointStore.save, []\n"
        "def limited(self, state):\n"
        "    if done: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "    done.append(1)\n"
        "    return save(self, state)\n"
        "checkpoint.CheckpointStore.save = limited\n"
        f"build_cascade({TINY!r}, sys.argv[1], device='cpu')\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=False
    )
    assert "CheckpointError: the checkpoint of step 24 cannot be written" in process.stderr
    assert "the one of step 16 is whole" in process.stderr
    store = CheckpointStore(run / "checkpoints")
    assert store.newest().position.global_step == 16
    assert [p.name for p in store.folder.iterdir()] == ["step-000000016-phase-1"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 20_000


def test_a_damaged_checkpoint_is_passed_over(built: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(built, run)
    store = CheckpointStore(run / "checkpoints")
    older, newest = sorted(store.folder.iterdir())
    path = newest / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    assert store.newest().position.global_step == int(older.name.split("-")[1])
    (older / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="no checkpoint in .* is whole"):
        store.newest()


def test_publishing_to_a_folder(tmp_path: Path, built: Path) -> None:
    run, dest = tmp_path / "run", tmp_path / "published"
    shutil.copytree(built, run)
    result = build_cascade(
        TINY, run, device="cpu", settings=[f'publish={{"to": {json.dumps(str(dest))}}}']
    )
    assert result.published == str(dest)
    assert same(dest, built / "model")


def test_a_destination_that_cannot_be_is_found_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.tex").write_text("mine")
    for place in (str(tmp_path / "thesis"), "org/name", str(tmp_path / "thesis" / "a.tex" / "x")):
        run = tmp_path / "run"
        with pytest.raises(InputError):
            build_cascade(
                TINY, run, device="cpu", settings=[f'publish={{"to": {json.dumps(place)}}}']
            )
        assert not list(read_events(run / "events.jsonl"))
        shutil.rmtree(run)


def test_in_loop_figures_are_kept(tmp_path: Path) -> None:
    in_loop = '{"every_epochs": 1, "samples": 20, "subset_size": 10, "subsets": 3}'
    build_cascade(
        TINY,
        tmp_path / "run",
        device="cpu",
        settings=[*QUICK, f"evaluation.in_loop={in_loop}"],
    )
    rows = [r for r in read_events(tmp_path / "run/events.jsonl") if r["event"] == "figure"]
    assert [(r["phase"], r["epoch"]) for r in rows] == [
        ("coarse", 1),
        ("coarse", 2),
        ("cascade", 1),
        ("joint", 1),
    ]
    assert all(r["figure"]["name"] == "kid.small.n20" for r in rows)
    course = json.loads((tmp_path / "run/model/metrics.json").read_text())["course"]
    assert len(course) == 4


def test_looking_at_figures_in_the_course_does_not_change_the_training(
    built: Path, tmp_path: Path
) -> None:
    in_loop = '{"every_epochs": 1, "samples": 10, "subset_size": 5, "subsets": 2}'
    build_cascade(
        TINY, tmp_path / "run", device="cpu", settings=[f"evaluation.in_loop={in_loop}", *QUICK]
    )
    assert same(tmp_path / "run/model", built / "model")
