"""Models that earlier versions published still load, draw the same images, check and publish."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from errors_help import raises

from cascadezoo import Cascade, check_model
from cascadezoo.cards.card_file import read_card
from cascadezoo.errors import ModelError
from cascadezoo.hub.publish.publish_model import publish
from cascadezoo.model_folder.layout import read_config
from cascadezoo.spec import resolve

FOLDERS = sorted(path for path in (Path(__file__).parent / "published").iterdir() if path.is_dir())


@pytest.fixture(params=FOLDERS, ids=lambda path: path.name)
def published(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a published model."""
    return Path(shutil.copytree(request.param, tmp_path / request.param.name))


BUNDLED = (
    Path(__file__).parents[1] / "plugins" / "cascadezoo-models" / "cascadezoo_models" / "models"
)


@pytest.mark.parametrize(
    "folder", [*FOLDERS, *sorted(BUNDLED.iterdir())], ids=lambda path: path.name
)
def test_settings_of_later_versions_change_no_digest(folder: Path) -> None:
    config = read_config(folder)
    assert resolve(config.spec, for_training=False).spec.digest() == config.spec_digest


def test_it_draws_the_images_that_its_own_version_drew(published: Path) -> None:
    cascade = Cascade.from_pretrained(published)
    with np.load(FOLDERS[0].parent / f"{published.name}-seed0.npz") as file:
        expected = torch.from_numpy(file["images"])
    images = cascade.sample(len(expected), seed=0)
    torch.testing.assert_close(images, expected, rtol=0, atol=2e-5)


def test_its_figures_can_be_measured_again(published: Path) -> None:
    check = check_model(published)
    assert check.ok, (check.failed, check.faults)
    assert any(row.holds for row in check.rows)


def test_its_card_is_read_and_it_can_be_published_again(published: Path, tmp_path: Path) -> None:
    assert "library_name: cascadezoo" in (read_card(published) or "")
    publish(published, tmp_path / "copy")
    again = Cascade.from_pretrained(tmp_path / "copy")
    first = Cascade.from_pretrained(published)
    assert torch.equal(again.sample(2, seed=3), first.sample(2, seed=3))


def test_a_changed_byte_is_still_seen(published: Path) -> None:
    weights = next(published.glob("stages/*/model.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with raises(ModelError, "model-damaged", path=published.name) as caught:
        Cascade.from_pretrained(published)
    assert weights.relative_to(published).as_posix() in str(caught.value)
