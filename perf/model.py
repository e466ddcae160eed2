"""Our transformer and queries against plain ones with the published code's choices (`perf.model_plain`).

    python -m perf.model [--repeat 9] [--threads 1] [--sizes debug,small,mid,full-queries]
    python -m perf.model --compile            # our blocks compiled as well; needs a C++ compiler
    python -m perf.model --device cuda        # one block at full size as well

Same weights and inputs, results compared in the same run; the sides alternate, and a ratio is the median of
the ratios of neighbouring turns, so that other work on the machine touches both. A turn is as many calls as
take a quarter of a second: in use, too, a model is called again and again, with its weights in the cache. On
one thread time is the processor's, without waiting for others; on several it is the clock's. Peak memory is
the largest sum of live allocations during a call, from PyTorch's own allocation events, above what was there
before; in training the gradients are there before.

Rows "by MKL" are ours with PyTorch's own products (`curation.cpu_linear`): what the choices alone are worth.

Rows "limit" are our matrix products and attention calls alone, recorded during a call of ours and run again
with nothing between them: what would be left if all else cost nothing. Where plain / limit is below a goal,
no code of ours can reach it.

`debug` is model and picture size of `make train`. Its 210 tokens are too few for the choices to count: most
of the time goes into the products with weights, which both sides share, and the queries' calls cost more than
their arithmetic. `small` is the same model on pictures of twice the sides, `mid` a wider one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from curation.cpu_linear import faster_here, plain_products
from memento_model.config import Debug, Layout, ModelConfig
from memento_model.nn.keyframe_query import KeyframeQuery
from memento_model.nn.transformer import MementoTransformer, initialise
from perf.model_plain import CHOICES, PlainQuery, PlainTransformer

GOALS = "forward >= 1.5, memory <= 0.6, queries >= 3"
TOLERANCE = 1e-4
TURN_S = 0.25
MATRIX, OTHERS = {"mm", "addmm", "bmm", "baddbmm", "_linear_pointwise"}, ("convolution", "scaled_dot_product")
"""PyTorch's operations that make up a limit: names, and parts of names forward and backward."""


