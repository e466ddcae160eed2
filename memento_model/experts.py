"""The two experts and where they are: both on the device, one at a time, or layer by layer.

Wan2.2 has a transformer for high noise and one for low noise, 28.6 GB each in bf16. Sampling changes from one
to the other once per shot, so on a device that holds one of them the other waits in host memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from memento_model.config import Expert
from memento_model.transformer import MementoTransformer

Placement = Literal["auto", "both", "one", "layers"]
RESERVE = 0.35
"""Share of the device that `auto` leaves to activations."""


class ExpertPair:
    """Brings the expert of a noise level to the device.

    Attributes:
        placement: `both` on the device; `one` at a time; `layers`: only the block that computes is there.
    """

    def __init__(
        self,
        transformers: Mapping[Expert, MementoTransformer],
        device: torch.device | str,
        placement: Placement = "auto",
    ) -> None:
        self._transformers = dict(transformers)
        self._device = torch.device(device)
        self._there: Expert | None = None
        self.placement = self._choose() if placement == "auto" else placement
        if self.placement == "both":
            for transformer in self._transformers.values():
                transformer.to(self._device)
        elif self.placement == "layers":
            for transformer in self._transformers.values():
                stream_layers(transformer, self._device)

    def __call__(self, expert: Expert) -> MementoTransformer:
        """The expert, ready to compute on the device."""
        if self.placement == "one" and self._there != expert:
            self.park()
            self._transformers[expert].to(self._device)
            self._there = expert
        return self._transformers[expert]

    def park(self) -> None:
        """With `one`: send the expert that is there back to host memory."""
        if self._there is not None and self.placement == "one":
            self._transformers[self._there].to("cpu")
            self._there = None

    def _choose(self) -> Placement:
        if self._device.type == "cpu":
            return "both"
        free, _ = torch.cuda.mem_get_info(self._device)
        return choose_placement([num_bytes(t) for t in self._transformers.values()], free)


def choose_placement(sizes: list[int], free: int) -> Placement:
    """The fastest placement that leaves room for activations.

    Args:
        sizes: bytes of each expert.
        free: bytes free on the device.
    """
    room = free * (1 - RESERVE)
    if sum(sizes) <= room:
        return "both"
    return "one" if max(sizes) <= room else "layers"


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
