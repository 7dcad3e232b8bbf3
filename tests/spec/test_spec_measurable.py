"""What cannot be measured or trained is refused before anything is trained, without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from errors_help import raises
from PIL import Image

from cascadezoo import MetricConfig, load_spec
from cascadezoo.errors import PluginError, SpecError
from cascadezoo.evaluate.configs import InceptionConfig, SmallConfig
from cascadezoo.evaluate.features.inception import InceptionExtractor
from cascadezoo.evaluate.features.small_network import NUM_FEATURES
from cascadezoo.evaluate.metrics.base import Metric
from cascadezoo.plugins.manager import get_registry
from cascadezoo.spec.measurable import require_measurable


def problems(spec: Any, *settings: str) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        require_measurable(load_spec(spec, settings=settings))
    return {row.path: row.code for row in caught.value.problems}


def metrics(*names: str) -> str:
    return f"evaluation.metrics=[{', '.join(f'{chr(34)}{name}{chr(34)}' for name in names)}]"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # The defaults of shapes-demo: 8,000 real images, subsets of at most its samples.
        (
            (metrics("kid", "fid"), "evaluation.samples=1000", "evaluation.extractor=inception"),
            {"evaluation.samples": "too-few-images"},
        ),
        (
            (
                metrics("fid"),
                "evaluation.samples=3000",
                "evaluation.extractor=inception",
                "data.config.count=2000",
            ),
            {"evaluation.metrics.0": "too-few-images"},
        ),
        (
            (metrics("kid"), "evaluation.subset_size=300", "data.config.count=200"),
            {"evaluation.subset_size": "too-few-images"},
        ),
        (
            (metrics("kid"), "evaluation.split=test", "data.config.test_count=20"),
            {"evaluation.subset_size": "too-few-images"},
        ),
        (
            (
                metrics("inception-score"),
                "evaluation.samples=19",
                "evaluation.subset_size=5",
            ),
            {"evaluation.samples": "too-few-images"},
        ),
        ((metrics("recall"), "data.config.count=3"), {"evaluation.metrics.0": "too-few-images"}),
        ((metrics("cas"), "data.num_classes=0"), {"evaluation.metrics.0": "needs-labels"}),
        (
            (metrics("kid", "ssim"), "data.size=8", "stages.coarse.config.size=4"),
            {"evaluation.metrics.1": "images-too-small"},
        ),
        (
            (metrics("diversity"), "data.size=8", "stages.coarse.config.size=4"),
            {"evaluation.metrics.0": "images-too-small"},
        ),
        (
            ('evaluation.in_loop={"subset_size": 100}', "data.config.count=90", metrics()),
            {"evaluation.in_loop.subset_size": "too-few-images"},
        ),
    ],
)
def test_what_cannot_be_measured_is_a_problem(
    settings: tuple[str, ...], expected: dict[str, str]
) -> None:
    assert problems("shapes-demo", *settings) == expected


def test_a_generator_alone_has_nothing_to_reconstruct() -> None:
    spec = {
        "name": "alone",
        "data": {"source": "shapes"},
        "stages": [{"name": "coarse", "kind": "flow.v1"}],
        "evaluation": {"metrics": ["psnr", "lpips:alex", "kid"]},
    }
    expected = "generator-alone"
    assert problems(spec) == {f"evaluation.metrics.{i}": expected for i in (0, 1)}


def test_what_can_be_measured_is_no_problem() -> None:
    for settings in (
        (metrics("kid", "fid"), "evaluation.samples=2049", "evaluation.extractor=inception"),
        (metrics("fid"), "evaluation.samples=257", "evaluation.subset_size=100"),
        # The number of features of a timm network is not known before it is loaded.
        (metrics("fid"), "evaluation.samples=300", "evaluation.extractor=timm:resnet18.a1_in1k",
         "evaluation.subset_size=100"),
        (metrics("memorisation", "cas", "ssim", "precision"),),
    ):  # fmt: skip
        require_measurable(load_spec("shapes-demo", settings=settings))


def test_the_stated_numbers_of_features_are_those_of_the_networks() -> None:
    assert SmallConfig.num_features == NUM_FEATURES
    assert InceptionConfig.num_features == InceptionExtractor.num_features


def test_a_dataset_without_a_test_split(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=np.zeros((40, 16, 16, 3), np.uint8))
    spec = {
        "name": "own",
        "data": {"source": "npz", "config": {"path": str(tmp_path / "d.npz")}},
        "stages": [{"name": "coarse", "kind": "flow.v1"}],
        "evaluation": {
            "metrics": ["memorisation"],
            "extractor": "small",
            "samples": 20,
            "subset_size": 10,
        },
    }
    assert problems(spec) == {"evaluation.metrics.0": "no-test-images"}
    require_measurable(load_spec(spec, settings=["data.config.holdout=0.25"]))


def test_fewer_classes_than_the_dataset_are_refused(tmp_path: Path) -> None:
    with raises(SpecError, "spec") as caught:
        load_spec("shapes-demo", settings=["data.num_classes=4"])
    assert [(p.path, p.code) for p in caught.value.problems] == [
        ("data.num_classes", "too-few-classes")
    ]
    assert caught.value.problems[0].hint == "set it to 8, or to 0 to train without labels"
    for stated in (0, 8, 9):
        assert load_spec("shapes-demo", settings=[f"data.num_classes={stated}"])
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    spec = {
        "name": "own",
        "data": {"source": "folder", "config": {"path": str(tmp_path)}, "num_classes": 2},
        "stages": [{"name": "coarse", "kind": "flow.v1"}],
    }
    with pytest.raises(SpecError) as caught:
        load_spec(spec)
    assert [p.code for p in caught.value.problems] == ["too-few-classes"]


def test_validate_refuses_without_torch() -> None:
    code = (
        "import sys\n"
        "from cascadezoo.cli.main import main\n"
        "try:\n"
        "    main(['validate', 'shapes-demo', '--set', 'evaluation.metrics=[\"kid\",\"fid\"]',\n"
        "          '--set', 'evaluation.extractor=inception', '--set', 'evaluation.samples=1000',\n"
        "          '--set', 'evaluation.subset_size=1000'])\n"
        "except SystemExit as end:\n"
        "    print(end.code, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2 False\n"
    assert "needs at least 2049 sampled images, not 1000" in done.stderr


def test_class_names_of_a_spec(tmp_path: Path) -> None:
    resolved = load_spec("shapes-demo")
    assert resolved.class_names is not None
    assert resolved.spec.data.class_names == list(resolved.class_names)
    # Names change no digest: a run that was begun without them goes on.
    data = resolved.spec.to_dict()
    bare = {**data, "data": {k: v for k, v in data["data"].items() if k != "class_names"}}
    assert "class_names" in data["data"]
    assert load_spec(bare).spec.digest() == resolved.spec.digest()
    own = load_spec(
        "shapes-demo", settings=[f"data.class_names={list('abcdefgh')}".replace("'", '"')]
    )
    assert own.class_names == tuple("abcdefgh")
    assert own.spec.training_digest() == resolved.spec.training_digest()
    with pytest.raises(SpecError) as caught:
        load_spec("shapes-demo", settings=['data.class_names=["a"]'])
    assert [(p.path, p.code) for p in caught.value.problems] == [
        ("data.class_names", "class-names-count")
    ]
    assert load_spec("shapes-demo", settings=["data.num_classes=0"]).class_names is None


def test_class_names_of_a_folder_are_recorded(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (16, 16)).save(tmp_path / name / "a.png")
    spec = {
        "name": "pets",
        "data": {"source": "folder", "config": {"path": str(tmp_path)}},
        "stages": [{"name": "coarse", "kind": "flow.v1"}],
    }
    resolved = load_spec(spec)
    assert resolved.spec.data.class_names == ["cats", "dogs"]
    assert (
        "class_names"
        not in load_spec({**spec, "data": {**spec["data"], "num_classes": 0}}).spec.to_dict()[
            "data"
        ]
    )  # type: ignore[dict-item]


def test_a_preparation_that_cannot_be_imported() -> None:
    class Unprepared(MetricConfig):
        preparation: ClassVar[str] = "cascadezoo.nowhere:prepare"

    entry = get_registry().metrics.get("kid").entry
    metric = Metric("mine", entry, "a plugin", Unprepared(), lambda config, inputs: 0.0)
    extractor: Any = None
    with raises(PluginError, "plugin-preparation-missing", name="mine"):
        metric.prepare(extractor, 16)
