"""What is remembered from shot to shot: one interface, Memento's learned choice, and nothing at all.

A memory is asked once per shot, with the prompt of the coming shot, and told once per shot what was made. Its
whole state can be saved and put back, so a story can go on in another process. StoryMem's rules are the other
implementation, in `memento_model.story.storymem`.

Axes: c channels, m frames, h and w latent rows and columns, t rows of text, d their width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from memento_model.conditioning import Memory, query_positions, spaced_frames
from memento_model.config import Compat, Expert

EXPERTS: tuple[Expert, Expert] = ("high", "low")
CANDIDATES_PER_SHOT = 8
"""Evenly spaced frames of the last shot that stand beside the kept ones for election."""


@dataclass(frozen=True)
class Source:
    """Where a remembered frame comes from; `shot` is empty for reference images."""

    shot: str
    frame: int


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Remembered frames with their origin."""

    memory: Memory
    sources: tuple[Source, ...]

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.sources)

    def take(self, indices: Sequence[int]) -> Pool:
        """Some of the frames, in the order asked for."""
        kept = list(indices)
        return Pool(
            memory=Memory(
                latents_cmhw=self.memory.latents_cmhw[:, kept],
                times=tuple(self.memory.times[i] for i in kept),
            ),
            sources=tuple(self.sources[i] for i in kept),
        )

    def joined(self, other: Pool) -> Pool:
        """These frames, then the other's."""
        latents = torch.cat((self.memory.latents_cmhw, other.memory.latents_cmhw), dim=1)
        return Pool(
            memory=Memory(latents_cmhw=latents, times=self.memory.times + other.memory.times),
            sources=self.sources + other.sources,
        )

    def in_time(self) -> Pool:
        """The same frames in order of time."""
        return self.take(sorted(range(len(self)), key=lambda i: self.memory.times[i]))


@dataclass(frozen=True, kw_only=True)
class ComingShot:
    """What is known of a shot before it is made.

    Attributes:
        start_frame: pixel frames at 16 fps since the story began.
        text_td: un-padded rows of the text encoder for its whole prompt.
        global_text_td: likewise for the prompt's global part.
    """

    start_frame: int
    text_td: Tensor
    global_text_td: Tensor


@dataclass(frozen=True, kw_only=True)
class MadeShot:
    """A finished shot.

    Attributes:
        name: e.g. `01_02`.
        start_frame: pixel frames at 16 fps since the story began.
        video_cthw: [3, t, h, w] in [-1, 1].
        encode: images [n, 3, h, w] -> latents [n, c, h, w], each alone.
    """

    name: str
    start_frame: int
    video_cthw: Tensor
    encode: Callable[[Tensor], Tensor]

    def frames(self, indices: Sequence[int]) -> Pool:
        """Some frames as remembered ones."""
        chosen = list(indices)
        latents_nchw = self.encode(self.video_cthw[:, chosen].transpose(0, 1))
        return Pool(
            memory=Memory(
                latents_cmhw=latents_nchw.transpose(0, 1).contiguous(),
                times=tuple(self.start_frame + i for i in chosen),
            ),
            sources=tuple(Source(self.name, i) for i in chosen),
        )


@dataclass(frozen=True, kw_only=True)
class Recall:
    """What one expert gets to see of the past.

    Attributes:
        pool: in order of time; None where nothing is remembered.
        facts: why these: scores and margins, JSON values, for inspection.
    """

    pool: Pool | None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MemoryState:
    """All that a memory holds between two shots, by names of its own."""

    pools: dict[str, Pool] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)


class MemoryPolicy(Protocol):
    """Remembers shots; `recall` may change the state (frames not elected are forgotten).

    Attributes:
        name: of the method.
    """

    name: str

    def start(self, references: Pool, images_nchw: Tensor) -> None:
        """Begin with reference images (MR2V): as memory, and as pictures in [-1, 1]."""

    def recall(self, coming: ComingShot) -> dict[Expert, Recall]:
        """What either expert sees in the coming shot."""

    def add(self, shot: MadeShot) -> None:
        """Remember a finished shot."""

    def state(self) -> MemoryState:
        """Everything remembered."""

    def restore(self, state: MemoryState) -> None:
        """Go on from a saved state."""


