"""CUDA graphs of networks, and the fused kernel of norm, scale, shift and SiLU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from gpu_cases import KINDS, distance, flat, image_data, note, spec_of, state
from torch import Tensor, nn

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.loader import DeviceLoader
from cascadezoo.nn.resnet import Norm, ResidualBlock
from cascadezoo.spec import load_spec
from cascadezoo.train.engine import make_accelerator
from cascadezoo.train.graphs import WARM_UP, NetworkGraph, graphed
from cascadezoo.train.trainer import Trainer

GRAPHED = [
    "flow.v1",
    "mean-flow.v1",
    "flow-sr.v2",
    "unet-diffusion.v1",
    "diffusion.v1",
    "pixelshuffle.v1",
    "vit.v1",
    "dit.v1",
]


def composed(x: Tensor, norm: Norm, modulation: Tensor | None) -> Tensor:
    normal = F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
    if modulation is not None:
        scale, shift = modulation[:, :, None, None].chunk(2, dim=1)
        normal = normal * (1 + scale) + shift
    return F.silu(normal)


@pytest.mark.parametrize("modulated", [True, False])
@pytest.mark.parametrize(("channels", "size"), [(56, 16), (64, 32), (12, 5), (256, 8), (128, 1)])
def test_the_fused_kernel_equals_the_composition(
    channels: int, size: int, modulated: bool, cuda: torch.device
) -> None:
    torch.manual_seed(0)
    norm = Norm(channels).to(cuda)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    for dtype, limit in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        x = (3 + 2 * torch.randn(6, channels, size, size, device=cuda)).to(dtype)
        modulation = torch.randn(6, 2 * channels, device=cuda).to(dtype) if modulated else None
        leaves = [t.clone().requires_grad_() for t in (x, modulation) if t is not None]
        known = [t.detach().double().requires_grad_() for t in leaves]
        exact = Norm(channels).to(cuda).double()
        exact.load_state_dict(norm.state_dict())
        fused = norm.activated(*leaves)
        expected = composed(known[0], exact, known[1] if modulated else None)
        assert fused.dtype == dtype
        assert fused.is_contiguous(memory_format=torch.channels_last)
        weights = torch.randn_like(expected)
        grads = torch.autograd.grad(
            (fused.double() * weights).sum(), [*leaves, norm.weight, norm.bias]
        )
        truth = torch.autograd.grad((expected * weights).sum(), [*known, exact.weight, exact.bias])
        assert distance(fused.detach().double(), expected.detach()) < limit
        for grad, true in zip(grads, truth, strict=True):
            assert distance(grad.double(), true) < limit


def trained(kind: str, precision: str, device: torch.device, graphs: bool) -> dict[str, Tensor]:
    resolved = load_spec(spec_of(kind, 12))
    cascade = Cascade.from_spec(resolved, device=device)
    data = image_data(size=resolved.stages[-1].output.size)
    loader = DeviceLoader(data, batch_size=resolved.spec.training.batch_size, seed=0, device=device)
    accelerator = make_accelerator(device, precision)  # type: ignore[arg-type]
    Trainer(cascade, loader, accelerator, data=data, graphs=graphs).run()
    return state(cascade)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", [kind for kind in GRAPHED if kind in KINDS])
def test_graphs_train_the_same_as_eager_steps(
    kind: str, precision: str, cuda: torch.device, recwarn: pytest.WarningsRecorder
) -> None:
    torch.backends.cudnn.benchmark = False
    eager = trained(kind, precision, cuda, graphs=False)
    replayed = trained(kind, precision, cuda, graphs=True)
    assert not [str(w.message) for w in recwarn if "captured" in str(w.message)]
    assert list(eager) == list(replayed)
    off = distance(flat(list(replayed.values())), flat(list(eager.values())))
    note(f"graphs {kind} {precision}", weights=off)
    assert off < {"fp32": 1e-4, "bf16": 2e-2}[precision]


def test_a_graph_replays_only_what_it_captured(cuda: torch.device) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(8, 8, time=4).to(cuda)
    plain = ResidualBlock(8, 8, time=4).to(cuda)
    nn.init.normal_(block.conv2.weight)
    plain.load_state_dict(block.state_dict())
    graph = NetworkGraph(block, "block")
    x, time = torch.randn(2, 8, 4, 4, device=cuda), torch.randn(2, 4, device=cuda)
    for step in range(WARM_UP + 3):
        x = torch.randn_like(x)
        output = graph(x, time)
        assert torch.allclose(output, plain(x, time), atol=1e-4)
        assert graph.captured == (step >= WARM_UP)
        output.sum().backward()
        block.zero_grad(set_to_none=True)
    # A second call before the first backward pass does not change the first output.
    first = graph(x, time)
    kept = first.clone()
    second = graph(x + 1, time)
    assert torch.equal(first, kept)
    assert torch.allclose(second, plain(x + 1, time), atol=1e-4)
    (first.sum() + second.sum()).backward()
    # Other shapes, and calls without gradients, run eagerly.
    assert graph(x[:1], time[:1]).shape[0] == 1
    with torch.no_grad():
        assert not graph(x, time).requires_grad


def test_graphs_are_removed(device: torch.device) -> None:
    cascade = Cascade.from_spec(load_spec(spec_of("flow.v1", 2)), device=device)
    with graphed(cascade.named_stages()) as graphs:
        assert bool(graphs) == (device.type == "cuda")
    for _, stage in cascade.named_stages():
        assert all(module._compiled_call_impl is None for module in stage.modules())
