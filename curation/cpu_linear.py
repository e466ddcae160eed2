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
from torch.autograd import forward_ad
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
    if not worth_it(x, weight, bias):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias) if _trains(x, weight, bias) else _product(x, weight, bias)


def gelu_linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """GELU (its tanh form) of what a layer makes, in one call where nothing is trained and that is faster."""
    if (
        type(layer) is CpuLinear
        and not (layer._forward_hooks or layer._forward_pre_hooks)
        and not _trains(x, layer.weight, layer.bias)
        and worth_it(x, layer.weight, layer.bias)
    ):
        return torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, "gelu", [], "tanh")
    return F.gelu(layer(x), approximate="tanh")


def worth_it(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether `linear` would leave this product to oneDNN."""
    return (
        not torch.compiler.is_compiling()
        and x.dtype is torch.float32 is weight.dtype
        and x.numel() * weight.shape[0] >= MIN_MULTIPLICATIONS * torch.get_num_threads()
        and x.device.type == "cpu"
        and type(x) in _PLAIN
        and type(weight) in _PLAIN
        and x.ndim > 1
        and weight.ndim == 2
        and x.shape[-1] == weight.shape[1]
        and (weight.is_contiguous() or weight.t().is_contiguous())  # see `_product`
        and (bias is None or _usable_bias(bias, weight))
        and _switch["on"]
        and torch._C._get_mkldnn_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not _transformed()
        and faster_here()
    )


def _usable_bias(bias: Tensor, weight: Tensor) -> bool:
    plain = type(bias) in _PLAIN and bias.dtype is torch.float32 and bias.device.type == "cpu"
    return plain and bias.shape == weight.shape[:1] and bias.is_contiguous()  # its strides are not looked at


def _trains(*given: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in given)


def _transformed() -> bool:
    """Whether functions are traced or transformed (`torch.func`), of which the operator knows nothing."""
    return (
        forward_ad._current_level >= 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.jit.is_tracing()
    )


@contextmanager
def plain_products() -> Iterator[None]:
    """Inside, `linear` is `F.linear`: to measure what the other is worth."""
    before, _switch["on"] = _switch["on"], False
    try:
        yield
    finally:
        _switch["on"] = before


def faster_here() -> bool:
    """Whether this processor has AVX-512 that MKL would not use, and the operator works."""
    try:
        return _tried()
    except _NoNumbersError:
        return False  # for now: nothing is kept of a trial that was none


class _NoNumbersError(Exception):
    """Tensors that are made here at the moment hold no numbers (fake tensors)."""


@functools.cache
def _tried() -> bool:
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or _maker() == "GenuineIntel":
        return False
    # Models are built on the meta device and under autocast, too: the trial must be neither.
    with torch.autocast("cpu", enabled=False), torch.inference_mode(False), torch.no_grad():
        numbers = torch.arange(192, device="cpu", dtype=torch.float32) % 7
        if type(numbers) is not Tensor:
            raise _NoNumbersError
        x, weight = numbers[:128].view(8, 16), numbers[128:].view(4, 16)
        try:
            _transformed()
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
        for_x, for_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if for_weight else None, weight if for_x else None)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = slope.flatten(0, -2)
        return (
            None if weight is None else _product(slope, weight.t(), None),
            None if x is None else _product(rows.t(), x.flatten(0, -2).contiguous().t(), None),
            rows.sum(dim=0) if ctx.needs_input_grad[2] else None,
        )
