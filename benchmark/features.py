"""Features that metrics read: arrays by story, unit and kind, wherever they come from.

A unit is `()` for a story, `(scene,)` for a scene and a `ShotKey` for a shot. Kinds:

    clip_b32, dino_b14              [frames, d]   a feature per frame of a shot, or per frame that is held
    aes_mlp_raw, aes_linear_raw     [frames]      raw output of an aesthetic head, likewise
    viclip_24, viclip_8             [clips, d] or [d]   of a shot, of a scene's, of a story's joined frames
    text                            [d]           of a prompt, a scene's joined prompts, a story's overview
    stat_*                          [] or [n]     weight-free numbers of a shot (`benchmark.weight_free`)

A shot without any video is missing: it has text only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from benchmark.functional.similarity import pool
from benchmark.sampling import Every, every, split_joined
from benchmark.stories import Scene, Shot, ShotKey, Story

Unit = tuple[int, ...]
TEXT = "text"
FRAME_KINDS = ("clip_b32", "dino_b14", "aes_mlp_raw", "aes_linear_raw")
STORY_UNIT: Unit = ()


class FeatureError(ValueError):
    """Features that cannot be scored; a line that says which, what, and how to mend it."""


class FeatureStore(Protocol):
    """What metrics need of a store of features.

    Of a kind with one row per frame a store may hold only some frames, as `benchmark.extraction.store` does:
    those that a plan asked for. `rows` gives frames by their numbers, `get` all that it holds.
    """

    def kinds(self) -> frozenset[str]:
        """Kinds that at least one unit has."""
        ...

    def num_frames(self, story: str, shot: ShotKey) -> int:
        """Frames of a shot's video; 0 if the shot is missing."""
        ...

    def fps(self, story: str, shot: ShotKey) -> float | None:
        """Frames per second of a shot's video, None if not known."""
        ...

    def get(self, story: str, unit: Unit, kind: str) -> np.ndarray | None:
        """All rows that it holds of a unit, None if there are none.

        Of a kind with one row per frame these are the frames held, ascending: row i need not be frame i.
        """
        ...

    def rows(self, story: str, shot: ShotKey, kind: str, frames: np.ndarray) -> np.ndarray | None:
        """Rows of a kind with one row per frame, at some frames; None if one of them is not held."""
        ...


