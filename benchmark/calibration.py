"""What a score would be by chance, at best, and by cheating; and the score between them.

Limits of a score that is a cosine:

    floor      the same similarity between shots, frames, or videos and texts, of different stories
    ceiling    between the odd and the even clips or frames of the same shot
    cheat      the metric itself on videos frozen at their first frame, for metrics on frames

    calibrated = (score - floor) / (ceiling - floor)

Floor and ceiling are taken at the level of the metric: shots, scenes or stories. Half of a shot is a noisier
sample of it than the whole, so shots that differ by nothing else can come out a little above 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from benchmark.aggregate import MACRO, MetricScore, StoryScore, mean
from benchmark.features import FRAME_KINDS, STORY_UNIT, TEXT, FeatureStore, StoryFeatures, Unit
from benchmark.functional import consistency, semantic
from benchmark.functional.similarity import cosine, pool, unit
from benchmark.scoring import Metric
from benchmark.stories import ShotKey, Story

SHOT, SCENE, STORY = "shot", "scene", "story"
_LEVELS = {semantic.scene_text: SCENE, semantic.story_text: STORY, consistency.adjacent_scenes: SCENE}
SMALLEST_RANGE = 1e-6
"""Between floor and ceiling; below that a calibrated score is noise and NaN."""


class Calibration(NamedTuple):
    """A score between its limits; NaN where a limit does not exist."""

    score: float
    floor: float
    ceiling: float
    cheat: float

    @property
    def calibrated(self) -> float:
        """0 at the floor, 1 at the ceiling."""
        return calibrated(self.score, self.floor, self.ceiling)

    @property
    def won_by_freezing(self) -> bool:
        """Whether frozen videos would score at least as well."""
        return self.cheat >= self.score


def calibrated(score: float, floor: float, ceiling: float) -> float:
    """(score - floor) / (ceiling - floor), NaN if the range is empty."""
    wide = ceiling - floor
    return (score - floor) / wide if wide > SMALLEST_RANGE else math.nan


def shuffled_floor(
    stories: Mapping[str, Story],
    store: FeatureStore,
    kind: str,
    *,
    level: str = SHOT,
    frames: bool = False,
) -> float:
    """Mean cosine of all pairs of shots of different stories; every pair of stories weighs the same.

    It is computed exactly from each story's mean unit feature, not drawn. NaN for fewer than two stories.

    Args:
        stories: by key.
        store: features of a method's videos.
        kind: of the features.
        level: `shot`, `scene` or `story`: what is compared.
        frames: compare single rows, not the pooled rows of each.
    """
    units = [_units(stories[key], store, kind, level, frames) for key in sorted(stories)]
    means = [u.mean(axis=0) for u in units if len(u)]
    return mean(float(a @ b) for i, a in enumerate(means) for b in means[i + 1 :])


def shuffled_text_floor(
    stories: Mapping[str, Story], store: FeatureStore, kind: str, *, level: str = SHOT
) -> float:
    """Mean cosine of videos with the texts of other stories; arguments and weights as in `shuffled_floor`."""
    found = {}
    for key in sorted(stories):
        videos, texts = (_units(stories[key], store, k, level) for k in (kind, TEXT))
        if len(videos) and len(texts):
            found[key] = (videos.mean(axis=0), texts.mean(axis=0))
    return mean(float(found[a][0] @ found[b][1]) for a in found for b in found if a != b)


def split_half_ceiling(
    stories: Mapping[str, Story],
    store: FeatureStore,
    kind: str,
    *,
    level: str = SHOT,
    frames: bool = False,
) -> float:
    """Mean over stories of the mean cosine of a shot's even rows, pooled, with its odd ones.

    Shots with fewer than two rows (frames or clips) have no halves. Arguments as in `shuffled_floor`; with
    `frames`, each even row is compared with the odd one after it.
    """
    per_story = []
    for key in sorted(stories):
        found = []
        for array in _arrays(stories[key], store, kind, level):
            if array.ndim == 2 and len(array) >= 2:
                even, odd = array[: len(array) // 2 * 2 : 2], array[1::2]
                halves = (even, odd) if frames else (pool(array[::2]), pool(odd))
                found.append(float(np.mean(cosine(*halves))))
        per_story.append(mean(found))
    return mean(per_story)


@dataclass(frozen=True)
class Frozen:
    """A view of a store in which the frame features of each shot are all those of its first frame.

    Clip features are left as they are: those of a frozen shot cannot be had without encoding it.
    """

    store: FeatureStore

    def kinds(self) -> frozenset[str]:
        """See `FeatureStore`."""
        return self.store.kinds()

    def num_frames(self, story: str, shot: ShotKey) -> int:
        """See `FeatureStore`."""
        return self.store.num_frames(story, shot)

    def fps(self, story: str, shot: ShotKey) -> float | None:
        """See `FeatureStore`."""
        return self.store.fps(story, shot)

    def get(self, story: str, unit: Unit, kind: str) -> np.ndarray | None:
        """See `FeatureStore`."""
        array = self.store.get(story, unit, kind)
        if array is None or kind not in FRAME_KINDS:
            return array
        return np.repeat(array[:1], len(array), axis=0)

    def rows(self, story: str, shot: ShotKey, kind: str, frames: np.ndarray) -> np.ndarray | None:
        """See `FeatureStore`."""
        return self.store.rows(story, shot, kind, np.zeros_like(frames))


def frozen_score(metric: Metric, stories: Mapping[str, Story], store: FeatureStore) -> MetricScore:
    """A metric on videos frozen at their first frames."""
    views = [StoryFeatures(stories[key], Frozen(store)) for key in sorted(stories)]
    return MetricScore({v.story.key: StoryScore.of(metric.groups(v)) for v in views})


def calibrate(
    metric: Metric, score: MetricScore, stories: Mapping[str, Story], store: FeatureStore, order: str = MACRO
) -> Calibration:
    """Limits of a metric that is a cosine, and its score between them.

    Args:
        metric: what was scored.
        score: what came out.
        stories: by key; chance needs at least two.
        store: the features that were scored.
        order: of aggregation.

    Raises:
        ValueError: the metric is no cosine, so that the limits have no meaning.
    """
    if metric.unit != "cosine":
        raise ValueError(f"{metric.name} is no cosine: only cosines have a floor and a ceiling")
    kind = next(k for k in metric.needs if k != TEXT)
    level = _LEVELS.get(metric.function, SHOT)
    frames = metric.function is consistency.frame_consistency
    if metric.function in (semantic.scene_text, semantic.story_text, semantic.shot_text):
        # No video says what a perfect match with a text would be.
        floor, ceiling = shuffled_text_floor(stories, store, kind, level=level), math.nan
    else:
        floor = shuffled_floor(stories, store, kind, level=level, frames=frames)
        ceiling = split_half_ceiling(stories, store, kind, level=level, frames=frames)
    freezable = set(metric.needs) <= set(FRAME_KINDS)
    cheat = frozen_score(metric, stories, store).value(order) if freezable else math.nan
    return Calibration(score.value(order), floor, ceiling, cheat)


def _units(story: Story, store: FeatureStore, kind: str, level: str, frames: bool = False) -> np.ndarray:
    arrays = [array for array in _arrays(story, store, kind, level) if len(array)]
    rows = [np.atleast_2d(array) if frames else pool(array)[None] for array in arrays]
    return unit(np.concatenate(rows)) if rows else np.zeros((0, 0))


def _arrays(story: Story, store: FeatureStore, kind: str, level: str) -> Iterable[np.ndarray]:
    units: dict[str, list[Unit]] = {
        SHOT: [shot.key for shot in story.shots],
        SCENE: [(scene.number,) for scene in story.scenes],
        STORY: [STORY_UNIT],
    }
    for place in units[level]:
        array = store.get(story.key, place, kind)
        if array is not None:
            yield np.asarray(array, np.float64)