class Elect(Protocol):
    """One expert's queries: picks frames for a coming shot."""

    def __call__(
        self, memory: Memory, positions: Sequence[int], coming: ComingShot
    ) -> tuple[list[int], dict[str, Any]]:
        """Indices of the picked candidates, best first, and facts about the choice."""


class DrawnElection:
    """Frames at random, as the ablation without queries was trained; the same ones for both experts."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __call__(
        self, memory: Memory, positions: Sequence[int], coming: ComingShot
    ) -> tuple[list[int], dict[str, Any]]:
        """Indices of the drawn candidates; the coming shot's place in time decides the draw."""
        generator = torch.Generator().manual_seed(coming.start_frame)
        order = torch.randperm(len(memory.times), generator=generator)
        return order[: self._count].tolist(), {"drawn": True}


class Forgetful:
    """No memory: plain Wan2.2, the baseline."""

    name = "wan"

    def start(self, references: Pool, images_nchw: Tensor) -> None:
        """Reference images cannot be remembered either.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "mode wan has no memory, so it cannot take reference images; use memento or storymem"
        )

    def recall(self, coming: ComingShot) -> dict[Expert, Recall]:
        """Nothing."""
        return {expert: Recall(pool=None) for expert in EXPERTS}

    def add(self, shot: MadeShot) -> None:
        """Forgets it."""

    def state(self) -> MemoryState:
        """Empty."""
        return MemoryState()

    def restore(self, state: MemoryState) -> None:
        """Nothing to put back."""


class MementoMemory:
    """Frames elected by learned queries, a pool for each expert (Memento paper, section 3.2).

    For the coming shot the kept frames and eight evenly spaced ones of the last shot stand for election;
    while they fit into the bank all are taken. What is not elected is gone, so memory stays flat however
    long a story is.
    """

    name = "memento"

    def __init__(self, elect: Mapping[Expert, Elect], bank_size: int, compat: Compat) -> None:
        self._elect, self._bank_size, self._compat = elect, bank_size, compat
        self._pools: dict[Expert, Pool | None] = dict.fromkeys(EXPERTS)
        self._last: Pool | None = None

    def start(self, references: Pool, images_nchw: Tensor) -> None:
        """Reference images are kept frames from before the story."""
        self._pools = dict.fromkeys(EXPERTS, references)

    def recall(self, coming: ComingShot) -> dict[Expert, Recall]:
        """Elect for either expert; with `queries=low` both see the low-noise expert's pool."""
        low = self._recall("low", coming)
        high = low if self._compat.queries == "low" else self._recall("high", coming)
        self._pools, self._last = {"high": high.pool, "low": low.pool}, None
        return {"high": high, "low": low}

    def _recall(self, expert: Expert, coming: ComingShot) -> Recall:
        pools = [pool for pool in (self._pools[expert], self._last) if pool]
        if not pools:
            return Recall(pool=None)
        candidates = functools.reduce(Pool.joined, pools)
        if len(candidates) <= self._bank_size:
            return Recall(pool=candidates.in_time())
        positions = query_positions(candidates.memory.times, coming.start_frame)
        picked, facts = self._elect[expert](candidates.memory, positions, coming)
        asked = [[s.shot, s.frame] for s in candidates.sources]
        return Recall(pool=candidates.take(picked).in_time(), facts={"candidates": asked, **facts})

    def add(self, shot: MadeShot) -> None:
        """Its evenly spaced frames stand for election next time."""
        frames = spaced_frames(shot.video_cthw.shape[1], CANDIDATES_PER_SHOT, self._compat)
        self._last = shot.frames(sorted(set(frames)))

    def state(self) -> MemoryState:
        """Pools by expert, and the last shot's frames."""
        kept = [*self._pools.items(), ("last", self._last)]
        return MemoryState(pools={name: pool for name, pool in kept if pool is not None})

    def restore(self, state: MemoryState) -> None:
        """Go on from there."""
        self._pools = {expert: state.pools.get(expert) for expert in EXPERTS}
        self._last = state.pools.get("last")
