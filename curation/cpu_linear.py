"""Linear layers on processors where PyTorch's own are slow.

PyTorch multiplies fp32 matrices on x86 with Intel's MKL, which leaves other makers' AVX-512 unused. oneDNN,
which PyTorch carries for convolutions and bf16, does use it: on an AMD EPYC products forward and backward
take half the time (perf/RESULTS.md). Nowhere else is anything changed.

The operator is the one that PyTorch's own compiler puts in the place of linear layers. It is no public name,
so it is tried before it is used, and without it everything is as if this file were not there.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MIN_MULTIPLICATIONS = 64 * 192 * 192
"""For each thread; below, the call itself costs more than is won."""
_PLAIN = (Tensor, nn.Parameter)
Module = TypeVar("Module", bound=nn.Module)
_switch = {"on": True}


class CpuLinear(nn.Linear):
    """A linear layer whose products `linear` makes."""

    def forward(self, input: Tensor) -> Tensor:
        """As of `nn.Linear`."""
        return linear(input, self.weight, self.bias)


def speed_up(model: Module) -> Module:
    """Have all plain linear layers of a model use `linear`, in place, where that is faster.

    Names, weights and files stay what they are; results differ by rounding.
    """
    if faster_here():
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = CpuLinear
    return model


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, by oneDNN where that is faster: larger fp32 products outside autocast and compilers."""
    if not worth_it(x, weight):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return _Linear.apply(x, weight, bias)
    return _product(x, weight, bias)


def gelu_linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """GELU (its tanh form) of what a layer makes, in one call where nothing is trained and that is faster."""
    trains = torch.is_grad_enabled() and (x.requires_grad or layer.weight.requires_grad)
    if type(layer) is CpuLinear and not trains and worth_it(x, layer.weight):
        return torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, "gelu", [], "tanh")
    return F.gelu(layer(x), approximate="tanh")


def worth_it(x: Tensor, weight: Tensor) -> bool:
    """Whether `linear` would leave this product to oneDNN."""
    return (
        not torch.compiler.is_compiling()
        and x.dtype is torch.float32 is weight.dtype
        and x.numel() * weight.shape[0] >= MIN_MULTIPLICATIONS * torch.get_num_threads()
        and x.device.type == "cpu"
        and type(x) in _PLAIN
        and type(weight) in _PLAIN
        and (weight.is_contiguous() or weight.t().is_contiguous())  # see `_product`
        and _switch["on"]
        and faster_here()
        and not torch.is_autocast_enabled("cpu")
    )


@contextmanager
def plain_products() -> Iterator[None]:
    """Inside, `linear` is `F.linear`: to measure what the other is worth."""
    before, _switch["on"] = _switch["on"], False
    try:
        yield
    finally:
        _switch["on"] = before


@functools.cache
def faster_here() -> bool:
    """Whether this processor has AVX-512 that MKL would not use, and the operator works."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or _maker() == "GenuineIntel":
        return False
    x, weight = (torch.arange(rows * 16.0).view(rows, 16) % 7 for rows in (8, 4))
    try:
        return torch.equal(_product(x, weight, None), x @ weight.T)
    except (AttributeError, RuntimeError, TypeError):
        return False


def _maker() -> str:
    """The processor's maker as it names itself, e.g. `AuthenticAMD`; Intel where that is unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return next((name for name in ("AuthenticAMD",) if name in platform.processor()), "GenuineIntel")
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id"))
    return next(names, "GenuineIntel")


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # Strides of x cost nothing; a weight that is contiguous neither way takes a thousand times as long.
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """`_product` with its gradients, which are products of the same kind."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        rows, inputs = slope.flatten(0, -2), x.flatten(0, -2)
        return (
            _product(slope, weight.t(), None) if for_x else None,
            _product(rows.t(), inputs.contiguous().t(), None) if for_weight else None,
            rows.sum(dim=0) if for_bias else None,
        )
