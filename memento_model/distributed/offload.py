"""What a small GPU cannot hold stays in host memory: frozen weights of blocks, and the stream between blocks.

    weights       a block's frozen weights lie in pinned host memory, packed into one piece; two slots on the
                  device hold the block that computes and the one that comes next, copied on a side stream
    activations   what activation checkpoints keep (the stream before each block) is copied to pinned host
                  memory on the way forward and fetched one block ahead on the way back
    lean blocks   inside a block that is computed again, each attention is computed again on its own and the
                  feed-forward part in pieces of the tokens, so that they are never all kept at once

On a device without streams (a CPU) the same code copies at once; results are those without it, bit for bit.
Axes: b batch, l tokens, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from memento_model.nn.transformer import MementoTransformer

PIECES = 8
"""Of the tokens in a lean feed-forward part."""
SLOTS = 2
"""Blocks whose frozen weights are on the device at once."""
ALIGN = 64
"""Numbers: every packed weight begins at a multiple."""


class Copies:
    """Copies between host and device beside the computation, where the device can; else at once."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def empty_host(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Host memory, pinned where copies shall not wait."""
        return torch.empty(shape, dtype=dtype, pin_memory=self.stream is not None)

    def beside(self) -> AbstractContextManager[Any]:
        """Work that follows what was asked for so far, and that nobody waits for yet."""
        if self.stream is None:
            return nullcontext()
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        return torch.cuda.stream(self.stream)

    def mark(self) -> Any:
        """The end of what was asked for beside."""
        return None if self.stream is None else self.stream.record_event()

    def wait(self, mark: Any) -> None:
        """The computation goes on after that."""
        if mark is not None:
            torch.cuda.current_stream(self.device).wait_event(mark)


# -- frozen weights -----------------------------------------------------------------------------------


