"""A shot sampled by several processes: the first one makes everything else, the others lend their devices.

The first process reads, remembers, decodes and writes as if it were alone. Before a shot is sampled it shares
all that sampling takes: text, memory, noise. The others wait for that, sample along, each its part of the
tokens, and keep nothing. So a picture or a choice of memory exists once, and any number of processes can go
on where another number stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from memento_model.conditioning import Conditioning
from memento_model.config import Expert
from memento_model.distributed.launch import World
from memento_model.story.sampler import Experts, Sampling, ShotText, Step, sample


@dataclass(frozen=True, kw_only=True)
class ShotWork:
    """All that sampling a shot takes besides weights; arguments of `sampler.sample`.

    Attributes:
        name: of the shot, for those who ask where a lost process was.
        alone: made by the T2V experts, from its prompt alone.
        conditionings, text, noise_bcfhw, sampling: see `sampler.sample`.
    """

    name: str
    alone: bool
    conditionings: Mapping[Expert, Conditioning]
    text: ShotText
    noise_bcfhw: Tensor
    sampling: Sampling


def lead(world: World | None, experts: Experts, work: ShotWork, on_step: Step | None = None) -> Tensor:
    """Sample a shot, with all processes if there are several; the first one calls it.

    Args:
        world: of this process; None is a single one.
        experts: that make this shot.
        work: what the shot is made from.
        on_step: watches.

    Returns:
        Tensor [b, 16, f, h, w] of the whole layout.
    """
    if world is not None and world.size > 1:
        world.share(_moved(work, "cpu"))
        world.meet(work.name)
    return sample(experts, work.conditionings, work.text, work.noise_bcfhw, work.sampling, on_step)


def follow(world: World, experts: Experts, first_shot: Experts | None) -> None:
    """Sample along until the first process says that all is done; every other process calls it.

    Args:
        world: of this process.
        experts: of the model with memory.
        first_shot: T2V experts, where the model has them.
    """
    while (work := world.share(None)) is not None:
        world.meet(work.name)
        here = _moved(work, world.device)
        makers = first_shot if here.alone else experts
        assert makers is not None, "all processes loaded the same weights"
        sample(makers, here.conditionings, here.text, here.noise_bcfhw, here.sampling)


def dismiss(world: World | None) -> None:
    """Tell the others that there is no more work; the first process calls it once, at the end."""
    if world is not None and world.size > 1:
        world.share(None)


def _moved(value: Any, device: torch.device | str) -> Any:
    """The same records and mappings with their tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _moved(one, device) for key, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _moved(getattr(value, f.name), device) for f in fields(value)})
    return value
