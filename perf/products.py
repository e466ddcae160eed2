"""Linear layers by oneDNN (`curation.cpu_linear`) against PyTorch's own, which Intel's MKL computes.

    python -m perf.products [--threads 1] [--repeat 15]

fp32, forward, and forward with all gradients; the sides alternate, and a ratio is the median of the ratios of
neighbouring turns. Sizes are the smallest that `linear` gives to oneDNN on one thread, those of a debug
model, of a larger one, and of CLIP L/14 on eight pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from curation import cpu_linear
from perf.model import ratio

SIZES = {
    "smallest": (64, 192, 192),
    "debug": (210, 192, 576),
    "mid": (2240, 512, 512),
    "CLIP L/14": (2056, 1024, 4096),
}
"""Rows, inputs, outputs."""


def trained(product: Callable[..., Tensor], given: tuple[Tensor, Tensor, Tensor], slope: Tensor) -> None:
    """A product and its three gradients."""
    torch.autograd.grad(product(*given), given, slope)


def rows(name: str, repeat: int) -> list[str]:
    """Both sides' speed at a size, forward and with gradients."""
    count, inputs, outputs = SIZES[name]
    given = tuple(torch.randn(*shape) for shape in ((count, inputs), (outputs, inputs), (outputs,)))
    assert torch.allclose(cpu_linear.linear(*given), F.linear(*given), rtol=1e-4, atol=1e-3)
    leaves, slope = tuple(one.clone().requires_grad_() for one in given), torch.randn(count, outputs)
    made = []
    for what, call, operations in (
        ("forward", lambda product: partial(product, *given), 2),
        ("forward and gradients", lambda product: partial(trained, product, leaves, slope), 6),
    ):
        ours, plain, times = ratio(call(cpu_linear.linear), call(F.linear), repeat)
        work = operations * count * inputs * outputs / 1e9
        made.append(
            f"| {name}: {count} x {inputs} x {outputs} | {what} | {work / ours:.0f} | {work / plain:.0f} "
            f"| {times:.2f} |"
        )
    return made


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if not cpu_linear.faster_here():
        print("This processor's products are left to PyTorch: nothing to compare.")
        return
    print(f"fp32, {options.threads} thread(s)\n")
    print("| rows x inputs x outputs | what | oneDNN GFLOP/s | MKL GFLOP/s | MKL's time / oneDNN's |")
    print("|---|---|---|---|---|")
    for name in SIZES:
        print("\n".join(rows(name, options.repeat)))


if __name__ == "__main__":
    main()