@dataclass
class Packed:
    """A block's frozen weights: one piece of host memory for each type, and who has which part of it."""

    parameters: list[nn.Parameter]
    host: dict[torch.dtype, Tensor]
    parts: list[tuple[torch.dtype, slice]]

    @classmethod
    def of(cls, block: nn.Module, copies: Copies) -> Packed:
        """Move a block's frozen weights into new host memory; their parameters then point there."""
        parameters = [p for p in block.parameters() if not p.requires_grad]
        sizes: dict[torch.dtype, int] = {}
        parts = []
        for parameter in parameters:
            start = sizes.get(parameter.dtype, 0)
            parts.append((parameter.dtype, slice(start, start + parameter.numel())))
            sizes[parameter.dtype] = -(-(start + parameter.numel()) // ALIGN) * ALIGN
        host = {dtype: copies.empty_host((size,), dtype) for dtype, size in sizes.items()}
        made = cls(parameters, host, parts)
        for parameter, (dtype, part) in zip(parameters, parts, strict=True):
            host[dtype][part].copy_(parameter.detach().flatten())
        made.point_to(host)
        return made

    def point_to(self, pieces: dict[torch.dtype, Tensor]) -> None:
        """Let the parameters be parts of these pieces, of the host's layout."""
        for parameter, (dtype, part) in zip(self.parameters, self.parts, strict=True):
            parameter.data = pieces[dtype][part].view(parameter.shape)


@dataclass
class Slot:
    """Room for one block's frozen weights on the device."""

    pieces: dict[torch.dtype, Tensor]
    holds: int | None = None
    ready: Any = None


class StreamedWeights:
    """Frozen weights of a stack of blocks, on the device only around their use.

    A block's weights stay in their slot until another block's are copied over them; in a backward pass that
    is after the block's own backward pass, for blocks come in order.

    Args:
        blocks: in the order of use; all frozen weights in them are moved to host memory.
        copies: to and from the device.
    """

    def __init__(self, blocks: Sequence[nn.Module], copies: Copies) -> None:
        self.copies = copies
        self.packed = [Packed.of(block, copies) for block in blocks]
        sizes: dict[torch.dtype, int] = {}
        for packed in self.packed:
            for dtype, host in packed.host.items():
                sizes[dtype] = max(sizes.get(dtype, 0), host.numel())
        self.slots = [
            Slot({t: torch.empty(n, dtype=t, device=copies.device) for t, n in sizes.items()})
            for _ in range(SLOTS)
        ]
        self._last = -1

    @property
    def host_bytes(self) -> int:
        """Of all blocks."""
        return sum(piece.nbytes for packed in self.packed for piece in packed.host.values())

    def use(self, index: int) -> None:
        """Have a block's weights on the device, and begin to copy those of the block that comes next."""
        slot = self._load(index)
        self.copies.wait(slot.ready)
        coming = index + (1 if index >= self._last or not index else -1)
        self._last = index
        if 0 <= coming < len(self.packed):
            self._load(coming)

    def _load(self, index: int) -> Slot:
        slot = self.slots[index % SLOTS]
        if slot.holds == index:
            return slot
        if slot.holds is not None:
            before = self.packed[slot.holds]
            before.point_to(before.host)
        packed = self.packed[index]
        with self.copies.beside():
            for dtype, host in packed.host.items():
                slot.pieces[dtype][: host.numel()].copy_(host, non_blocking=True)
            slot.ready = self.copies.mark()
        slot.holds = index
        packed.point_to(slot.pieces)
        return slot


# -- what lies between blocks -------------------------------------------------------------------------


@dataclass
class Kept:
    """A tensor in host memory; `back` is its copy on the device, there after `ready`."""

    host: Tensor
    back: Tensor | None = None
    ready: Any = None


class HostActivations:
    """Keeps the stream before each block in host memory until the backward pass comes to the block.

    For one pass through the blocks; it lives as long as the pass's graph.
    """

    def __init__(self, copies: Copies) -> None:
        self.copies = copies
        self._kept: list[Kept] = []
        self._input: tuple[int, torch.Size] | None = None

    def hooks(self, stream_bld: Tensor) -> AbstractContextManager[Any]:
        """Around one checkpointed block: its input goes to the host, what all blocks share stays."""
        self._input = _place_of(stream_bld)  # not the tensor: the graph keeps hooks and what they hold
        return saved_tensors_hooks(self._pack, self._unpack)

    def _pack(self, saved: Tensor) -> Any:
        if _place_of(saved) != self._input:
            return saved
        host = self.copies.empty_host(saved.shape, saved.dtype)
        with self.copies.beside():
            host.copy_(saved.detach(), non_blocking=True)
            if self.copies.stream is not None:
                saved.record_stream(self.copies.stream)
            self._kept.append(Kept(host))
        return len(self._kept) - 1

    def _unpack(self, packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        kept = self._fetch(packed)
        if packed:
            self._fetch(packed - 1)
        self.copies.wait(kept.ready)
        made, kept.back = kept.back, None
        assert made is not None
        return made

    def _fetch(self, number: int) -> Kept:
        kept = self._kept[number]
        if kept.back is None:
            with self.copies.beside():
                kept.back = kept.host.to(self.copies.device, non_blocking=True, copy=True)
                kept.ready = self.copies.mark()
            if self.copies.stream is not None:
                kept.back.record_stream(torch.cuda.current_stream(self.copies.device))
        return kept


def _place_of(tensor: Tensor) -> tuple[int, torch.Size]:
    return tensor.data_ptr(), tensor.shape


# -- around a transformer -----------------------------------------------------------------------------


def offload(
    transformer: MementoTransformer, device: torch.device, *, weights: bool, activations: bool
) -> None:
    """Put a transformer on a device, leaving in host memory what is asked for; in place.

    Args:
        transformer: one expert with its adapters, on the CPU, in the types it computes in.
        device: to compute on.
        weights: frozen weights of blocks stay on the host. They must be computed again in the backward pass
            (`enable_gradient_checkpointing`): nothing may hold on to weights whose slot is used again.
        activations: what checkpoints keep between blocks goes to the host.
    """
    copies = Copies(device)
    streamed = StreamedWeights(transformer.blocks, copies) if weights else None
    _place(transformer, device, transformer.blocks if weights else ())
    host = partial(HostActivations, copies) if activations else None
    transformer._run_blocks = partial(_run_blocks, transformer, streamed, host)  # type: ignore[method-assign]


def _place(transformer: nn.Module, device: torch.device, streamed: Sequence[nn.Module]) -> None:
    """Everything to the device but frozen weights of streamed blocks."""
    stay = {id(p) for block in streamed for p in block.parameters() if not p.requires_grad}
    for parameter in transformer.parameters():
        if id(parameter) not in stay:
            parameter.data = parameter.data.to(device)
    for buffer in transformer.buffers():
        buffer.data = buffer.data.to(device)


def _run_blocks(
    transformer: MementoTransformer,
    weights: StreamedWeights | None,
    make_activations: Callable[[], HostActivations] | None,
    stream_bld: Tensor,
    *shared: Any,
) -> Tensor:
    """The blocks one after the other, in the place of the transformer's own loop."""
    learning = torch.is_grad_enabled()
    checkpointed = learning and transformer.gradient_checkpointing
    if learning and weights is not None and not checkpointed:
        raise RuntimeError("weights on the host need activation checkpoints: blocks are computed again")
    activations = make_activations() if make_activations is not None and checkpointed else None
    for index, block in enumerate(transformer.blocks):
        call = partial(_call, weights, index, block)
        if not checkpointed:
            stream_bld = call(stream_bld, *shared)
            continue
        around = nullcontext() if activations is None else activations.hooks(stream_bld)
        with around:
            stream_bld = checkpoint(call, stream_bld, *shared, use_reentrant=False)
    return stream_bld


def _call(
    weights: StreamedWeights | None, index: int, block: nn.Module, stream_bld: Tensor, *shared: Any
) -> Tensor:
    if weights is not None:
        weights.use(index)
    return block(stream_bld, *shared)


# -- inside a block -----------------------------------------------------------------------------------


def make_lean(transformer: MementoTransformer) -> None:
    """Let attentions and feed-forward parts keep their input alone, each computed again by itself; in place.

    For blocks that are computed again as a whole: less than two thirds of their peak, for one more forward
    pass.
    """
    for block in transformer.blocks:
        block.attn1.forward = _again(block.attn1.forward)
        block.attn2.forward = _again(block.attn2.forward)
        block.ffn.forward = _in_pieces(block.ffn.forward)
        for attention in (block.attn1, block.attn2):
            attention.norm_q.forward = _in_pieces(attention.norm_q.forward)
            attention.norm_k.forward = _in_pieces(attention.norm_k.forward)


def _again(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def made(*args: Any, **more: Any) -> Tensor:
        if not torch.is_grad_enabled():
            return forward(*args, **more)
        return checkpoint(forward, *args, use_reentrant=False, **more)

    return made


def _in_pieces(forward: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
    one = _again(forward)

    def made(x_bld: Tensor) -> Tensor:
        return torch.cat([one(piece) for piece in x_bld.chunk(PIECES, dim=1)], dim=1)

    return made