@dataclass(frozen=True)
class Size:
    """A model and the sequence that it gets.

    Attributes:
        config: shape of the model.
        layout: latent frames.
        grid: latent rows and columns.
        candidates: frames that the queries choose from.
        queries_only: leave the transformer out.
    """

    config: ModelConfig
    layout: Layout
    grid: tuple[int, int]
    candidates: int = 16
    queries_only: bool = False

    @property
    def tokens_per_frame(self) -> int:
        """Patches of two by two."""
        return (self.grid[0] // 2) * (self.grid[1] // 2)

    @property
    def tokens(self) -> int:
        """Of the whole sequence."""
        return self.layout.num_frames * self.tokens_per_frame


def sizes() -> dict[str, Size]:
    debug = Debug()
    _, frames, rows, columns = debug.grid.latent_shape
    layout = Layout(identity_frames=1, memory_frames=8, target_frames=frames)
    mid = replace(
        debug.model,
        width=512,
        num_heads=8,
        num_layers=3,
        ffn_width=1408,
        freq_dim=256,
        text_dim=512,
        text_len=512,
    )
    return {
        "debug": Size(debug.model, layout, (rows, columns)),
        "small": Size(debug.model, layout, (2 * rows, 2 * columns)),
        "mid": Size(mid, Layout(identity_frames=1, memory_frames=8, target_frames=5), (20, 32)),
        "full-queries": Size(
            ModelConfig(), Layout(memory_frames=8, target_frames=21), (60, 104), queries_only=True
        ),
    }


# -- models and inputs ----------------------------------------------------------------------------


def make_transformer(size: Size) -> MementoTransformer:
    """With random weights; the output layer does not start at zero."""
    transformer = MementoTransformer.from_config(size.config)
    initialise(transformer, seed=0)
    torch.manual_seed(0)
    with torch.no_grad():
        transformer.proj_out.weight.normal_(0, 0.05)
    return transformer.eval()


def make_query(size: Size) -> KeyframeQuery:
    """With random weights."""
    torch.manual_seed(0)
    return KeyframeQuery(size.config).eval()


def make_inputs(size: Size) -> dict[str, Any]:
    """Arguments of one forward pass, a batch of one."""
    generator, config = torch.Generator().manual_seed(1), size.config
    frames, memory = size.layout.num_frames, size.layout.memory_frames

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    positions = [-512, *range(-3 * memory, 0, 3), *range(size.layout.target_frames)]
    return {
        "latents_bcfhw": draw(1, config.in_channels, frames, *size.grid),
        "timestep_b": torch.tensor([811.0]),
        "text_bld": draw(1, config.text_len // 2, config.text_dim),
        "positions_bf": torch.tensor([positions]),
        "layout": size.layout,
        "identity_text": [draw(1, config.text_len // 4, config.text_dim)],
    }


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_parameters())


# -- measuring ------------------------------------------------------------------------------------


def seconds(call: Callable[[], Any], calls: int = 1) -> float:
    """Of one call, the mean of so many."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    for _ in range(calls):
        call()
    return (clock() - start) / calls


def peak_bytes(call: Callable[[], Any]) -> int:
    """Largest sum of live allocations on the CPU during `call`, above what was there before."""
    with torch.profiler.profile(
        profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]
    ) as seen:
        kept = call()
    live = peak = 0
    assert seen.profiler is not None
    assert seen.profiler.kineto_results is not None
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    assert events, "no allocation was seen"
    del kept
    return peak


class Products(TorchDispatchMode):
    """Remembers the matrix products and attention calls made in its context, to make them again alone."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in MATRIX or any(part in name for part in OTHERS):
            self.calls.append(partial(func, *args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))

    def again(self) -> None:
        """All of them, in the same order, with the same operands."""
        with torch.no_grad():
            for call in self.calls:
                call()


def limit_row(what: str, ours: Callable[[], Any], plain: Callable[[], Any], repeat: int) -> str:
    """Our products alone against the plain form."""
    with Products() as products:
        ours()
    assert products.calls, "no product was seen"
    a, b, times = ratio(products.again, plain, repeat)
    return f"| limit: the products of {what} alone | {a * 1e3:.1f} | {b * 1e3:.1f} | {times:.2f} | | | |"


def own_products_row(what: str, ours: Callable[[], Any], plain: Callable[[], Any], repeat: int) -> list[str]:
    """Ours with PyTorch's own products, as on processors where they are fast."""
    if not faster_here():
        return []

    def ours_by_mkl() -> Any:
        with plain_products():
            return ours()

    a, b, times = ratio(ours_by_mkl, plain, repeat)
    return [f"| {what}, ours by MKL | {a * 1e3:.1f} | {b * 1e3:.1f} | {times:.2f} | | | |"]


def ratio(ours: Callable[[], Any], plain: Callable[[], Any], repeat: int) -> tuple[float, float, float]:
    """Median seconds of both and the median of plain / ours, in turns, after one call of either."""
    ours()
    calls = max(1, round(TURN_S / seconds(plain)))
    pairs = [(seconds(ours, calls), seconds(plain, calls)) for _ in range(repeat)]
    return (
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(b / a for a, b in pairs),
    )


def agree(ours: Tensor, plain: Tensor) -> float:
    """Largest difference over the largest magnitude; an error if it is not rounding."""
    difference = ((ours - plain).abs().max() / plain.abs().max()).item()
    assert difference <= TOLERANCE, f"ours and the plain form differ by {difference:.1e}"
    return difference


def train_step(forward: Callable[[], Tensor], module: nn.Module, *, keep: bool = False) -> None:
    """`keep` leaves the memory of gradients allocated, so that a peak is that of activations."""
    module.zero_grad(set_to_none=not keep)
    forward().square().mean().backward()


def transformer_rows(size: Size, repeat: int, compiles: bool = False) -> list[str]:
    """Time and memory of a forward pass and of a training step; then what each choice costs alone."""
    model, inputs = make_transformer(size), make_inputs(size)
    weights = weights_of(model)

    def plain_with(choices: frozenset[str]) -> Callable[[], Tensor]:
        peer = PlainTransformer(weights, size.config, choices)
        return lambda: peer(**inputs)

    ours, plain = (lambda: model(**inputs)), plain_with(CHOICES)
    rows = []
    with torch.no_grad():
        difference = agree(ours(), plain())
        a, b, times = ratio(ours, plain, repeat)
        used = peak_bytes(ours), peak_bytes(plain)
        rows.append(line("forward", a, b, times, used))
        rows += own_products_row("forward", ours, plain, repeat)
        if compiles:
            compiled = make_transformer(size)
            compiled.compile_repeated_blocks(fullgraph=True)
            agree(compiled(**inputs), plain())
            a, b, times = ratio(lambda: compiled(**inputs), plain, repeat)
            rows.append(
                line("forward, ours compiled", a, b, times, (peak_bytes(lambda: compiled(**inputs)), used[1]))
            )
        for left_out in sorted(CHOICES - {"residual"}):
            peer = plain_with(CHOICES - {left_out})
            a, b, times = ratio(ours, peer, max(3, repeat // 2))
            rows.append(line(f"forward, plain without {left_out}", a, b, times, (used[0], peak_bytes(peer))))
        rows.append(limit_row("forward", ours, plain, repeat))
    rows += training_rows(model, ours, plain, max(3, repeat // 2))
    rows.append(f"| outputs differ by | {difference:.0e} of the largest | | | | | |")
    return rows


def training_rows(
    model: nn.Module, ours: Callable[[], Tensor], plain: Callable[[], Tensor], repeat: int
) -> list[str]:
    """Forward and backward: time, activations, limit."""
    calls = (lambda: train_step(ours, model)), (lambda: train_step(plain, model))
    a, b, times = ratio(*calls, repeat)
    used = [peak_bytes(partial(train_step, run, model, keep=True)) for run in (ours, plain)]
    return [
        line("forward and backward", a, b, times, (used[0], used[1])),
        limit_row("forward and backward", *calls, repeat),
    ]


def query_rows(size: Size, repeat: int) -> list[str]:
    """Time and memory of the queries' scores, up to which both sides go; then the limit."""
    query = make_query(size)
    peer = PlainQuery(weights_of(query), size.config)
    generator, width = torch.Generator().manual_seed(2), size.config.width
    candidates = torch.randn(1, 16, size.candidates, *size.grid, generator=generator)
    contexts = torch.randn(2, 1, size.config.text_len, width, generator=generator).unbind(0)
    positions = torch.arange(-3 * size.candidates, 0, 3)[None]
    calls = (
        lambda: query.scores(candidates, positions, *contexts),
        lambda: peer(candidates, positions, *contexts),
    )
    with torch.no_grad():
        agree(calls[0](), calls[1]())
        a, b, times = ratio(*calls, repeat)
        return [
            line("queries", a, b, times, (peak_bytes(calls[0]), peak_bytes(calls[1]))),
            *own_products_row("queries", *calls, repeat),
            limit_row("queries", *calls, repeat),
        ]


def line(what: str, ours_s: float, plain_s: float, times: float, used: tuple[int, int]) -> str:
    mib = [f"{number / 2**20:.1f}" for number in used]
    return (
        f"| {what} | {ours_s * 1e3:.1f} | {plain_s * 1e3:.1f} | {times:.2f} "
        f"| {mib[0]} | {mib[1]} | {used[0] / used[1]:.2f} |"
    )


def report(names: list[str], repeat: int, compiles: bool = False) -> str:
    lines = []
    for name in names:
        size = sizes()[name]
        shape = size.config
        what = f"{shape.num_layers} blocks, {size.tokens} tokens"
        what = (
            f"{size.candidates} candidates of {size.tokens_per_frame} tokens" if size.queries_only else what
        )
        lines += [
            f"### {name}: width {shape.width}, {shape.num_heads} heads, {what}; "
            f"fp32 on {torch.get_num_threads()} thread(s) of the CPU",
            "",
            "| what | ours ms | plain ms | plain / ours | ours MiB | plain MiB | ours / plain |",
            "|---|---|---|---|---|---|---|",
            *([] if size.queries_only else transformer_rows(size, repeat, compiles)),
            *query_rows(size, repeat),
            "",
        ]
    lines.append(f"Goals: {GOALS}. Weights are fp32 here, so the residual stream is fp32 on both sides.")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", default="debug,small,mid")
    parser.add_argument("--compile", action="store_true", help="our blocks compiled as well")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--peak-tflops", type=float, default=989.0, help="dense bf16 of the GPU; H100, H200: 989"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    print(report(options.sizes.split(","), options.repeat, options.compile))
    if options.device == "cuda":
        from perf.model_block import block_report

        print(block_report(options.peak_tflops))
    else:
        print("\nOne block at full size: not measured here; `--device cuda` on a machine with a GPU does.")


if __name__ == "__main__":
    main()
