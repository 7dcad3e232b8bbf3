"""Conditioning augmentation: noise by level, and blur against torchvision."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from cascadezoo.diffusion.augmentation import blur_augmentation, gaussian_augmentation
from cascadezoo.util.rng import Draw


def test_noise_is_mixed_in_by_level() -> None:
    z, noise = Draw(1).randn(3, 2, 5, 5), Draw(2).randn(3, 2, 5, 5)
    spoiled = gaussian_augmentation(z, noise, torch.tensor([0.0, 1 / 3, 1.0]))
    assert torch.equal(spoiled[0], z[0])
    mixed = math.cos(math.pi / 6) * z[1] + math.sin(math.pi / 6) * noise[1]
    assert torch.allclose(spoiled[1], mixed, rtol=0, atol=1e-6)
    assert torch.allclose(spoiled[2], noise[2], rtol=0, atol=1e-6)


def test_blur_is_that_of_torchvision() -> None:
    z = Draw(1).randn(8, 3, 7, 9).double()
    uniform = torch.rand(8, 2, generator=torch.Generator().manual_seed(0)).double()
    blurred = blur_augmentation(z, uniform, probability=1.0)
    for image, got, (_, where) in zip(z, blurred, uniform.tolist(), strict=True):
        wanted = gaussian_blur(image[None], [3, 3], [0.4 + 0.2 * where] * 2)[0]
        # torchvision makes its kernel in single precision
        assert torch.allclose(got, wanted, rtol=0, atol=1e-5)


def test_half_of_the_images_are_blurred_and_the_others_untouched() -> None:
    z = Draw(1).randn(2000, 1, 2, 2)
    blurred = blur_augmentation(z, Draw(2).rand(2000, 2))
    same = (blurred == z).flatten(1).all(1)
    assert same.float().mean().item() == pytest.approx(0.5, abs=0.04)
    assert torch.equal(blur_augmentation(z, Draw(2).rand(2000, 2), probability=0.0), z)


def test_blur_keeps_flat_images_and_the_range() -> None:
    uniform = Draw(3).rand(16, 2)
    flat = torch.full((16, 3, 4, 4), 0.7)
    assert torch.allclose(blur_augmentation(flat, uniform, probability=1.0), flat)
    z = Draw(4).rand(16, 3, 6, 6) * 2 - 1
    assert blur_augmentation(z, uniform, probability=1.0).abs().max() <= 1
