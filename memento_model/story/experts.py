"""The two experts and where they are: both on the device, one at a time, shared out, or layer by layer.

Wan2.2 has a transformer for high noise and one for low noise, 28.6 GB each in bf16. Sampling changes from one
to the other once per shot, so on a device that holds one of them the other waits in host memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from memento_model.codecs.text import TextEncoder
from memento_model.config import Expert
from memento_model.distributed.launch import World
from memento_model.distributed.parallel import AttentionBackend, parallelise
from memento_model.distributed.ulysses import check_heads
from memento_model.errors import CheckpointError, LaunchError
from memento_model.nn.transformer import MementoTransformer, pad_text
from memento_model.training.config import ScaleConfig

Placement = Literal["auto", "both", "shard", "one", "layers"]
"""Where experts are; `auto` is the fastest that the device has room for."""
PLACEMENTS: tuple[Placement, ...] = get_args(Placement)
RESERVE = 0.35
"""Share of the device that `auto` leaves to activations."""


class ExpertPair:
    """Brings the expert of a noise level to the device.

    A transformer may serve both levels.

    Attributes:
        rivals: other pairs on the same device; with `one`, only one expert of all is there.
        placement: `both` on the device; `shard`: a share of both in every process (see `place`); `one` at a
            time; `layers`: only the block that computes is there.
    """

    def __init__(
        self,
        transformers: Mapping[Expert, MementoTransformer],
        device: torch.device | str,
        placement: Placement = "auto",
    ) -> None:
        self._transformers = dict(transformers)
        distinct: list[nn.Module] = list({id(t): t for t in transformers.values()}.values())
        self._device = torch.device(device)
        self._there: nn.Module | None = None
        self.rivals: tuple[ExpertPair, ...] = ()
        self.placement = placement_for(distinct, self._device) if placement == "auto" else placement
        if self.placement == "both":
            for transformer in distinct:
                transformer.to(self._device)
        elif self.placement == "layers":
            for transformer in distinct:
                stream_layers(transformer, self._device)

    def __call__(self, expert: Expert) -> MementoTransformer:
        """The expert, ready to compute on the device."""
        wanted = self._transformers[expert]
        if self.placement == "one" and self._there is not wanted:
            for pair in (self, *self.rivals):
                pair.park()
            there: nn.Module = wanted
            self._there = there.to(self._device)
        return wanted

    def park(self) -> None:
        """With `one`: send the expert that is there back to host memory."""
        if self._there is not None and self.placement == "one":
            self._there.to("cpu")
            self._there = None


def place(
    models: Sequence[Mapping[Expert, MementoTransformer]],
    placement: Placement,
    device: torch.device,
    world: World | None = None,
    *,
    attention: AttentionBackend = "auto",
    compiled: bool = False,
) -> list[ExpertPair]:
    """Pairs of experts that share a device; of several processes, each gets its part of the work.

    Args:
        models: experts of the model with memory, and of the T2V model (may be empty).
        placement: of all of them.
        device: of this process.
        world: its place among others.
        attention: kernel; see `memento_model.distributed.parallel`.
        compiled: compile each block: slow at first, faster from then on.

    Raises:
        CheckpointError: one process cannot share weights out, or the kernel does not run here.
        LaunchError: the processes cannot share the attention heads.
    """
    distinct: list[MementoTransformer] = list({id(t): t for pair in models for t in pair.values()}.values())
    size = 1 if world is None else world.size
    if placement == "shard" and size == 1:
        raise CheckpointError(
            "--placement shard shares the weights out over several processes; start them with torchrun "
            "--nproc-per-node N"
        )
    if placement == "auto":
        placement = placement_for(distinct, device, size)
        placement = placement if world is None else world.share(placement)
    for transformer in distinct:
        try:
            check_heads(transformer.config.num_attention_heads, size)
        except ValueError as error:
            raise LaunchError(str(error)) from error
    pairs = [ExpertPair(pair, device, placement) for pair in models]
    for pair in pairs:
        pair.rivals = tuple(other for other in pairs if other is not pair)
    scale = ScaleConfig(checkpoint_activations=False, compile=compiled, shard=placement == "shard")
    for transformer in distinct:
        try:
            parallelise(transformer, scale=scale, world=world or World(device=device), attention=attention)
        except ValueError as error:
            raise CheckpointError(f"--attention: {error}") from error
    return pairs


def placement_for(models: Sequence[nn.Module], device: torch.device, num_processes: int = 1) -> Placement:
    """The fastest placement that the device has room for."""
    if device.type != "cuda":
        return "both"
    free, _ = torch.cuda.mem_get_info(device)
    return choose_placement([num_bytes(model) for model in models], free, num_processes)


def choose_placement(sizes: Sequence[int], free: int, num_processes: int = 1) -> Placement:
    """The fastest placement that leaves room for activations.

    Args:
        sizes: bytes of each expert.
        free: bytes free on the device.
        num_processes: that can share the weights out.
    """
    room = free * (1 - RESERVE)
    if sum(sizes) <= room:
        return "both"
    if num_processes > 1 and sum(sizes) / num_processes <= room:
        return "shard"
    return "one" if max(sizes) <= room else "layers"


def text_reader(
    transformer: MementoTransformer, device: torch.device | str
) -> Callable[[Sequence[Tensor]], Tensor]:
    """The expert's own embedding of text rows, on the device even while the expert is not: 0.1 GB of 28.6."""
    embedder = copy.deepcopy(transformer.condition_embedder.text_embedder).to(device)
    text_len = transformer.text_len

    def embed(text: Sequence[Tensor]) -> Tensor:
        return embedder(pad_text(text, text_len).to(embedder.linear_1.weight.dtype))

    return embed


class VisitingText(TextEncoder):
    """A text encoder that is on the device only while it encodes: once per shot, 11 GB for umT5-XXL."""

    def __init__(self, encoder: TextEncoder, device: torch.device | str) -> None:
        self._encoder, self._device = encoder, torch.device(device)
        self.name, self.revision = encoder.name, encoder.revision
        self.text_dim, self.text_len = encoder.text_dim, encoder.text_len

    @property
    def device(self) -> torch.device:
        """Where rows are made."""
        return self._device

    def to(self, device: torch.device | str) -> VisitingText:
        """Visit another device from now on."""
        self._device = torch.device(device)
        return self

    def encode(self, prompts: Sequence[str]) -> list[Tensor]:
        """Rows of each prompt, on the device."""
        self._encoder.to(self._device)
        try:
            return self._encoder.encode(prompts)
        finally:
            self._encoder.to("cpu")


def num_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))


def stream_layers(transformer: nn.Module, device: torch.device) -> None:
    """Keep weights in host memory and copy each block to the device just before it computes."""
    from diffusers.hooks import apply_group_offloading

    apply_group_offloading(
        transformer,
        onload_device=device,
        offload_device=torch.device("cpu"),
        offload_type="block_level",
        num_blocks_per_group=1,
        use_stream=device.type == "cuda",
    )
