"""CUDA graphs of networks in training: one launch instead of hundreds, forward and backward."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cascadezoo.stages.base import Stage

__all__ = ["NetworkGraph", "graphed"]

WARM_UP = 3
"""Eager calls of one form before the capture, in which cuDNN chooses its algorithms."""


class _Call(nn.Module):
    """A network as a module that takes only tensors, as the capture requires.

    Args:
        network: the network.
        present: which of its arguments are tensors; the others are None.
    """

    def __init__(self, network: nn.Module, present: tuple[bool, ...]) -> None:
        super().__init__()
        self.network = network
        self.present = present

    def forward(self, *tensors: Tensor) -> Any:
        """The network's output for its tensors, in their order."""
        rest = iter(tensors)
        return _eager(self.network, *(next(rest) if present else None for present in self.present))


class NetworkGraph:
    """Replays a network's training step from CUDA graphs once its calls have settled.

    A call is replayed if gradients are enabled, the network is in training mode, the arguments
    have the shapes and types of the captured ones, and the previous call was propagated backward:
    the graphs write to fixed memory, which a second call would overwrite. Any other call runs
    eagerly. If the capture fails, all calls run eagerly after one warning.

    Args:
        network: the network; its parameters must keep their memory while the graph is in use.
        name: its name in the warning.
    """

    def __init__(self, network: nn.Module, name: str) -> None:
        self.network = network
        self.name = name
        self._form: tuple[Any, ...] = ()
        self._calls = 0
        self._replay: Any = None
        self._open = False
        self._failed = False

    @property
    def captured(self) -> bool:
        """Whether calls are replayed."""
        return self._replay is not None

    def __call__(self, *args: Tensor | None, **rest: Any) -> Any:
        """The network's output."""
        network = self.network
        if rest or self._failed or not network.training or not torch.is_grad_enabled():
            return _eager(network, *args, **rest)
        form = _form_of(args)
        if self._replay is None:
            self._calls = self._calls + 1 if form == self._form else 1
            self._form = form
            if self._calls <= WARM_UP:
                return _eager(network, *args)
            self._capture(args)
        if self._replay is None or self._open or form != self._form:
            return _eager(network, *args)
        output: Tensor = self._replay(*(arg for arg in args if arg is not None))
        if output.requires_grad:
            self._open = True
            output.register_hook(self._close)  # type: ignore[no-untyped-call]
        return output

    def _close(self, gradient: Tensor) -> None:
        self._open = False

    def _capture(self, args: tuple[Tensor | None, ...]) -> None:
        samples = tuple(
            arg.detach().clone().requires_grad_(arg.requires_grad)
            for arg in args
            if arg is not None
        )
        module = _Call(self.network, tuple(arg is not None for arg in args))
        buffers = [(buffer, buffer.clone()) for buffer in self.network.buffers()]
        state = torch.cuda.get_rng_state()
        dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
        try:
            # The capture would freeze the weights that autocast has cast and cached.
            with torch.autocast("cuda", dtype, enabled=enabled, cache_enabled=False):
                self._replay = torch.cuda.make_graphed_callables(
                    module, samples, num_warmup_iters=WARM_UP, allow_unused_input=True
                )
        except RuntimeError as error:
            self._failed = True
            reason = str(error).strip().splitlines()[0]
            warnings.warn(
                f"{self.name} cannot be captured in a CUDA graph and runs eagerly: {reason}",
                RuntimeWarning,
                stacklevel=3,
            )
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        torch.cuda.set_rng_state(state)


@contextmanager
def graphed(stages: Iterable[tuple[str, Stage]]) -> Iterator[dict[str, NetworkGraph]]:
    """Let the stages' networks be replayed from CUDA graphs inside the block.

    Args:
        stages: names and stages; skips those on other devices, with compiled networks, or with
            networks of other packages.

    Yields:
        The graphs by the stage's name.
    """
    graphs: dict[str, NetworkGraph] = {}
    for name, stage in stages:
        network = getattr(stage, "network", None)
        if not isinstance(network, nn.Module) or network._compiled_call_impl is not None:
            continue
        # The forward of another package may have Python state, which a graph would silently freeze.
        if not type(network).__module__.startswith("cascadezoo."):
            continue
        if any(p.is_cuda for p in network.parameters()):
            graphs[name] = NetworkGraph(network, name)
            network._compiled_call_impl = graphs[name]
    try:
        yield graphs
    finally:
        for graph in graphs.values():
            graph.network._compiled_call_impl = None


def _eager(network: nn.Module, *args: Any, **rest: Any) -> Any:
    return network._call_impl(*args, **rest)  # type: ignore[no-untyped-call]


def _form_of(args: tuple[Tensor | None, ...]) -> tuple[Any, ...]:
    kinds = tuple(
        None if arg is None else (arg.shape, arg.stride(), arg.dtype, arg.requires_grad)
        for arg in args
    )
    enabled = torch.is_autocast_enabled("cuda")
    return (kinds, torch.get_autocast_dtype("cuda") if enabled else None)
