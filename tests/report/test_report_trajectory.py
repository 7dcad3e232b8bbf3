from __future__ import annotations

import itertools

import pytest
import torch
from errors_help import raises
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cascadezoo import Cascade
from cascadezoo.errors import InputError, SampleError
from cascadezoo.report.guidance_grid import guidance_grid, sample_guidance
from cascadezoo.report.trajectory import Thinned, sample_trajectory


@settings(deadline=None)
@given(st.integers(1, 700), st.integers(2, 12))
def test_thinning_keeps_both_ends_and_even_positions(total: int, count: int) -> None:
    states = Thinned(count)
    most = 0
    for number in range(total):
        states.add(torch.tensor(float(number)))
        most = max(most, len(states._kept))
    rows = states.rows()
    numbers = [number for number, _ in rows]
    assert [float(state) for _, state in rows] == numbers
    assert most < 4 * count
    assert len(numbers) <= count
    assert numbers == sorted(set(numbers))
    assert (numbers[0], numbers[-1]) == (0, total - 1)
    if total <= count:
        assert numbers == list(range(total))
    elif count > 2:
        even = (total - 1) / (count - 1)
        gaps = [b - a for a, b in itertools.pairwise(numbers)]
        assert max(gaps) <= 2 * even + 1


def test_no_states_no_rows() -> None:
    assert Thinned(3).rows() == []


def test_states_are_copies() -> None:
    states, image = Thinned(2), torch.zeros(1)
    for value in (1.0, 2.0, 3.0):
        states.add(image.fill_(value))
    assert [float(state) for _, state in states.rows()] == [1.0, 3.0]


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    untrained = Cascade.from_spec(
        {
            "name": "two",
            "data": {"source": "shapes", "config": {"size": 16, "count": 64}},
            "stages": [
                {
                    "name": "coarse",
                    "kind": "flow.v1",
                    "config": {"channels": 8, "multipliers": [1], "steps": 12},
                },
                {"name": "up", "kind": "pixelshuffle.v1", "config": {"hidden": 8}},
            ],
            "training": {"losses": []},
        }
    )
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in untrained.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=random))
    return untrained.eval()


def test_a_trajectory_ends_with_the_sampled_image(cascade: Cascade) -> None:
    states = sample_trajectory(cascade, 3, columns=4, options={"seed": 2, "guidance": 2.0})
    assert next(iter(states)) == "step 1"
    assert list(states)[-2:] == ["step 12", "image"]
    assert len(states) == 5
    whole = cascade.sample(3, seed=2, guidance=2.0, return_stages=True)
    assert torch.equal(states["image"], whole["up"])
    assert torch.equal(states["step 12"], whole["coarse"])
    assert states["step 1"].shape == (3, 3, 8, 8)
    distance = [float((states[k] - states["step 12"]).abs().mean()) for k in list(states)[:-1]]
    assert distance == sorted(distance, reverse=True)


def test_the_last_step_of_a_lone_generator_is_its_image() -> None:
    lone = Cascade.from_spec(
        {
            "name": "lone",
            "data": {"source": "shapes", "config": {"size": 8, "count": 64}},
            "stages": [
                {"name": "g", "kind": "flow.v1", "config": {"channels": 8, "multipliers": [1]}}
            ],
        }
    )
    states = sample_trajectory(lone, 1, columns=3, options={"steps": 3})
    assert list(states) == ["step 1", "step 2", "image"]


def test_latents_are_decoded() -> None:
    latent = Cascade.from_spec(
        {
            "name": "latent",
            "data": {"source": "shapes", "config": {"size": 16, "count": 64}},
            "stages": [
                {"name": "g", "kind": "flow.v1", "config": {"channels": 8, "multipliers": [1]}},
                {
                    "name": "decode",
                    "kind": "autoencoder.v1",
                    "config": {"channels": 8, "multipliers": [1, 2]},
                },
            ],
            "training": {"losses": []},
        }
    )
    assert latent.stage("g").geometry.output.latent
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in latent.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=random))
    states = sample_trajectory(latent, 2, columns=3, options={"steps": 4, "guidance": 2.0})
    assert {tuple(images.shape) for images in states.values()} == {(2, 3, 16, 16)}
    assert len(states) == 3
    assert not torch.equal(states["step 1"], states["image"])


def test_stages_without_steps_are_refused(cascade: Cascade) -> None:
    with raises(SampleError, "sample-no-course", name="up") as caught:
        sample_trajectory(cascade, 1, stage="up")
    assert "coarse" in str(caught.value.hint)
    with raises(SampleError, "sample-stage-unknown", name="nobody"):
        sample_trajectory(cascade, 1, stage="nobody")
    with raises(SampleError, "sample-course-too-short", count=1):
        sample_trajectory(cascade, 1, columns=1)


def test_a_guidance_grid_shows_each_image_at_its_position(cascade: Cascade) -> None:
    done: list[int] = []
    rows = sample_guidance(cascade, [0.0, 1.0, 4.0], 5, options={"seed": 3}, progress=done.append)
    assert done == [5, 10, 15]
    assert torch.equal(rows[4.0], cascade.sample(5, seed=3, guidance=4.0))
    assert not torch.equal(rows[4.0], rows[0.0])
    picture = guidance_grid(rows, [f"label {i}" for i in range(5)])
    assert isinstance(picture, Image.Image)
    cell = 96
    left, top = picture.width - 12 - 5 * (cell + 2) + 2, picture.height - 12 - 3 * (cell + 2) + 2
    for row, images in enumerate(rows.values()):
        for column in range(5):
            corner = (left + column * (cell + 2), top + row * (cell + 2))
            expected = ((images[column, :, 0, 0].clamp(-1, 1) + 1) * 127.5).round().int().tolist()
            assert list(picture.getpixel(corner)) == expected


def test_grids_that_cannot_be_drawn(cascade: Cascade) -> None:
    image = torch.zeros(2, 3, 8, 8)
    for rows, heads in (({}, None), ({1.0: image, 2.0: image[:1]}, None), ({1.0: image}, ["one"])):
        with pytest.raises(InputError):
            guidance_grid(rows, heads)
