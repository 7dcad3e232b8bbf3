"""The wording of errors of training, sweeps and plugin checks; other tests assert codes and values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cascadezoo.errors import CascadezooError
from cascadezoo.spec import TrainingSpec
from cascadezoo.sweep.cells import load_sweep
from cascadezoo.sweep.correlation import Correlation
from cascadezoo.sweep.page import correlation_text
from cascadezoo.sweep.run_sweep import run_sweep
from cascadezoo.sweep.spec_paths import fault_of
from cascadezoo.sweep.sweep_folder import SweepFolder
from cascadezoo.sweep.tables import best_text, correlation_lines, variance_text
from cascadezoo.sweep.variance import Best, Rival, Variance
from cascadezoo.testing.check_report import Report, run_checks
from cascadezoo.testing.template import write_project
from cascadezoo.train.checkpoint import CheckpointStore
from cascadezoo.train.compilation import choose_compilation
from cascadezoo.train.engine import pick_precision
from cascadezoo.train.loss_sums import check_finite

CPU = torch.device("cpu")
BASE = {
    "name": "lone",
    "data": {"source": "shapes", "config": {"size": 8}},
    "stages": [{"name": "coarse", "kind": "flow.v1", "config": {"channels": 8}}],
}


def sweep(*axes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"name": "mini", "base": BASE, "axes": list(axes), **changes}


def axis(path: str, values: Any, name: str = "a") -> dict[str, Any]:
    return {"name": name, "path": path, "values": values}


def compilation(value: Any) -> object:
    return choose_compilation(TrainingSpec(compile=value), CPU, None, 1)


def damaged_checkpoint() -> None:
    Path("checkpoints/step-000000004-phase-0").mkdir(parents=True)
    CheckpointStore(Path("checkpoints")).newest()


MESSAGES: dict[str, tuple[Callable[[], object], str]] = {
    "a precision that the device lacks": (
        lambda: pick_precision("fp16", CPU),
        "fp16 training needs a CUDA device, not cpu\nHint: use --precision bf16 or fp32",
    ),
    "an unknown precision": (
        lambda: pick_precision("fp8", CPU),
        "unknown precision 'fp8'\nHint: use auto, fp32, bf16 or fp16",
    ),
    "CUDA graphs on a CPU": (
        lambda: compilation("graphs"),
        "training.compile is 'graphs', but cpu has no CUDA graphs\n"
        "Hint: set training.compile to false or auto",
    ),
    "a loss that is not finite": (
        lambda: check_finite("coarse", 7, {"coarse.mse": float("nan")}),
        "phase 'coarse', up to step 8: coarse.mse is nan\n"
        "Hint: lower the learning rate, clip gradients (training.clip_norm), or use "
        "--precision fp32; the last checkpoint is older and intact",
    ),
    "damaged checkpoints": (
        damaged_checkpoint,
        "all checkpoints in checkpoints are damaged: step-000000004-phase-0: "
        "No such file or directory\nHint: start over with --fresh",
    ),
    "a sweep with several faults": (
        lambda: load_sweep(
            sweep(
                axis("sed", [0]),
                axis("training.betas", [[0.9]], name="b"),
                axis("stages.coarse", {"Bad": {}}, name="c"),
            )
        ),
        "sweep has 3 problems:\n"
        "  axes.1.values.0: needs a label: write the values as an object with labels as keys\n"
        "  axes.2.values.Bad: 'Bad' is not a label: use at most 40 lower-case letters and digits "
        "with single . _ - between; write the values as an object with labels as keys\n"
        "  axes.0.path: 'sed' does not exist in the base spec: the spec has no 'sed' "
        "(did you mean seed?)",
    ),
    "an exclude without an effect": (
        lambda: load_sweep(sweep(axis("seed", [0, 1]), exclude=[{"b": "s0"}, {"a": "s2"}])),
        "sweep has 2 problems:\n"
        "  exclude.0.b: 'b' is not an axis (use one of a)\n"
        "  exclude.1.a: 's2' is not a label of 'a' (use one of s0, s1)",
    ),
    "a condition that no cell meets": (
        lambda: load_sweep(sweep(axis("seed", [0, 1]))).choose(["a=s0", "a=s1"]),
        "--only a=s0 --only a=s1 matches no cell of mini",
    ),
    "no cells at a time": (
        lambda: run_sweep(sweep(axis("seed", [0])), jobs=0),
        "jobs is 0; it must be at least 1",
    ),
    "a folder of something else": (
        SweepFolder(Path("full")).refuse_strangers,
        "full is not a sweep's folder, and it is not empty: it contains 'notes.txt'\n"
        "Hint: choose another folder with -o DIR",
    ),
    "a project that exists": (
        lambda: write_project("wave", "metric", Path("full")),
        "full already exists and is not overwritten\nHint: choose another folder with -o DIR",
    ),
    "an invalid name of a plugin": (
        lambda: write_project("1wave", "metric"),
        "invalid plugin name '1wave'\n"
        "Hint: use lower-case letters, digits and dashes, and start with a letter, such as wave "
        "or cascadezoo-wave",
    ),
}


@pytest.fixture
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("case", MESSAGES)
def test_errors(case: str) -> None:
    act, message = MESSAGES[case]
    with pytest.raises(CascadezooError) as caught:
        act()
    assert str(caught.value) == message


def test_faults_of_paths() -> None:
    tree = {"seed": 0, "stages": [{"name": "up"}]}
    assert fault_of(tree, "stages.down") == "stages has no 'down'"
    assert fault_of(tree, "seed.a") == "seed has no inner values"


def test_the_correlation_of_a_sweep() -> None:
    result = Correlation(n=6, rho=-0.9, p=0.02, method="exact")
    assert correlation_text(result) == (
        "Spearman's rank correlation of parameters and KID over 6 combinations is -0.90 "
        "(p = 0.020, over all permutations). Cascades with more parameters tend to have a KID that "
        "is lower, which is better."
    )
    (test,) = correlation_lines(result)
    assert test.endswith(
        "A negative rho means that more parameters come with a lower, better KID. p is the "
        "probability of a rho at least as far from 0 if the two are independent (exact, over all "
        "permutations)."
    )


def test_the_variance_and_the_best_of_a_sweep() -> None:
    refused = variance_text(Variance(refused="dae-up has 1 measured cells, others have 2"))
    assert refused == (
        "Not computed: dae-up has 1 measured cells, others have 2. Shares of variance need every "
        "combination of the axes with the same number of seeds. On other grids they overlap, and "
        "an axis gets what another one causes."
    )
    rivals = [
        Rival(name=name, difference=d, low=d - 0.01, high=d + 0.01, p=p)
        for name, d, p in (("b", 0.005, 0.4), ("c", 0.05, 0.001))
    ]
    assert best_text(Best(name="a", mean=0.1, rivals=rivals)) == (
        "a has the lowest KID of 3 combinations with several seeds, 100 x 10^-3. By Tukey's range "
        "test over all pairs, which corrects for the choice of the best, 1 of the other 2 "
        "cannot be distinguished from it: b (+5, p = 0.4)."
    )


def test_a_report_of_checks() -> None:
    def fails() -> None:
        raise ValueError("no")

    report: Report = run_checks("stage x.v1", {"a": fails, "b": fails}, skip=["b"])
    failed, skipped = report.results
    assert failed.message.startswith("ValueError: no [")
    assert (skipped.state, skipped.message) == ("skipped", "skip requested")
    with pytest.raises(ValueError, match="unknown check 'c'; use one of a, b"):
        run_checks("stage x.v1", {"a": fails, "b": fails}, skip=["c"])
