"""Classifier-free guidance: its arithmetic, its cost, and dropped labels."""

from __future__ import annotations

import pytest
import torch

from cascadezoo.diffusion.guidance import drop_labels, evaluations, guided, scale_within
from cascadezoo.util.rng import Draw

NULL = 5


class Network:
    """A prediction that depends on image, time and label, and counts its forward passes."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, x: torch.Tensor, times: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(x))
        return x * times.view(-1, 1, 1, 1) + labels.view(-1, 1, 1, 1)


def predictions(scale: float, network: Network) -> torch.Tensor:
    x, times = Draw(0).randn(4, 3, 2, 2), Draw(1).rand(4)
    labels = torch.tensor([0, 1, 2, 3])
    return guided(network, x, times, labels, torch.full_like(labels, NULL), scale)


def test_the_scale_extrapolates_from_unconditional_to_conditional() -> None:
    conditional = predictions(1.0, Network())
    unconditional = predictions(0.0, Network())
    for scale in (0.5, 2.0, 7.5):
        wanted = unconditional + scale * (conditional - unconditional)
        assert torch.allclose(predictions(scale, Network()), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("scale", "batches"), [(1.0, [4]), (0.0, [4]), (3.0, [8])])
def test_any_scale_needs_one_forward_pass(scale: float, batches: list[int]) -> None:
    network = Network()
    predictions(scale, network)
    assert network.batches == batches
    assert evaluations(scale) == batches[0] // 4


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_each_image_has_its_own_label_to_go_from(scale: float) -> None:
    """Negative labels, some of them the null label."""
    x, times = Draw(0).randn(3, 2, 2, 2), Draw(1).rand(3)
    labels, against = torch.tensor([0, 1, 2]), torch.tensor([4, NULL, 2])
    got = guided(Network(), x, times, labels, against, scale)
    wanted = Network()(x, times, against).lerp(Network()(x, times, labels), scale)
    assert torch.allclose(got, wanted, rtol=0, atol=1e-5)
    # a label against itself is no guidance
    assert torch.allclose(got[2], Network()(x, times, labels)[2], rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_both_halves_receive_the_conditions(scale: float) -> None:
    seen = []

    def network(
        x: torch.Tensor,
        times: torch.Tensor,
        labels: torch.Tensor,
        upstream: torch.Tensor,
        level: torch.Tensor,
    ) -> torch.Tensor:
        seen.append((upstream.clone(), level.clone()))
        return x + upstream * level.view(-1, 1, 1, 1) + labels.view(-1, 1, 1, 1)

    x, upstream, level = Draw(0).randn(2, 3, 4, 4), Draw(1).randn(2, 3, 4, 4), Draw(2).rand(2)
    labels, against = torch.tensor([0, 1]), torch.tensor([NULL, NULL])
    got = guided(network, x, level, labels, against, scale, upstream, level)
    halves = evaluations(scale)
    assert torch.equal(seen[0][0], torch.cat([upstream] * halves))
    assert torch.equal(seen[0][1], torch.cat([level] * halves))
    pushed = (1 - scale) * against + scale * labels
    wanted = x + upstream * level.view(-1, 1, 1, 1) + pushed.view(-1, 1, 1, 1)
    assert torch.allclose(got, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("scale", "rest"), [(0.0, NULL), (1.0, 2), (3.0, 2)])
def test_channels_beyond_the_first_are_not_guided(scale: float, rest: int) -> None:
    def network(x: torch.Tensor, times: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return labels.view(-1, 1, 1, 1) * torch.ones(len(x), 6, 2, 2)

    arguments = torch.ones(1, 3, 2, 2), torch.ones(1), torch.tensor([2]), torch.tensor([NULL])
    got = guided(network, *arguments, scale, channels=3)
    assert got.shape == (1, 6, 2, 2)
    assert got[:, :3].unique().tolist() == [NULL + scale * (2 - NULL)]
    assert got[:, 3:].unique().tolist() == [rest]
    assert torch.equal(guided(network, *arguments, scale, channels=6)[:, :3], got[:, :3])


def test_guidance_is_limited_to_its_interval() -> None:
    levels = (0.0, 0.2, 0.5, 0.8, 1.0)
    assert [scale_within(3.0, level, (0.2, 0.8)) for level in levels] == [1, 3, 3, 3, 1]


def test_channels_last_images_stay_so() -> None:
    seen = []

    def network(x: torch.Tensor, times: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append(x.is_contiguous(memory_format=torch.channels_last))
        return x

    x = Draw(0).randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    labels = torch.tensor([0, 1, 2, 3])
    guided(network, x, Draw(1).rand(4), labels, labels, 2.0)
    assert seen == [True]


def test_the_result_is_float32() -> None:
    result = guided(
        lambda x, times, labels: x.bfloat16(),
        torch.ones(1, 1, 2, 2),
        torch.zeros(1),
        torch.tensor([0]),
        torch.tensor([NULL]),
        2.0,
    )
    assert result.dtype == torch.float32


def test_labels_are_dropped_with_the_given_probability() -> None:
    labels = torch.zeros(20_000, dtype=torch.int64)
    dropped = drop_labels(labels, NULL, 0.1, Draw(0))
    assert set(dropped.unique().tolist()) == {0, NULL}
    assert (dropped == NULL).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert dropped.dtype == torch.int64
    assert torch.equal(drop_labels(labels, NULL, 0.0, Draw(0)), labels)
    assert (drop_labels(labels, NULL, 1.0, Draw(0)) == NULL).all()
