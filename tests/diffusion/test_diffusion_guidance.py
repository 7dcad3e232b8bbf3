"""Classifier-free guidance: its arithmetic, its price, and dropped labels."""

from __future__ import annotations

import pytest
import torch

from cascadezoo.diffusion.guidance import drop_labels, evaluations, guided
from cascadezoo.draws import Draw

NULL = 5


class Network:
    """A prediction that differs by image, time and label, and counts its forwards."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, x: torch.Tensor, times: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(x))
        return x * times.view(-1, 1, 1, 1) + labels.view(-1, 1, 1, 1)


def predictions(scale: float, network: Network) -> torch.Tensor:
    x, times = Draw(0).randn(4, 3, 2, 2), Draw(1).rand(4)
    return guided(network, x, times, torch.tensor([0, 1, 2, 3]), NULL, scale)


def test_the_scale_says_how_far_to_go_from_unconditional_to_conditional() -> None:
    conditional = predictions(1.0, Network())
    unconditional = predictions(0.0, Network())
    for scale in (0.5, 2.0, 7.5):
        wanted = unconditional + scale * (conditional - unconditional)
        assert torch.allclose(predictions(scale, Network()), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("scale", "batches"), [(1.0, [4]), (0.0, [4]), (3.0, [8])])
def test_one_forward_whatever_the_scale(scale: float, batches: list[int]) -> None:
    network = Network()
    predictions(scale, network)
    assert network.batches == batches
    assert evaluations(scale) == batches[0] // 4


def test_channels_last_images_stay_so() -> None:
    seen = []

    def network(x: torch.Tensor, times: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append(x.is_contiguous(memory_format=torch.channels_last))
        return x

    x = Draw(0).randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    guided(network, x, Draw(1).rand(4), torch.tensor([0, 1, 2, 3]), NULL, 2.0)
    assert seen == [True]


def test_the_result_is_float32() -> None:
    result = guided(
        lambda x, times, labels: x.bfloat16(),
        torch.ones(1, 1, 2, 2),
        torch.zeros(1),
        torch.tensor([0]),
        NULL,
        2.0,
    )
    assert result.dtype == torch.float32


def test_labels_are_dropped_as_often_as_asked() -> None:
    labels = torch.zeros(20_000, dtype=torch.int64)
    dropped = drop_labels(labels, NULL, 0.1, Draw(0))
    assert set(dropped.unique().tolist()) == {0, NULL}
    assert (dropped == NULL).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert dropped.dtype == torch.int64
    assert torch.equal(drop_labels(labels, NULL, 0.0, Draw(0)), labels)
    assert (drop_labels(labels, NULL, 1.0, Draw(0)) == NULL).all()
