"""Scores on the shots that several methods have, where they do not lack the same ones.

A table's cell is of the shots that its method has. A comparison of such cells would compare different shots,
so differences, chances of ranks and readings are made of scores on the shared shots: what a method has and
another lacks is hidden from the metrics. A scene's or story's feature that was read off joined frames with
such a shot among them has no value then, for it cannot be made again without the videos.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmark.aggregate import Scores
from benchmark.evaluation import Evaluation, MethodResult
from benchmark.features import TEXT, FeatureStore, Unit
from benchmark.presets import all_readings, metrics_of
from benchmark.scoring import Metric, score
from benchmark.stories import ShotKey, Story

Shots = frozenset[tuple[str, ShotKey]]
"""(story, shot)."""


def lacked(method: MethodResult) -> Shots:
    """Shots of the benchmark that a method has no video of."""
    return frozenset((key, shot) for key, shot in method.submission.missing)


def lack_different_shots(methods: Sequence[MethodResult]) -> bool:
    """Whether a comparison of the methods' cells would compare different shots."""
    return len({lacked(method) for method in methods}) > 1


def shared_scores(
    evaluation: Evaluation, methods: Sequence[MethodResult], *, readings: bool = False
) -> dict[str, Scores]:
    """Method -> scores on the shots that all of these methods have; their own where they lack the same.

    Args:
        evaluation: that they are of.
        methods: to be compared.
        readings: also of every other reading of the columns, not only of the preset's.
    """
    if not lack_different_shots(methods):
        return {method.name: method.scores for method in methods}
    hidden: Shots = frozenset().union(*(lacked(method) for method in methods))
    chosen = evaluation.preset
    metrics = all_readings(chosen) if readings else metrics_of(chosen)
    return {method.name: _scored(method, hidden, metrics, evaluation) for method in methods}


def pair_scores(evaluation: Evaluation) -> Callable[[str, str], dict[str, Scores]]:
    """Scores of two methods, given by name, on the shots that both have."""
    by_name = {method.name: method for method in evaluation.methods}

    def scores(first: str, second: str) -> dict[str, Scores]:
        return shared_scores(evaluation, [by_name[first], by_name[second]])

    return scores


def _scored(method: MethodResult, hidden: Shots, metrics: Sequence[Metric], of: Evaluation) -> Scores:
    store = _Hiding(method.store, of.stories, hidden, hidden - lacked(method))
    made = score(metrics, of.stories, store, recipe=of.recipe, strict=of.preset.strict_missing)
    return replace(made, unavailable=method.scores.unavailable)


@dataclass(frozen=True)
class _Hiding:
    """A store without some shots.

    Attributes:
        store: of a method.
        stories: by key.
        hidden: shots that count for nobody.
        taken: those of them that this method has, so that they are in what was read off joined frames.
    """

    store: FeatureStore
    stories: Mapping[str, Story]
    hidden: Shots
    taken: Shots

    def kinds(self) -> frozenset[str]:
        """See `FeatureStore`."""
        return self.store.kinds()

    def num_frames(self, story: str, shot: ShotKey) -> int:
        """See `FeatureStore`."""
        return 0 if (story, ShotKey(*shot)) in self.hidden else self.store.num_frames(story, shot)

    def fps(self, story: str, shot: ShotKey) -> float | None:
        """See `FeatureStore`."""
        return self.store.fps(story, shot)

    def get(self, story: str, unit: Unit, kind: str) -> np.ndarray | None:
        """See `FeatureStore`."""
        return None if self._hides(story, unit, kind) else self.store.get(story, unit, kind)

    def rows(self, story: str, shot: ShotKey, kind: str, frames: np.ndarray) -> np.ndarray | None:
        """See `FeatureStore`."""
        return None if self._hides(story, shot, kind) else self.store.rows(story, shot, kind, frames)

    def _hides(self, story: str, unit: Unit, kind: str) -> bool:
        if kind == TEXT:
            return False
        if len(unit) < 2:  # of the joined frames of a scene, or of the story
            return any(key == story and shot[: len(unit)] == tuple(unit) for key, shot in self.taken)
        if (story, ShotKey(*unit)) in self.hidden:
            return True
        return kind.startswith("stat_boundary") and (story, self._before(story, unit)) in self.hidden

    def _before(self, story: str, unit: Unit) -> ShotKey | None:
        """The shot that a boundary's number is also of."""
        keys = [shot.key for shot in self.stories[story].shots]
        place = keys.index(ShotKey(*unit))
        return keys[place - 1] if place else None
