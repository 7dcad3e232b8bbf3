"""Networks compiled by ``torch.compile``, whole or block by block."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from cascadezoo.nn.attention import CrossAttention, SelfAttention, TokenBlock
from cascadezoo.nn.resnet import BottleneckBlock, ResidualBlock

__all__ = [
    "COMPILED_BLOCKS",
    "CompileScope",
    "compile_network",
    "compiler_problem",
    "eagerly",
    "is_compiled",
    "uncompile_failed",
]

CompileScope: TypeAlias = Literal["blocks", "network"]

COMPILED_BLOCKS: tuple[type[nn.Module], ...] = (
    ResidualBlock,
    BottleneckBlock,
    SelfAttention,
    CrossAttention,
    TokenBlock,
)
"""The modules that the scope ``blocks`` compiles. Equal modules of a network share code."""


def compile_network(
    network: nn.Module, name: str, scope: CompileScope = "blocks", **options: Any
) -> int:
    """Compile a network in place; parameters keep their names, so saved weights do not change.

    Compilation happens at the first call, and again for training, for another data type and for a
    second batch size, after which the batch size is a variable of the compiled code. A block that
    cannot be compiled runs uncompiled; the first one of a network warns.

    Args:
        network: its modules get a compiled forward.
        name: of the network, unique in the process; separates its compiled code from that of other
            networks, so that sizes that differ between networks do not become variables.
        scope: ``blocks`` compiles every module of :data:`COMPILED_BLOCKS`, or the network if it has
            none. Blocks of one level and shape share their code, so this compiles faster.
            ``network`` compiles the network as one, which runs faster.
        options: of ``torch.compile``, such as ``mode``.

    Returns:
        The number of different functions to compile.
    """
    compiled: dict[tuple[Any, ...], Callable[..., Any]] = {}
    failed: list[str] = []
    for path, module in list(_regions(network, scope)):
        key = (type(module), _level(path), _shapes(module))
        if key not in compiled:
            label = f"{name}_{len(compiled)}".replace("-", "_").replace(".", "_")
            compiled[key] = torch.compile(_renamed(type(module).forward, label), **options)
        label = f"{name}.{path}".rstrip(".")
        module._compiled_call_impl = _guarded(module, compiled[key], label, failed)
    return len(compiled)


def is_compiled(network: nn.Module) -> bool:
    """Whether any module of the network has a compiled forward."""
    return any(module._compiled_call_impl is not None for module in network.modules())


@contextmanager
def eagerly(network: nn.Module) -> Iterator[None]:
    """Run a network without its compiled code and CUDA graphs inside the block.

    Neither supports forward-mode differentiation.
    """
    called = ((m, m._compiled_call_impl) for m in network.modules())
    compiled = [(module, call) for module, call in called if call is not None]
    for module, _ in compiled:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, call in compiled:
            module._compiled_call_impl = call


def uncompile_failed(network: nn.Module, error: Exception) -> bool:
    """Remove the compiled code of a network whose backward pass cannot be compiled, and warn.

    A backward pass is compiled when it first runs, outside of the network's forward.

    Args:
        network: the network, or several in one module.
        error: what its backward pass raised.

    Returns:
        Whether the step can be repeated: the compiler failed, and the network was compiled.
    """
    if not is_compiled(network) or not isinstance(error, _compiler_errors()):
        return False
    for module in network.modules():
        module._compiled_call_impl = None
    _warn("the backward pass", error)
    return True


def _warn(name: str, error: Exception) -> None:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
    warnings.warn(
        f"{name} cannot be compiled and runs uncompiled: {type(error).__name__}: {reason}",
        RuntimeWarning,
        stacklevel=3,
    )


def compiler_problem(device: torch.device) -> str | None:
    """The reason why ``torch.compile`` cannot generate code for a device; None if it can."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "Triton is not installed or does not support this GPU"
    if device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except (InvalidCxxCompiler, OSError) as error:
            return f"no C++ compiler ({type(error).__name__})"
        return None
    return f"torch.compile does not generate code for {device.type}"


def _regions(network: nn.Module, scope: CompileScope) -> Iterator[tuple[str, nn.Module]]:
    if scope == "blocks":
        blocks = [(p, m) for p, m in network.named_modules() if isinstance(m, COMPILED_BLOCKS)]
        if blocks:
            yield from blocks
            return
    yield "", network


def _level(path: str) -> str:
    """The path without the block's number: blocks of one level process images of one size."""
    return path.rstrip("0123456789")


def _shapes(module: nn.Module) -> tuple[Any, ...]:
    children = tuple((name, type(child)) for name, child in module.named_modules())
    return (children, tuple((name, tuple(p.shape)) for name, p in module.named_parameters()))


def _renamed(function: Callable[..., Any], label: str) -> Callable[..., Any]:
    """A copy of a function with a separate code object.

    Compiled variants are counted and looked up by code object. Blocks of different shapes would
    share that of their class, exceed the limit of variants, and be compiled for variable sizes.
    """
    if not isinstance(function, FunctionType):
        return function
    code = function.__code__.replace(co_name=f"{function.__name__}_{label}")
    copy = FunctionType(
        code, function.__globals__, code.co_name, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _compiler_errors() -> tuple[type[Exception], ...]:
    # Not at the top: importing the compiler takes seconds.
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError

    return TorchDynamoException, InductorError


def _guarded(
    module: nn.Module, function: Callable[..., Any], name: str, failed: list[str]
) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(module, *args, **kwargs)
        except Exception as error:
            if not isinstance(error, _compiler_errors()):
                raise
            module._compiled_call_impl = None
            if not failed:
                _warn(name, error)
            failed.append(name)
            return module(*args, **kwargs)

    return call
