"""The U-Net's conditions: labels in three ways, further noise levels, heads."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from hypothesis import given, settings
from hypothesis import strategies as st

from cascadezoo.nn.unet import LABEL_CHANNELS, LABEL_TOKENS, UNet
from cascadezoo.util.rng import Draw

WAYS = ["embedding", "concat", "cross-attention"]
every_way = pytest.mark.parametrize("way", WAYS)


def small(way: str, size: int = 16, **options: object) -> UNet:
    """A U-Net without weights of zero."""
    torch.manual_seed(0)
    chosen = {
        "channels": 8,
        "multipliers": (1, 2, 2),
        "num_classes": 4,
        "attention": [8],
        **options,
    }
    net = UNet(3, 3, size=size, label_conditioning=way, **chosen)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net


def inputs(size: int = 16, count: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    times = torch.arange(count) * 300.0 + 20
    return Draw(0).randn(count, 3, size, size), times, torch.arange(count) % 4


@every_way
def test_each_label_changes_only_its_image(way: str) -> None:
    net = small(way)
    x, times, labels = inputs()
    out = net(x, times, labels)
    other = net(x, times, torch.tensor([2, 1]))
    assert (out - other)[0].abs().max() > 1e-2
    assert torch.allclose(out[1], other[1], rtol=0, atol=1e-5)


@every_way
def test_no_label_is_the_null_label(way: str) -> None:
    net = small(way)
    x, times, labels = inputs()
    without = net(x, times)
    assert torch.allclose(without, net(x, times, torch.full((2,), 4)), rtol=0, atol=1e-5)
    assert (without - net(x, times, labels)).abs().amax(dim=(1, 2, 3)).min() > 1e-2


@every_way
def test_a_network_without_classes_has_nothing_for_labels(way: str) -> None:
    plain = set(UNet(3, 3, size=16, channels=8).state_dict())
    net = UNet(3, 3, size=16, channels=8, label_conditioning=way)  # type: ignore[arg-type]
    assert set(net.state_dict()) == plain


@every_way
def test_the_gradient_reaches_every_parameter(way: str) -> None:
    net = small(way, condition=2, levels=1, dense_skips=True, middle_attention=True, heads=2)
    x, times, _ = inputs(count=5)
    out = net(x, times, torch.arange(5), Draw(5).randn(5, 2, 16, 16), torch.linspace(0, 1, 5))
    (out * Draw(6).randn(*out.shape)).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name
    for name in (
        "embedding.labels.weight",
        "label_channels.table.weight",
        "label_tokens.table.weight",
    ):
        table = dict(net.named_parameters()).get(name)
        if table is not None:
            assert (table.grad != 0).any(dim=1).all()


@pytest.mark.slow
@every_way
def test_the_meaning_of_labels_is_learned(way: str) -> None:
    """From pure noise, only the label determines which of two constant images to predict."""
    torch.manual_seed(0)
    net = UNet(1, 1, size=8, channels=8, multipliers=(1, 2), num_classes=2, label_conditioning=way)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        labels = torch.randint(0, 2, (16,), generator=generator)
        x0 = (labels.float() * 2 - 1).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
        x = torch.randn(16, 1, 8, 8, generator=generator)
        loss = F.mse_loss(net(x, torch.full((16,), 999.0), labels), x0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


@every_way
def test_it_compiles_into_one_graph(way: str) -> None:
    net = small(way, size=14, attention=[8], middle_attention=True, levels=1, condition=1)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    batch = (*inputs(14), Draw(3).randn(2, 1, 14, 14), torch.tensor([0.1, 0.9]))
    assert torch.allclose(compiled(*batch), net(*batch), rtol=0, atol=1e-5)


@every_way
def test_it_runs_without_memory_on_the_meta_device(way: str) -> None:
    with torch.device("meta"):
        net = UNet(3, 6, size=28, num_classes=10, attention=[14], levels=1, label_conditioning=way)  # type: ignore[arg-type]
        x, times, labels = torch.empty(2, 3, 28, 28), torch.empty(2), torch.empty(2).long()
        out = net(x, times, labels, level=torch.empty(2))
    assert out.device.type == "meta"
    assert out.shape == (2, 6, 28, 28)


@every_way
def test_bfloat16_autocast_is_near(way: str) -> None:
    net = small(way, levels=1)
    batch, level = inputs(), torch.tensor([0.2, 0.8])
    exact = net(*batch, level=level)
    with torch.autocast("cpu", torch.bfloat16):
        near = net(*batch, level=level)
        near.float().square().mean().backward()
    assert (near.float() - exact).abs().max() < 0.05 * exact.abs().max()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


@every_way
def test_it_runs_in_channels_last(way: str) -> None:
    net, seen = small(way, middle_attention=True, condition=1), {}

    def look(name: str) -> object:
        def hook(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            seen[name] = args[0].is_contiguous(memory_format=torch.channels_last)

        return hook

    for name, module in net.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_pre_hook(look(name))  # type: ignore[arg-type]
    net(*inputs(), Draw(3).randn(2, 1, 16, 16))
    assert len(seen) > 20
    assert [name for name, channels_last in seen.items() if not channels_last] == []
    # contiguous weights: safetensors refuses others
    assert all(parameter.is_contiguous() for parameter in net.parameters())


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 33),
    width=st.integers(1, 33),
    depth=st.integers(1, 4),
    way=st.sampled_from(WAYS),
    dense_skips=st.booleans(),
)
def test_any_size_goes_through(
    height: int, width: int, depth: int, way: str, dense_skips: bool
) -> None:
    options = {"multipliers": (1,) * depth, "channels": 4, "dense_skips": dense_skips}
    net = small(way, size=32, condition=1, levels=1, **options)
    x, condition = Draw(0).randn(2, 3, height, width), Draw(1).randn(2, 1, height, width)
    with torch.no_grad():
        out = net(x, torch.ones(2), torch.tensor([0, 4]), condition, torch.tensor([0.0, 1.0]))
    assert out.shape == x.shape
    assert torch.isfinite(out).all()


def test_28_pixels_with_four_levels_become_32() -> None:
    net, sizes = small("embedding", 28, multipliers=(1, 1, 1, 1), attention=[16]), []
    net.stem.register_forward_hook(lambda module, args, out: sizes.append(out.shape[-1]))
    net.middle1.register_forward_hook(lambda module, args, out: sizes.append(out.shape[-1]))
    x, times, labels = inputs(28)
    assert net(x, times, labels).shape == x.shape
    assert sizes == [32, 4]
    names = [n for n, m in net.named_modules() if type(m).__name__ == "SelfAttention"]
    assert names == ["down.1.attention.0", "up.2.attention.0"]


def test_further_noise_levels_change_the_output() -> None:
    net = small("embedding", levels=1)
    x, times, labels = inputs()
    out = net(x, times, labels, level=torch.tensor([0.0, 0.5]))
    assert torch.allclose(net(x, times, labels, level=torch.tensor([[0.0], [0.5]])), out)
    other = net(x, times, labels, level=torch.tensor([0.0, 0.51]))
    assert torch.allclose(other[0], out[0], rtol=0, atol=1e-5)
    assert (other[1] - out[1]).abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"^0 .* 1$"):
        net(x, times, labels)
    with pytest.raises(ValueError, match=r"^1 .* 0$"):
        small("embedding")(x, times, labels, level=torch.zeros(2))


def test_cross_attention_is_at_levels_with_attention_and_in_the_middle() -> None:
    def crosses(net: UNet) -> list[str]:
        return [n for n, m in net.named_modules() if type(m).__name__ == "CrossAttention"]

    assert crosses(small("concat")) == []
    assert crosses(small("cross-attention", attention=[])) == ["middle_cross"]
    assert crosses(small("cross-attention", blocks=2)) == [
        "down.1.cross.0",
        "down.1.cross.1",
        "middle_cross",
        "up.1.cross.0",
        "up.1.cross.1",
    ]


def test_the_parameters_of_each_way() -> None:
    def count(way: str) -> int:
        with torch.device("meta"):
            net = UNet(3, 3, size=16, channels=16, num_classes=10, label_conditioning=way)  # type: ignore[arg-type]
        return sum(p.numel() for p in net.parameters())

    with torch.device("meta"):
        none = sum(p.numel() for p in UNet(3, 3, size=16, channels=16).parameters())
    assert count("embedding") - none == 11 * 64
    assert count("concat") - none == 11 * LABEL_CHANNELS + 9 * LABEL_CHANNELS * 16
    attention = 2 * 32 + 2 * (32 * 32 + 32) + 16 * 64 + 64
    assert count("cross-attention") - none == 11 * LABEL_TOKENS * 16 + attention


def test_parameter_names_of_published_networks_do_not_change() -> None:
    """Published models use these keys for their weights."""
    net = UNet(3, 3, size=8, channels=4, multipliers=(1, 2), num_classes=2, attention=[4])
    keys = list(net.state_dict())
    assert keys[:5] == [
        "embedding.time.0.weight",
        "embedding.time.0.bias",
        "embedding.time.2.weight",
        "embedding.time.2.bias",
        "embedding.labels.weight",
    ]
    assert {key.rpartition(".")[0] for key in keys if key.startswith("down.1.")} == {
        *(f"down.1.blocks.0.{n}" for n in ("norm1", "conv1", "time", "norm2", "conv2", "skip")),
        *(f"down.1.attention.0.{n}" for n in ("norm", "qkv", "out")),
    }
    assert {key.split(".")[0] for key in keys} == {
        "embedding",
        "stem",
        "down",
        "middle1",
        "middle2",
        "up",
        "norm",
        "head",
    }
    assert len(keys) == 93


def layout_of_cdm(**options: object) -> UNet:
    """A class-conditional network of the kind of Ho et al. 2021, 256 channels wide at first."""
    chosen = {"multipliers": (1, 2, 3, 4), "dense_skips": True, "middle_attention": True, **options}
    return UNet(3, 6, channels=256, attention=[16, 8], heads=4, num_classes=1000, **chosen)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "blocks", "levels"),
    [(32, 6, 0), (64, 5, 1)],
    ids=["32x32", "32x32 to 64x64"],
)
def test_layouts_like_those_of_cdm_have_their_parameters(
    size: int, blocks: int, levels: int
) -> None:
    kinds = ["Attn" if size // 2**level in (16, 8) else "" for level in range(4)]
    condition = 3 * levels
    with torch.device("meta"):
        ours = layout_of_cdm(size=size, blocks=blocks, levels=levels, condition=condition)
        reference = UNet2DModel(
            sample_size=size,
            in_channels=3 + condition,
            out_channels=6,
            layers_per_block=blocks,
            block_out_channels=(256, 512, 768, 1024),
            down_block_types=[f"{kind}DownBlock2D" for kind in kinds],
            up_block_types=[f"{kind}UpBlock2D" for kind in reversed(kinds)],
            resnet_time_scale_shift="scale_shift",
            num_class_embeds=1001,
            class_embed_type=None,
        )
    second_time = levels * (256 * 1024 + 1024 + 1024 * 1024 + 1024)
    norm = 2 * 1024  # which diffusers leaves out before the attention in the middle
    count = sum(p.numel() for p in ours.parameters())
    assert count == sum(p.numel() for p in reference.parameters()) + second_time + norm
