"""The weights with the best figure are kept in one file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from errors_help import raises

from cascadezoo import Cascade
from cascadezoo.build.best_weights import BestWeights
from cascadezoo.errors import RunFolderError, SpecError
from cascadezoo.model_folder.figures import Figure
from cascadezoo.spec import load_spec
from cascadezoo.spec.measurable import require_measurable
from cascadezoo.spec.models import CascadeSpec

TINY = "diffusion-pixelshuffle-vit-tiny"


def figure(value: float) -> Figure:
    return Figure(name="fid.small.n300", metric="fid", value=value, n=300, extractor="small")


def test_only_a_lower_figure_replaces_the_weights(tmp_path: Path) -> None:
    cascade = Cascade.from_spec(TINY)
    best = BestWeights(tmp_path / "best.safetensors", "digest")
    assert best.load(cascade) is None
    first = {name: value.clone() for name, value in cascade.stages.state_dict().items()}
    assert best.offer(cascade, figure(2.0))
    with torch.no_grad():
        for parameter in cascade.parameters():
            parameter.add_(1)
    for value in (2.0, 3.0):
        assert not best.offer(cascade, figure(value))
    assert best.load(cascade) == figure(2.0)
    for name, value in cascade.stages.state_dict().items():
        assert torch.equal(value, first[name]), name
    assert best.offer(cascade, figure(1.0))
    assert best.figure() == figure(1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]
    assert BestWeights(best.path, "another training").load(cascade) is None

    best.path.write_bytes(b"damaged")
    with raises(RunFolderError, "run-folder-best-damaged"):
        best.load(cascade)


def test_fid_during_the_training_needs_enough_images() -> None:
    settings = ['evaluation.in_loop={"metric": "fid", "samples": 300, "subset_size": 20}']
    resolved = load_spec(TINY, settings=settings)
    require_measurable(resolved, {"train": 300})
    for changes, counts in (
        (["evaluation.in_loop.samples=256"], {"train": 300}),
        ([], {"train": 200}),
    ):
        with pytest.raises(SpecError, match="at least 257") as caught:
            require_measurable(load_spec(TINY, settings=settings + changes), counts)
        assert [p.code for p in caught.value.problems] == ["too-few-images"]


def test_defaults_of_later_versions_change_no_digest() -> None:
    data = load_spec(TINY, settings=["evaluation.in_loop={}"]).spec.to_dict()
    digests = CascadeSpec.model_validate(data).digest()
    training = CascadeSpec.model_validate(data).training_digest()
    config = data["stages"][0]["config"]
    assert (config.pop("restart"), config.pop("sampling_schedule")) == (0.0, "trained")
    older = CascadeSpec.model_validate(data)
    assert (older.digest(), older.training_digest()) == (digests, training)
    for change in ("metric", "fid"), ("keep", "best"):
        data["evaluation"]["in_loop"] |= dict([change])
        changed = CascadeSpec.model_validate(data)
        assert changed.digest() != digests
        assert changed.training_digest() != training
