"""Controls for calibration: what a method's own videos score in other places, or frozen.

    shuffled              every shot shows a video of another place, of another story where there is one
    reversed              the shots of each story in the opposite order
    swapped_identities    shots of two characters exchanged (`benchmark.extraction.controls`)
    frozen                every shot shows its first frame all the time

All but the last are submissions like any other, so everything is computed on them as on the method itself,
from the same features of frames; only joined frames of scenes are encoded anew. Of frozen videos the features
of frames and the weight-free numbers are known without encoding anything; features of clips are not, and what
needs them has no value.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.extraction.controls import Place, reversed_order, shuffled, swapped_identities
from benchmark.extraction.shelf import read_checked, write_checked
from benchmark.extraction.shots import as_record, from_record
from benchmark.features import FRAME_KINDS, TEXT, FeatureStore, Unit
from benchmark.frames import opened
from benchmark.stories import ShotKey, Story
from benchmark.submission import Clip, Submission, missing_shots
from benchmark.weight_free import VERSION, ShotNumbers, Watching, story_features

SHUFFLED, REVERSED, SWAPPED, FROZEN = "shuffled", "reversed", "swapped identities", "frozen"
TRIES = 200
"""Random orders of which the one that keeps least in place is taken."""
WATCHED = 9
"""Frames of a frozen shot that are measured; further ones would give the same numbers."""


@dataclass(frozen=True)
class _There:
    """As much of a store as tells which shots there are."""

    submission: Submission

    def num_frames(self, story: str, shot: ShotKey) -> int:
        """See `FeatureStore`."""
        clip = self.submission.clips.get(story, {}).get(shot)
        return clip.num_frames if clip else 0


def name_of(method: str, control: str) -> str:
    """How a control is called."""
    return f"{method}, {control}"


def rearranged(submission: Submission, stories: Mapping[str, Story]) -> list[Submission]:
    """The controls that are submissions: the method's videos in other places.

    Args:
        submission: of the method, with the facts of its files.
        stories: by key.
    """
    there: Any = _There(submission)
    sources = {
        SHUFFLED: shuffled(stories, there) or _within(stories, submission),
        REVERSED: reversed_order(stories, there),
        SWAPPED: swapped_identities(stories, there),
    }
    return [_moved(submission, stories, name, source) for name, source in sources.items() if source]


def _moved(
    submission: Submission, stories: Mapping[str, Story], control: str, source: Mapping[Place, Place]
) -> Submission:
    clips: dict[str, dict[ShotKey, Clip]] = {}
    for key, shots in submission.clips.items():
        for shot in shots:
            story, other = source.get((key, shot), (key, shot))
            clips.setdefault(key, {})[shot] = submission.clips[story][other]
    name = name_of(submission.method, control)
    return Submission(method=name, clips=clips, missing=missing_shots(clips, stories))


def _within(stories: Mapping[str, Story], submission: Submission, seed: int = 0) -> dict[Place, Place]:
    """Shots of a story in an order in which few keep their place or their neighbour; the best of many."""
    source: dict[Place, Place] = {}
    for key in sorted(stories):
        shots, rng = sorted(submission.clips.get(key, {})), random.Random(seed)
        numbers = list(range(len(shots)))
        orders = [rng.sample(numbers, len(numbers)) for _ in range(TRIES)]
        order = min(orders, key=_kept)
        source |= {(key, shots[i]): (key, shots[j]) for i, j in enumerate(order) if i != j}
    return source


def _kept(order: Sequence[int]) -> int:
    still = sum(new == old for new, old in enumerate(order))
    return 2 * still + sum(abs(a - b) == 1 for a, b in pairwise(order))


@dataclass(frozen=True)
class FrozenFeatures:
    """A store of frozen videos: features of frames repeat the first encoded one, clips have none.

    Attributes:
        store: of the method.
        numbers: (story, unit, kind) -> weight-free numbers of the frozen videos.
    """

    store: FeatureStore
    numbers: Mapping[tuple[str, Unit, str], np.ndarray]

    def kinds(self) -> frozenset[str]:
        """See `FeatureStore`."""
        known = {kind for kind in self.store.kinds() if kind in (*FRAME_KINDS, TEXT)}
        return frozenset(known | {kind for _, _, kind in self.numbers})

    def num_frames(self, story: str, shot: ShotKey) -> int:
        """See `FeatureStore`."""
        return self.store.num_frames(story, shot)

    def fps(self, story: str, shot: ShotKey) -> float | None:
        """See `FeatureStore`."""
        return self.store.fps(story, shot)

    def get(self, story: str, unit: Unit, kind: str) -> np.ndarray | None:
        """See `FeatureStore`."""
        if kind.startswith("stat_"):
            return self.numbers.get((story, tuple(unit), kind))
        array = self.store.get(story, unit, kind) if kind in (*FRAME_KINDS, TEXT) else None
        if array is None or kind == TEXT:
            return array
        return np.repeat(array[:1], len(array), axis=0)

    def rows(self, story: str, shot: ShotKey, kind: str, frames: np.ndarray) -> np.ndarray | None:
        """See `FeatureStore`."""
        array = self.store.get(story, shot, kind) if kind in FRAME_KINDS else None
        return None if array is None or not len(array) else np.repeat(array[:1], len(frames), axis=0)


def frozen(
    submission: Submission, stories: Mapping[str, Story], store: FeatureStore, folder: Path
) -> tuple[Submission, FrozenFeatures]:
    """The frozen control of a method: its first frames are decoded once and their numbers kept in `folder`.

    Args:
        submission: of the method, with the facts of its files.
        stories: by key.
        store: features of the method.
        folder: of features on disk.

    Raises:
        BadInput: a file cannot be decoded.
    """
    found: dict[tuple[str, Unit, str], np.ndarray] = {}
    for key, shots in submission.clips.items():
        if key in stories:
            numbers = {shot: frozen_numbers(clip, folder) for shot, clip in shots.items()}
            found |= story_features(stories[key], numbers)
    named = replace(submission, method=name_of(submission.method, FROZEN), ignored=(), faults=())
    return named, FrozenFeatures(store, found)


def frozen_numbers(clip: Clip, folder: Path) -> ShotNumbers:
    """What a shot would measure if it showed its first frame all the time."""
    path = folder / f"frozen-{VERSION}" / f"{clip.id.replace(':', '_')}.npy"
    record = read_checked(path)
    if record is None:
        record = as_record(_measured(clip))
        write_checked(path, record)
    return from_record(record)


def _measured(clip: Clip) -> ShotNumbers:
    count = min(clip.num_frames, WATCHED)
    stream, frames = opened(clip.path)
    watching = Watching([Clip(path=clip.path, start=0, end=count)], stream)
    for index, frame in enumerate(frames):
        if index == clip.start:
            for again in range(count):
                watching.see(again, frame)
            break
    return replace(watching.numbers()[0], frames=clip.num_frames)
