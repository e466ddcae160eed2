"""StoryMem's memory: keyframes by visual novelty, the first three for ever, the rest a sliding window.

Rules from the paper (arXiv 2512.19539) and its authors' notes; positions are its fixed offsets
(`Compat.memory_positions = "storymem"`). Of a forgotten keyframe only its embedding is kept, so that it is
not stored again.

Axes: n images, d numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from memento_model.config import Expert
from memento_model.story.memory import EXPERTS, ComingShot, MadeShot, MemoryState, Pool, Recall

BATCH = 32


class ImageEmbedder(Protocol):
    """Tells how alike two pictures are.

    Attributes:
        name: of the method and its weights.
    """

    name: str

    def __call__(self, images_nchw: Tensor) -> Tensor:
        """Unit vectors [n, d] of images in [-1, 1]; the dot product is the likeness."""


Quality = Callable[[Tensor], Tensor]
"""Scores [n] of images [n, 3, h, w] in [-1, 1]; StoryMem asks HPSv3 with an empty prompt for at least 3.0."""


@dataclass(frozen=True, kw_only=True)
class StoryMemRules:
    """The numbers of the method.

    Attributes:
        start_threshold: a frame is new when its likeness to the last keyframe is below this.
        threshold_step: the threshold falls by this until few enough keyframes remain.
        max_keyframes: of one shot.
        max_stored_likeness: a keyframe more alike to a stored one is not stored.
        bank_size: stored keyframes a shot sees.
        sink: how many of them are the story's first; the rest are the latest.
        min_quality: least score of a keyframe where a quality model is given.
        every: only every so many frames are looked at.
    """

    start_threshold: float = 0.9
    threshold_step: float = 0.01
    max_keyframes: int = 3
    max_stored_likeness: float = 0.9
    bank_size: int = 10
    sink: int = 3
    min_quality: float = 3.0
    every: int = 1


def keyframes(vectors_nd: Tensor, good: Sequence[bool], rules: StoryMemRules) -> list[int]:
    """Frames that differ from the keyframe before them; at most `max_keyframes`.

    The first good frame is always one. If no frame is good, the first frame is taken all the same: otherwise
    the shot would be forgotten.

    Args:
        vectors_nd: unit vectors of the frames, in order.
        good: whether each passes the quality filter.
        rules: thresholds.
    """
    usable = [i for i, ok in enumerate(good) if ok] or [0]
    threshold = rules.start_threshold
    while True:
        picked = usable[:1]
        for i in usable[1:]:
            if float(vectors_nd[i] @ vectors_nd[picked[-1]]) < threshold:
                picked.append(i)
        if len(picked) <= rules.max_keyframes:
            return picked
        threshold -= rules.threshold_step


class StoryMemMemory:
    """Keyframes of all shots, the first `sink` and the latest of them seen by both experts."""

    name = "storymem"

    def __init__(
        self, embed: ImageEmbedder, rules: StoryMemRules | None = None, quality: Quality | None = None
    ) -> None:
        self._embed, self._rules, self._quality = embed, rules or StoryMemRules(), quality
        self._bank: Pool | None = None
        self._vectors_nd: Tensor | None = None

    def start(self, references: Pool, images_nchw: Tensor) -> None:
        """Reference images are the first keyframes; those within the sink are never forgotten."""
        self._bank, self._vectors_nd = references, self._vectors(images_nchw)

    def recall(self, coming: ComingShot) -> dict[Expert, Recall]:
        """The bank, whatever the prompt says."""
        return {expert: Recall(pool=self._bank) for expert in EXPERTS}

    def add(self, shot: MadeShot) -> None:
        """Find keyframes, store the new ones, forget the oldest beyond the sink."""
        rules = self._rules
        frames = list(range(0, shot.video_cthw.shape[1], rules.every))
        images_nchw = shot.video_cthw[:, frames].transpose(0, 1)
        vectors_nd = self._vectors(images_nchw)
        good = [True] * len(frames)
        if self._quality is not None:
            good = [float(score) >= rules.min_quality for score in self._quality(images_nchw)]
        for i in keyframes(vectors_nd, good, rules):
            self._store(shot, frames[i], vectors_nd[i])

    def _vectors(self, images_nchw: Tensor) -> Tensor:
        return torch.cat([self._embed(part) for part in images_nchw.split(BATCH)]).float().cpu()

    def _store(self, shot: MadeShot, frame: int, vector_d: Tensor) -> None:
        rules, known = self._rules, self._vectors_nd
        if known is not None and float((known @ vector_d).max()) > rules.max_stored_likeness:
            return
        one = shot.frames([frame])
        self._bank = one if self._bank is None else self._bank.joined(one)
        self._vectors_nd = vector_d[None] if known is None else torch.cat((known, vector_d[None]))
        if len(self._bank) > rules.bank_size:
            latest = range(len(self._bank) - rules.bank_size + rules.sink, len(self._bank))
            self._bank = self._bank.take([*range(rules.sink), *latest])

    def state(self) -> MemoryState:
        """The bank, and the embeddings of every keyframe so far."""
        pools = {} if self._bank is None else {"bank": self._bank}
        return MemoryState(
            pools=pools, tensors={} if self._vectors_nd is None else {"vectors": self._vectors_nd}
        )

    def restore(self, state: MemoryState) -> None:
        """Go on from there."""
        self._bank, self._vectors_nd = state.pools.get("bank"), state.tensors.get("vectors")