@dataclass(frozen=True)
class FeatureTable:
    """A store in memory.

    Attributes:
        arrays: (story, unit, kind) -> array; float32 or float64, checked to be finite and of one width
            for each kind.
        frames: (story, shot) -> frames of its video, where no kind has one row per frame.
        rates: (story, shot) -> frames per second.

    Raises:
        FeatureError: an array is not finite or does not fit the others.
    """

    arrays: Mapping[tuple[str, Unit, str], np.ndarray]
    frames: Mapping[tuple[str, Unit], int] = field(default_factory=dict)
    rates: Mapping[tuple[str, Unit], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        widths: dict[str, tuple[int, str]] = {}
        lengths: dict[tuple[str, Unit], tuple[int, str]] = {
            unit: (count, "the video") for unit, count in self.frames.items()
        }
        for (story, unit, kind), array in self.arrays.items():
            name = f"{unit_name(story, unit)}, {kind}"
            if bad := int(np.count_nonzero(~np.isfinite(array))):
                raise FeatureError(f"{name}: {bad} of {array.size} values are not finite: encode it again")
            if array.ndim and not kind.startswith(("stat_", "aes_")):
                width, other = widths.setdefault(kind, (array.shape[-1], name))
                if array.shape[-1] != width:
                    line = f"{name}: width {array.shape[-1]}, but {other} has {width}: use one encoder"
                    raise FeatureError(line)
            if kind in FRAME_KINDS:
                length, other = lengths.setdefault((story, unit), (len(array), kind))
                if len(array) != length:
                    line = f"{name}: {len(array)} frames, but {other} has {length}: encode the shot again"
                    raise FeatureError(line)
            elif len(unit) == 2 and kind.startswith("viclip") and not self._counted(story, unit):
                raise FeatureError(f"{name}: how many frames the shot has is not known: give `frames`")
        object.__setattr__(self, "_lengths", {unit: length for unit, (length, _) in lengths.items()})
        object.__setattr__(self, "_kinds", frozenset(kind for _, _, kind in self.arrays))

    def _counted(self, story: str, unit: Unit) -> bool:
        if (story, unit) in self.frames:
            return True
        return any((story, unit, kind) in self.arrays for kind in FRAME_KINDS)

    def kinds(self) -> frozenset[str]:
        """See `FeatureStore`."""
        return self._kinds  # type: ignore[attr-defined]

    def num_frames(self, story: str, shot: ShotKey) -> int:
        """See `FeatureStore`."""
        return self._lengths.get((story, tuple(shot)), 0)  # type: ignore[attr-defined]

    def fps(self, story: str, shot: ShotKey) -> float | None:
        """See `FeatureStore`."""
        return self.rates.get((story, tuple(shot)))

    def get(self, story: str, unit: Unit, kind: str) -> np.ndarray | None:
        """See `FeatureStore`."""
        return self.arrays.get((story, tuple(unit), kind))

    def rows(self, story: str, shot: ShotKey, kind: str, frames: np.ndarray) -> np.ndarray | None:
        """See `FeatureStore`."""
        array = self.get(story, shot, kind)
        return None if array is None else array[frames]


@dataclass(frozen=True)
class Group:
    """Values that are averaged before anything else: of one scene, shot, story or character.

    Attributes:
        name: of the group in its story.
        units: float64 [n]; empty if the group has no value.
    """

    name: str
    units: np.ndarray


NOTHING = np.zeros(0)


@dataclass(frozen=True)
class StoryFeatures:
    """A story and its features.

    Attributes:
        story: from the script.
        store: features of one method's videos.
        strict: a scene (story) that lacks a shot has no value that is read off its joined frames or from
            all of its shots. Else such values use the shots that exist.
    """

    story: Story
    store: FeatureStore
    strict: bool = False

    def present(self, shot: Shot) -> bool:
        """Whether the shot has a video."""
        return self.store.num_frames(self.story.key, shot.key) > 0

    def readable(self, shots: Sequence[Shot]) -> bool:
        """Whether what is read off these shots together has a value, under the reading of missing shots."""
        return not self.strict or all(self.present(shot) for shot in shots)

    def get(self, unit: Unit, kind: str) -> np.ndarray | None:
        """An array as float64, None if there is none."""
        array = self.store.get(self.story.key, unit, kind)
        return None if array is None else np.asarray(array, np.float64)

    def pooled(self, unit: Unit, kind: str) -> np.ndarray | None:
        """One feature [d] for a unit with one or several, None if there is none."""
        array = self.get(unit, kind)
        return None if array is None or not len(array) else pool(array)

    def sampled(self, shots: Sequence[Shot], kind: str, interval: Every) -> np.ndarray | None:
        """Rows of the joined frames of the shots that exist, at an interval: float64 [n] or [n, d].

        Returns:
            None if there are no frames, or a shot that exists lacks this kind, or its rate where the interval
            is in seconds.
        """
        shots, key = [shot for shot in shots if self.present(shot)], self.story.key
        lengths = [self.store.num_frames(key, shot.key) for shot in shots]
        rates = [self.store.fps(key, shot.key) for shot in shots]
        if interval.seconds is not None and not all(rates):
            return None
        frames = every(interval, lengths, rates)
        parts = [
            self.store.rows(key, shot.key, kind, taken)
            for shot, taken in zip(shots, split_joined(frames, lengths), strict=True)
            if len(taken)
        ]
        found = [part for part in parts if part is not None]
        if not found or len(found) < len(parts):
            return None
        return np.concatenate(found).astype(np.float64)

    def scenes(self) -> Iterator[tuple[str, Scene]]:
        """(name of the group, scene)."""
        return ((str(scene.number), scene) for scene in self.story.scenes)


def unit_name(story: str, unit: Unit) -> str:
    """A unit for people: `story robinson, shot 01_02`."""
    parts = [f"story {story}"]
    if len(unit) == 1:
        parts.append(f"scene {unit[0]}")
    elif unit:
        parts.append(f"shot {ShotKey(*unit).stem}")
    return ", ".join(parts)
