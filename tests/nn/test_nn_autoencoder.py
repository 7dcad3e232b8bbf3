"""The two autoencoder networks: shapes, the posterior, and parity with diffusers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from cascadezoo.nn.autoencoder import (
    Posterior,
    VariationalAutoencoder,
    crop_middle,
    posterior_of,
)
from cascadezoo.nn.unet import pad_to_multiple


def small(**changes: object) -> VariationalAutoencoder:
    torch.manual_seed(0)
    network = VariationalAutoencoder(3, 2, **{"channels": 8, "multipliers": (1, 2, 2), **changes})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


# --- the posterior


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.floats(0.1, 5.0))
def test_kl_is_that_of_torch_distributions(seed: int, spread: float) -> None:
    moments = spread * torch.randn(3, 4, 2, 5, generator=torch.Generator().manual_seed(seed))
    posterior = posterior_of(moments)
    own = Normal(posterior.mean.double(), (0.5 * posterior.log_variance.double()).exp())
    wanted = kl_divergence(own, Normal(0.0, 1.0)).sum(dim=(1, 2, 3))
    torch.testing.assert_close(posterior.kl().double(), wanted, rtol=1e-5, atol=1e-5)


def test_kl_of_the_standard_normal_is_zero_and_of_others_above() -> None:
    zeros = torch.zeros(2, 1, 3, 3)
    assert torch.equal(Posterior(zeros, zeros).kl(), torch.zeros(2))
    assert (Posterior(zeros + 0.1, zeros).kl() > 0).all()
    assert (Posterior(zeros, zeros - 0.1).kl() > 0).all()


def test_log_variances_are_limited() -> None:
    moments = torch.cat([torch.zeros(1, 1, 1, 2), torch.tensor([[[[-1e4, 1e4]]]])], dim=1)
    posterior = posterior_of(moments)
    assert posterior.log_variance.flatten().tolist() == [-30.0, 20.0]
    assert posterior.kl().isfinite().all()
    assert posterior_of(moments.bfloat16()).mean.dtype == torch.float32


def test_samples_have_the_mean_and_the_variance() -> None:
    posterior = Posterior(torch.full((1, 1, 200, 200), 3.0), torch.full((1, 1, 200, 200), -2.0))
    drawn = posterior.sample(
        torch.randn(1, 1, 200, 200, generator=torch.Generator().manual_seed(0))
    )
    assert drawn.mean().item() == pytest.approx(3.0, abs=0.01)
    assert drawn.var().log().item() == pytest.approx(-2.0, abs=0.05)


# --- sizes


@settings(deadline=None, max_examples=40)
@given(st.integers(3, 40), st.sampled_from([1, 2, 4, 8]))
def test_cropping_undoes_padding(size: int, factor: int) -> None:
    images = torch.arange(float(size * size)).view(1, 1, size, size)
    padded, _, _ = pad_to_multiple(images, factor)
    assert torch.equal(crop_middle(padded, size), images)


@pytest.mark.parametrize(("size", "latents"), [(28, 7), (27, 7), (32, 8), (5, 2), (1, 1)])
def test_any_size_goes_there_and_back(size: int, latents: int) -> None:
    network = small()
    posterior = network.encode(torch.randn(2, 3, size, size))
    assert posterior.mean.shape == posterior.log_variance.shape == (2, 2, latents, latents)
    assert network.decode(posterior.mean, size).shape == (2, 3, size, size)


def test_an_untrained_autoencoder_decodes_grey_from_narrow_posteriors() -> None:
    network = VariationalAutoencoder(3, 2, channels=8)
    posterior = network.encode(torch.randn(2, 3, 8, 8))
    assert network.decode(posterior.mean, 8).abs().max() == 0
    assert posterior.log_variance.mean().item() == pytest.approx(-6.0, abs=1.0)


def test_images_of_a_batch_are_independent() -> None:
    network = small()
    images = torch.randn(3, 3, 12, 12)
    whole = network.encode(images).mean
    torch.testing.assert_close(network.encode(images[1:2]).mean, whole[1:2], rtol=0, atol=1e-5)


@pytest.mark.parametrize("image", [1, 3])
def test_all_but_the_first_layers_work_in_channels_last(image: int) -> None:
    network = VariationalAutoencoder(image, 2, channels=8, multipliers=(1, 2))
    seen: list[bool] = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d) and module.in_channels >= 8:
            module.register_forward_pre_hook(
                lambda _, args: seen.append(
                    args[0].is_contiguous(memory_format=torch.channels_last)
                )
            )
    network.decode(network.encode(torch.randn(2, image, 12, 12)).mean, 12)
    assert len(seen) > 10
    assert all(seen)
    assert all(parameter.is_contiguous() for parameter in network.parameters())


def test_a_last_halving_without_blocks_of_its_own() -> None:
    three = VariationalAutoencoder(1, 2, channels=8, multipliers=(1, 2, 4), halve_last=True)
    four = VariationalAutoencoder(1, 2, channels=8, multipliers=(1, 2, 4, 4))
    assert three.factor == four.factor == 8
    images = torch.randn(2, 1, 28, 28)
    assert three.encode(images).mean.shape == (2, 2, 4, 4)
    assert three.decode(torch.randn(2, 2, 4, 4), 28).shape == (2, 1, 28, 28)
    block = sum(p.numel() for p in three.encoder.middle[0].parameters())
    one, other = (sum(p.numel() for p in net.parameters()) for net in (three, four))
    # The blocks of a fourth level, in the encoder and in the decoder.
    assert other - one == 2 * block
