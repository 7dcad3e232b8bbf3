"""Group norm, scale, shift and SiLU in one kernel for each direction, for GPUs.

PyTorch's group norm on CUDA works in NCHW. Between convolutions in channels_last, every norm
therefore costs two extra copies, and the activation two more passes. The kernels here read the
input once and write the output once, in channels_last. Statistics are in float32 for any input.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["fused_norm_silu"]


@triton.jit  # type: ignore[untyped-decorator]
def _forward(  # type: ignore[no-untyped-def]
    x_ptr, y_ptr, weight_ptr, bias_ptr, scale_ptr, shift_ptr, mean_ptr, rstd_ptr,
    area, channels, groups, eps, stride,
    WIDTH: tl.constexpr, BLOCK_AREA: tl.constexpr, BLOCK_WIDTH: tl.constexpr,
    MODULATED: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    image, group = program // groups, program % groups
    rows = tl.arange(0, BLOCK_AREA)[:, None]
    columns = tl.arange(0, BLOCK_WIDTH)[None, :]
    inside = (rows < area) & (columns < WIDTH)
    channel = group * WIDTH + columns
    places = image.to(tl.int64) * area * channels + rows * channels + channel
    x = tl.load(x_ptr + places, mask=inside, other=0.0).to(tl.float32)
    count = area * WIDTH
    mean = tl.sum(tl.sum(x, axis=1), axis=0) / count
    centred = tl.where(inside, x - mean, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(tl.sum(centred * centred, axis=1), axis=0) / count + eps)
    here = columns < WIDTH
    weight = tl.load(weight_ptr + channel, mask=here, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + channel, mask=here, other=0.0).to(tl.float32)
    value = centred * rstd * weight + bias
    if MODULATED:
        scale = tl.load(scale_ptr + image * stride + channel, mask=here, other=0.0).to(tl.float32)
        shift = tl.load(shift_ptr + image * stride + channel, mask=here, other=0.0).to(tl.float32)
        value = value * (1.0 + scale) + shift
    y = value * tl.sigmoid(value)
    tl.store(y_ptr + places, y.to(y_ptr.dtype.element_ty), mask=inside)
    tl.store(mean_ptr + program, mean)
    tl.store(rstd_ptr + program, rstd)


@triton.jit  # type: ignore[untyped-decorator]
def _backward(  # type: ignore[no-untyped-def]
    x_ptr, dy_ptr, dx_ptr, weight_ptr, bias_ptr, scale_ptr, shift_ptr, mean_ptr, rstd_ptr,
    dweight_ptr, dbias_ptr, dscale_ptr, dshift_ptr,
    area, channels, groups, stride,
    WIDTH: tl.constexpr, BLOCK_AREA: tl.constexpr, BLOCK_WIDTH: tl.constexpr,
    MODULATED: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    image, group = program // groups, program % groups
    rows = tl.arange(0, BLOCK_AREA)[:, None]
    columns = tl.arange(0, BLOCK_WIDTH)[None, :]
    inside = (rows < area) & (columns < WIDTH)
    channel = group * WIDTH + columns
    here = columns < WIDTH
    places = image.to(tl.int64) * area * channels + rows * channels + channel
    mean = tl.load(mean_ptr + program)
    rstd = tl.load(rstd_ptr + program)
    x = tl.load(x_ptr + places, mask=inside, other=0.0).to(tl.float32)
    normal = tl.where(inside, (x - mean) * rstd, 0.0)
    weight = tl.load(weight_ptr + channel, mask=here, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + channel, mask=here, other=0.0).to(tl.float32)
    affine = normal * weight + bias
    value = affine
    if MODULATED:
        scale = tl.load(scale_ptr + image * stride + channel, mask=here, other=0.0).to(tl.float32)
        shift = tl.load(shift_ptr + image * stride + channel, mask=here, other=0.0).to(tl.float32)
        value = affine * (1.0 + scale) + shift
    dy = tl.load(dy_ptr + places, mask=inside, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(value)
    dvalue = dy * sigmoid * (1.0 + value * (1.0 - sigmoid))
    sums = image * channels + channel
    daffine = dvalue
    if MODULATED:
        tl.store(dscale_ptr + sums, tl.sum(dvalue * affine, axis=0)[None, :], mask=here)
        tl.store(dshift_ptr + sums, tl.sum(dvalue, axis=0)[None, :], mask=here)
        daffine = dvalue * (1.0 + scale)
    tl.store(dweight_ptr + sums, tl.sum(daffine * normal, axis=0)[None, :], mask=here)
    tl.store(dbias_ptr + sums, tl.sum(daffine, axis=0)[None, :], mask=here)
    dnormal = daffine * weight
    count = area * WIDTH
    first = tl.sum(tl.sum(dnormal, axis=1), axis=0) / count
    second = tl.sum(tl.sum(dnormal * normal, axis=1), axis=0) / count
    dx = rstd * (dnormal - first - normal * second)
    tl.store(dx_ptr + places, dx.to(dx_ptr.dtype.element_ty), mask=inside)


def _blocks(area: int, width: int) -> dict[str, int]:
    area_block, width_block = triton.next_power_of_2(area), triton.next_power_of_2(width)
    size = area_block * width_block
    warps = 1 if size <= 512 else 2 if size <= 1024 else 4 if size <= 4096 else 8
    if size > 16_384:
        warps = 16
    return {"BLOCK_AREA": area_block, "BLOCK_WIDTH": width_block, "num_warps": warps}


class _NormSilu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        modulation: Tensor | None,
        groups: int,
        eps: float,
        dtype: torch.dtype,
    ) -> Tensor:
        n, channels, height, width = x.shape
        x = x.contiguous(memory_format=torch.channels_last)
        y = torch.empty_like(x, dtype=dtype, memory_format=torch.channels_last)
        mean = torch.empty(n * groups, device=x.device, dtype=torch.float32)
        rstd = torch.empty_like(mean)
        area, each = height * width, channels // groups
        if modulation is not None:
            modulation = modulation.contiguous()
            scale, shift = modulation[:, :channels], modulation[:, channels:]
        else:
            scale = shift = weight
        _forward[(n * groups,)](
            x, y, weight, bias, scale, shift, mean, rstd, area, channels, groups, eps,
            2 * channels, WIDTH=each, MODULATED=modulation is not None, **_blocks(area, each),
        )  # fmt: skip
        ctx.save_for_backward(x, weight, bias, modulation, mean, rstd)
        ctx.groups = groups
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, modulation, mean, rstd = ctx.saved_tensors
        n, channels, height, width = x.shape
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx = torch.empty_like(x, memory_format=torch.channels_last)
        parts = torch.empty((4, n, channels), device=x.device, dtype=torch.float32)
        area, each = height * width, channels // ctx.groups
        if modulation is not None:
            scale, shift = modulation[:, :channels], modulation[:, channels:]
        else:
            scale = shift = weight
        _backward[(n * ctx.groups,)](
            x, dy, dx, weight, bias, scale, shift, mean, rstd, *parts.unbind(0), area, channels,
            ctx.groups, 2 * channels, WIDTH=each, MODULATED=modulation is not None,
            **_blocks(area, each),
        )  # fmt: skip
        dweight, dbias = parts[:2].sum(dim=1).unbind(0)
        dmodulation = None
        if modulation is not None:
            dmodulation = torch.cat([parts[2], parts[3]], dim=1).to(modulation.dtype)
        return dx, dweight.to(weight.dtype), dbias.to(bias.dtype), dmodulation, None, None, None


def fused_norm_silu(
    x: Tensor, weight: Tensor, bias: Tensor, modulation: Tensor | None, groups: int, eps: float
) -> Tensor:
    """``silu(group_norm(x) * (1 + scale) + shift)`` on a GPU.

    Args:
        x: [N, C, H, W], floating; a group of one image must fit in registers.
        weight: of the norm, [C].
        bias: of the norm, [C].
        modulation: scale, then shift, [N, 2 C]; None for no modulation.
        groups: divides C.
        eps: added to the variance.

    Returns:
        [N, C, H, W] in channels_last, of the autocast type under autocast, else of the type of
        ``x``.
    """
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    output: Tensor = _NormSilu.apply(x, weight, bias, modulation, groups, eps, dtype)
    return output
