"""Features on disk as metrics read them. Nothing is in memory but keys, texts and numbers of shots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from benchmark.encoders import aesthetic
from benchmark.encoders.aesthetic import HEADS
from benchmark.extraction.plan import CLIP_KINDS, CLIP_L14, ENCODER_OF, VICLIP, Plan
from benchmark.extraction.shelf import TEXTS, Shelf, text_keys
from benchmark.features import FRAME_KINDS, TEXT, Unit
from benchmark.functional.similarity import pool, unit
from benchmark.stories import ShotKey, Story
from benchmark.submission import Clip
from benchmark.weight_free import ShotNumbers, story_features


@dataclass(frozen=True)
class DiskFeatures:
    """A `benchmark.features.FeatureStore` of what a plan asked for.

    Outputs of the aesthetic heads are computed from features of CLIP L/14 when they are read. What was
    encoded for other plans is not seen, so that nothing depends on what else a folder holds.

    Attributes:
        plan: of one method.
        shelves: kind of the encoder -> its features of pictures, for the encoders that are there.
        texts: features of texts, if there is a text tower.
        numbers: kind, story and unit of weight-free numbers -> array; see `weight_free_numbers`.
    """

    plan: Plan
    shelves: Mapping[str, Shelf]
    texts: Shelf | None = None
    numbers: Mapping[tuple[str, Unit, str], np.ndarray] = field(default_factory=dict)
    _heads: dict[tuple[str, ShotKey], dict[str, np.ndarray] | None] = field(default_factory=dict)
    _text: dict[tuple[str, Unit], np.ndarray | None] = field(default_factory=dict)
    _kinds: set[str] = field(default_factory=set)

    def kinds(self) -> frozenset[str]:
        """See `FeatureStore`."""
        if not self._kinds:
            frames = {
                kind for kind in self.shelves if any(self._has(place, kind) for place in self.plan.frames)
            }
            self._kinds.update(kind for kind in FRAME_KINDS if ENCODER_OF[kind] in frames)
            self._kinds.update(
                kind
                for kind in CLIP_KINDS
                if any(self.get(s, u, k) is not None for s, u, k in self.plan.units if k == kind)
            )
            if any(self.get(*place, TEXT) is not None for place in self.plan.texts):
                self._kinds.add(TEXT)
            self._kinds.update(kind for _, _, kind in self.numbers)
        return frozenset(self._kinds)

    def num_frames(self, story: str, shot: ShotKey) -> int:
        """See `FeatureStore`."""
        clip = self._clip(story, shot)
        return clip.num_frames if clip else 0

    def fps(self, story: str, shot: ShotKey) -> float | None:
        """See `FeatureStore`."""
        clip = self._clip(story, shot)
        return (clip.facts.fps or None) if clip and clip.facts else None

    def get(self, story: str, unit: Unit, kind: str) -> np.ndarray | None:
        """See `FeatureStore`; of a kind with one row per frame, those that the plan asked for."""
        unit = tuple(unit)
        if kind.startswith("stat_"):
            return self.numbers.get((story, unit, kind))
        if kind == TEXT:
            if (story, unit) not in self._text:
                self._text[story, unit] = self._read_text(story, unit)
            return self._text[story, unit]
        if kind in CLIP_KINDS:
            clips = self.plan.units.get((story, unit, kind))
            if clips is None or VICLIP not in self.shelves:
                return None
            rows = [self.shelves[VICLIP].rows(clip.id, clip.frames[None]) for clip in clips]
            found = [row for row in rows if row is not None]
            return np.concatenate(found) if len(found) == len(rows) else None
        if len(unit) != 2:
            return None
        frames = self._planned(story, ShotKey(*unit), ENCODER_OF.get(kind, kind))
        return None if frames is None else self.rows(story, ShotKey(*unit), kind, frames)

    def rows(self, story: str, shot: ShotKey, kind: str, frames: np.ndarray) -> np.ndarray | None:
        """See `FeatureStore`."""
        if kind in HEADS:
            scores, planned = self._scores(story, shot), self._planned(story, shot, CLIP_L14)
            if scores is None or planned is None or not np.isin(frames, planned).all():
                return None
            return scores[kind][np.searchsorted(planned, frames)]
        clip = self._clip(story, shot)
        if clip is None or clip.facts is None or kind not in self.shelves:
            return None
        keys = (np.asarray(frames) + clip.start).astype(np.int32)[:, None]
        return self.shelves[kind].rows(clip.facts.sha256, keys)

    def _clip(self, story: str, shot: ShotKey) -> Clip | None:
        return self.plan.clips.get((story, ShotKey(*shot)))

    def _planned(self, story: str, shot: ShotKey, encoder: str) -> np.ndarray | None:
        return self.plan.frames.get((story, ShotKey(*shot)), {}).get(encoder)

    def _has(self, place: tuple[str, ShotKey], encoder: str) -> bool:
        clip, frames = self._clip(*place), self._planned(*place, encoder)
        if clip is None or clip.facts is None or frames is None or not len(frames):
            return False
        keys = (frames + clip.start).astype(np.int32)[:, None]
        return not self.shelves[encoder].missing(clip.facts.sha256, keys).any()

    def _scores(self, story: str, shot: ShotKey) -> dict[str, np.ndarray] | None:
        place = (story, ShotKey(*shot))
        if place not in self._heads:
            frames = self._planned(*place, CLIP_L14)
            features = None if frames is None else self.rows(*place, CLIP_L14, frames)
            units = None if features is None else unit(features)
            usable = units is not None and bool(np.isfinite(units).all())
            self._heads[place] = aesthetic.scores(units) if usable and units is not None else None
        return self._heads[place]

    def _read_text(self, story: str, unit: Unit) -> np.ndarray | None:
        texts = self.plan.texts.get((story, unit))
        if texts is None or self.texts is None:
            return None
        rows = self.texts.rows(TEXTS, text_keys(list(texts)))
        if rows is None:
            return None
        return rows[0] if len(rows) == 1 else pool(rows)


def weight_free_numbers(
    stories: Mapping[str, Story], shots: Mapping[tuple[str, ShotKey], ShotNumbers]
) -> dict[tuple[str, Unit, str], np.ndarray]:
    """Measured numbers of shots and of the boundaries between them, for `DiskFeatures`."""
    found: dict[tuple[str, Unit, str], np.ndarray] = {}
    for key in sorted(stories):
        found |= story_features(stories[key], {shot: n for (story, shot), n in shots.items() if story == key})
    return found
