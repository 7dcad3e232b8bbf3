"""The U-Net: any size, its conditions, its layout."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from hypothesis import given
from hypothesis import strategies as st

from cascadezoo.nn.unet import UNet, pad_to_multiple
from cascadezoo.util.rng import Draw


def small(size: int = 16, **options: object) -> UNet:
    """A U-Net without weights of zero."""
    torch.manual_seed(0)
    settings = {"channels": 8, "multipliers": (1, 2, 2), "num_classes": 4, **options}
    net = UNet(3, 3, size=size, **settings)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net


def inputs(size: int = 16, count: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    times = torch.arange(count) * 300.0 + 20
    return Draw(0).randn(count, 3, size, size), times, torch.arange(count) % 4


@pytest.mark.parametrize("size", [28, 16, 15, 7, 3, 1])
def test_any_size_goes_through(size: int) -> None:
    net = small(size, attention=[], middle_attention=True)
    x, times, labels = inputs(size)
    out = net(x, times, labels)
    assert out.shape == x.shape
    out.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_images_need_not_be_square() -> None:
    x = Draw(0).randn(2, 3, 9, 14)
    assert small()(x, torch.tensor([1.0, 2.0]), torch.tensor([0, 1])).shape == (2, 3, 9, 14)


@given(height=st.integers(1, 20), width=st.integers(1, 20), factor=st.sampled_from([1, 2, 4, 8]))
def test_padding_surrounds_the_image(height: int, width: int, factor: int) -> None:
    images = torch.arange(float(height * width)).view(1, 1, height, width)
    padded, top, left = pad_to_multiple(images, factor)
    assert padded.shape[2] % factor == padded.shape[3] % factor == 0
    assert padded.shape[2] - height < factor
    assert padded.shape[3] - width < factor
    assert torch.equal(padded[..., top : top + height, left : left + width], images)
    assert set(padded.unique().tolist()) <= set(images.unique().tolist())


def test_padding_reflects_where_it_can() -> None:
    row = torch.tensor([[[[1.0, 2, 3, 4, 5, 6]]]]).expand(1, 1, 6, 6)
    padded, top, left = pad_to_multiple(row, 4)
    assert (top, left) == (1, 1)
    assert padded[0, 0, 0].tolist() == [2, 1, 2, 3, 4, 5, 6, 5]
    tiny, _, _ = pad_to_multiple(torch.ones(1, 1, 1, 1), 4)
    assert torch.equal(tiny, torch.ones(1, 1, 4, 4))


def test_every_condition_changes_the_output() -> None:
    net = small(condition=2)
    x, times, labels = inputs()
    condition = Draw(9).randn(2, 2, 16, 16)
    out = net(x, times, labels, condition)
    for other in (
        net(x + 0.5, times, labels, condition),
        net(x, times + 100, labels, condition),
        net(x, times, (labels + 1) % 4, condition),
        net(x, times, None, condition),
        net(x, times, labels, condition + 0.5),
    ):
        assert (out - other).abs().amax(dim=(1, 2, 3)).min() > 1e-3
    null = net(x, times, torch.full_like(labels, 4), condition)
    assert torch.allclose(net(x, times, None, condition), null, rtol=0, atol=1e-5)


def test_a_fresh_network_predicts_zero() -> None:
    torch.manual_seed(0)
    net = UNet(3, 3, size=16, channels=8)
    x, times, _ = inputs()
    assert torch.equal(net(x, times), torch.zeros_like(x))


def test_attention_is_at_the_configured_resolutions() -> None:
    def attentions(net: UNet) -> list[str]:
        return [n for n, m in net.named_modules() if type(m).__name__ == "SelfAttention"]

    assert attentions(small()) == []
    assert attentions(small(attention=[8])) == ["down.1.attention.0", "up.1.attention.0"]
    assert attentions(small(size=14, attention=[4])) == ["down.2.attention.0", "up.0.attention.0"]
    assert attentions(small(middle_attention=True)) == ["middle_attention"]


@pytest.mark.parametrize("dense_skips", [False, True])
@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("multipliers", [(1,), (1, 2, 3, 3)])
def test_layouts_go_through(dense_skips: bool, blocks: int, multipliers: tuple[int, ...]) -> None:
    net = small(dense_skips=dense_skips, blocks=blocks, multipliers=multipliers)
    x, times, labels = inputs()
    assert net(x, times, labels).shape == x.shape


def test_the_layout_of_ddpm_has_its_parameters() -> None:
    """The network of Ho et al. 2020 for CIFAR-10, of 35.7 million parameters."""
    with torch.device("meta"):
        ours = UNet(
            3,
            3,
            size=32,
            channels=128,
            multipliers=(1, 2, 2, 2),
            blocks=2,
            dense_skips=True,
            attention=[16],
            middle_attention=True,
            scale_shift=False,
        )
        reference = UNet2DModel(
            sample_size=32,
            block_out_channels=(128, 256, 256, 256),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=None,
        )
    count = sum(p.numel() for p in ours.parameters())
    assert count == sum(p.numel() for p in reference.parameters()) == 35_746_307


def test_it_runs_in_channels_last() -> None:
    net, seen = small(middle_attention=True, attention=[8]), {}

    def look(name: str) -> object:
        def hook(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            seen[name] = args[0].is_contiguous(memory_format=torch.channels_last)

        return hook

    for name, module in net.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_pre_hook(look(name))  # type: ignore[arg-type]
    net(*inputs())
    assert len(seen) > 20
    assert [name for name, channels_last in seen.items() if not channels_last] == []
    # contiguous weights: safetensors refuses others
    assert all(parameter.is_contiguous() for parameter in net.parameters())


def test_dropout_is_for_training_only() -> None:
    net = small(dropout=0.5)
    torch.manual_seed(1)
    assert not torch.equal(net(*inputs()), net(*inputs()))
    net.eval()
    assert torch.equal(net(*inputs()), net(*inputs()))


def test_compiles_into_one_graph() -> None:
    net = small(size=14, attention=[8], middle_attention=True)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    batch = inputs(14)
    assert torch.allclose(compiled(*batch), net(*batch), rtol=0, atol=1e-5)


def test_the_meaning_of_labels_is_learned() -> None:
    """From pure noise, only the label determines which of two constant images to predict."""
    torch.manual_seed(0)
    net = UNet(1, 1, size=8, channels=8, multipliers=(1, 2), num_classes=2)
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        labels = torch.randint(0, 2, (16,), generator=generator)
        x0 = (labels.float() * 2 - 1).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
        x = torch.randn(16, 1, 8, 8, generator=generator)
        loss = F.mse_loss(net(x, torch.full((16,), 999.0), labels), x0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_small_images_are_padded_as_far_as_requested() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    padded, top, left = pad_to_multiple(image, 2, 8)
    assert (padded.shape[-2:], top, left) == ((8, 8), 2, 2)
    assert torch.equal(padded, torch.nn.functional.pad(image, (2, 2, 2, 2), mode="reflect"))
    assert pad_to_multiple(image, 2, 3)[0] is image
    settings = {"channels": 8, "multipliers": (1, 2), "attention": [4]}
    torch.manual_seed(0)
    small = UNet(2, 2, size=4, pad_to=8, **settings)  # type: ignore[arg-type]
    torch.nn.init.normal_(small.head.weight)
    large = UNet(2, 2, size=8, **settings)  # type: ignore[arg-type]
    large.load_state_dict(small.state_dict())
    x, times = torch.randn(3, 2, 4, 4), torch.tensor([1.0, 5.0, 9.0])
    whole = large(torch.nn.functional.pad(x, (2, 2, 2, 2), mode="reflect"), times)
    torch.testing.assert_close(small(x, times), whole[..., 2:6, 2:6])
    assert small(x, times).abs().max() > 0
