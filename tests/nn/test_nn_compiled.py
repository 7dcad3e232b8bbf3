"""Compiled networks: equal results and names, shared code, and failed compilation."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from cascadezoo.nn.compiled import (
    COMPILED_BLOCKS,
    CompileScope,
    compile_network,
    compiler_problem,
    is_compiled,
    uncompile_failed,
)
from cascadezoo.nn.unet import UNet
from cascadezoo.util.rng import Draw


def unet() -> UNet:
    torch.manual_seed(0)
    net = UNet(3, 3, size=8, channels=8, multipliers=(1, 2), blocks=2, num_classes=4)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net


def inputs(count: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = Draw(0)
    return draw.randn(count, 3, 8, 8), torch.arange(count) * 300.0, torch.arange(count) % 4


# The compiler itself reads a tensor's .grad, and hides the warning of it but not from -W error.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch.compiler.reset()


@pytest.mark.parametrize("scope", ["blocks", "network"])
def test_a_compiled_network_computes_the_same_under_the_same_names(scope: CompileScope) -> None:
    plain, compiled = unet(), unet()
    assert not is_compiled(compiled)
    functions = compile_network(compiled, "net", scope, backend="eager")
    assert is_compiled(compiled)
    blocks = sum(isinstance(module, COMPILED_BLOCKS) for module in compiled.modules())
    assert functions == 1 if scope == "network" else 1 < functions < blocks
    assert list(compiled.state_dict()) == list(plain.state_dict())
    one, two = plain(*inputs()), compiled(*inputs())
    assert torch.allclose(one, two, rtol=0, atol=1e-6)
    one.square().mean().backward()
    two.square().mean().backward()
    for (name, a), b in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-6), name


def test_the_code_sees_weights_that_change_later() -> None:
    plain, compiled = unet(), unet()
    compile_network(compiled, "net", backend="eager")
    compiled(*inputs())
    with torch.no_grad():
        for net in (plain, compiled):
            for parameter in net.parameters():
                parameter.mul_(1.5)
    assert torch.allclose(plain(*inputs()), compiled(*inputs()), rtol=0, atol=1e-6)


def test_a_network_without_blocks_is_compiled_as_one() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    assert compile_network(net, "net", "blocks", backend="eager") == 1
    assert net._compiled_call_impl is not None


def test_a_failed_compilation_warns_once_and_runs_uncompiled() -> None:
    def broken(graph: torch.fx.GraphModule, examples: list[torch.Tensor]) -> Callable[..., Any]:
        raise RuntimeError("no code for this graph")

    plain, net = unet(), unet()
    compile_network(net, "mine", "network", backend=broken)
    with pytest.warns(RuntimeWarning, match="^mine "):
        first = net(*inputs())
    assert torch.equal(first, plain(*inputs()))
    assert torch.equal(net(*inputs()), first)  # warnings are errors in these tests
    assert not is_compiled(net)


def test_blocks_that_cannot_be_compiled_warn_once_for_the_network() -> None:
    calls = 0

    def broken(graph: torch.fx.GraphModule, examples: list[torch.Tensor]) -> Callable[..., Any]:
        nonlocal calls
        calls += 1
        raise RuntimeError("no code for this graph")

    plain, net = unet(), unet()
    compile_network(net, "mine", "blocks", backend=broken)
    with pytest.warns(RuntimeWarning, match=r"^mine\..* runs uncompiled") as caught:
        first = net(*inputs())
    assert len(caught) == 1
    assert calls > 1
    assert torch.equal(first, plain(*inputs()))
    assert not is_compiled(net)


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["blocks", "network"])
def test_many_batch_sizes_need_few_compilations(scope: CompileScope) -> None:
    graphs = 0

    def counting(graph: torch.fx.GraphModule, examples: list[torch.Tensor]) -> Callable[..., Any]:
        nonlocal graphs
        graphs += 1
        return graph.forward

    net = unet()
    functions = compile_network(net, "net", scope, backend=counting)
    with torch.no_grad():
        net(*inputs(4))
        assert graphs == functions
        for count in (6, 2, 3, 5, 7, 9, 16, 33):
            net(*inputs(count))
    assert 2 * functions <= graphs <= 3 * functions


def test_a_backward_pass_that_cannot_be_compiled_is_repeated_uncompiled() -> None:
    from torch._dynamo.backends.common import aot_autograd
    from torch._dynamo.exc import TorchDynamoException

    def broken(graph: torch.fx.GraphModule, examples: list[torch.Tensor]) -> Callable[..., Any]:
        raise TorchDynamoException("no code for this graph")

    net, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.ones(2, 4)
    backend = aot_autograd(fw_compiler=lambda graph, _: graph.forward, bw_compiler=broken)
    compile_network(net, "mine", "network", backend=backend)
    with pytest.raises(Exception, match="no code") as caught:
        net(x).square().mean().backward()
    assert not uncompile_failed(net, ValueError("of the network"))
    assert is_compiled(net)
    with pytest.warns(RuntimeWarning, match="^the backward pass cannot be compiled"):
        assert uncompile_failed(net, caught.value)
    assert not is_compiled(net)
    assert not uncompile_failed(net, caught.value)
    net(x).square().mean().backward()


def test_errors_of_the_network_itself_are_raised() -> None:
    net = unet()
    compile_network(net, "net", "blocks", backend="eager")
    with pytest.raises(RuntimeError, match="channels"):
        net(torch.zeros(2, 5, 8, 8), *inputs()[1:])


def test_devices_without_generated_code_are_named() -> None:
    problem = compiler_problem(torch.device("meta"))
    assert problem is not None
    assert "meta" in problem


def test_a_missing_compiler_is_named() -> None:
    assert compiler_problem(torch.device("cpu")) is None
    script = (
        "import torch; from cascadezoo.nn.compiled import compiler_problem;"
        "print(compiler_problem(torch.device('cpu')))"
    )
    environment = {**os.environ, "CXX": "no-such-compiler"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "C++" in done.stdout
