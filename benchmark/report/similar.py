"""Which shots look alike: matrices, drift, the split by how shots are joined, and the worst pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from benchmark.aggregate import MACRO, MetricScore, StoryScore
from benchmark.calibration import shuffled_floor
from benchmark.evaluation import Evaluation, MethodResult
from benchmark.features import Group, StoryFeatures
from benchmark.functional.consistency import adjacent_shots, recurrence, scene_changes
from benchmark.functional.similarity import cosine
from benchmark.report.measures import cell, number
from benchmark.report.schema import Drift, Matrix, Number, Split, StoryView, WorstPair
from benchmark.statistics import cell_interval
from benchmark.stories import CONTINUATION, CUT, SCENE_CHANGE, UNKNOWN, ShotKey, Story

KINDS = ("viclip_24", "viclip_8", "dino_b14", "clip_b32")
"""Features that show shots, the first that is there."""
GAPS = ((1, 1), (2, 2), (3, 4), (5, 10**6))
WORST_PER_METHOD, WORST_PER_STORY = 6, 2

Shown = Mapping[str, Mapping[str, Mapping[ShotKey, np.ndarray]]]
"""method -> story -> shot -> feature [d]."""


def similarity_kind(evaluation: Evaluation) -> str:
    """Kind of features that every method has; empty if there is none."""
    shared = [method.store.kinds() for method in evaluation.methods]
    return next((kind for kind in KINDS if shared and all(kind in kinds for kinds in shared)), "")


def shot_features(evaluation: Evaluation, kind: str) -> Shown:
    """Pooled feature of every shot that exists; controls are left out."""
    return {
        method.name: {key: _of_story(story, method, kind) for key, story in evaluation.stories.items()}
        for method in evaluation.methods
    }


def _of_story(story: Story, method: MethodResult, kind: str) -> dict[ShotKey, np.ndarray]:
    view, found = StoryFeatures(story, method.store), {}
    for shot in story.shots:
        feature = view.pooled(shot.key, kind) if view.present(shot) else None
        if feature is not None:
            found[shot.key] = feature
    return found


def mean_floor(evaluation: Evaluation, kind: str) -> Number:
    """Similarity by chance: of shots of different stories, mean of the methods."""
    floors = [number(shuffled_floor(evaluation.stories, m.store, kind)) for m in evaluation.methods]
    known = [floor for floor in floors if floor is not None]
    return math.fsum(known) / len(known) if known else None


def story_view(story: Story, shown: Shown) -> StoryView:
    """Matrices and drift of a story."""
    stems = [shot.key.stem for shot in story.shots]
    matrices = []
    for method, stories in shown.items():
        features = stories[story.key]
        rows = [
            [_alike(features, a.key, b.key) for b in story.shots]  # symmetric, but small
            for a in story.shots
        ]
        matrices.append(Matrix(method=method, stems=stems, values=rows))
    return StoryView(matrices=matrices, drift=_drift(story, shown))


def _alike(features: Mapping[ShotKey, np.ndarray], a: ShotKey, b: ShotKey) -> Number:
    if a not in features or b not in features:
        return None
    found = number(float(features[a] @ features[b]))
    return None if found is None else round(found, 4)


def _drift(story: Story, shown: Shown) -> list[Drift]:
    """A curve per character that returns, else per scene with several shots."""
    lines = {name: keys for name, keys in story.characters().items() if len(keys) >= 2}
    if not lines:
        scenes = [scene for scene in story.scenes if len(scene.shots) >= 2]
        lines = {f"scene {s.number}": tuple(shot.key for shot in s.shots) for s in scenes}
    return [
        Drift(
            name=name,
            stems=[key.stem for key in keys],
            values={m: [_alike(s[story.key], keys[0], key) for key in keys] for m, s in shown.items()},
        )
        for name, keys in lines.items()
    ]


def split(evaluation: Evaluation, kind: str) -> list[Split]:
    """Mean similarity of adjacent shots by how they are joined, and of a character's by how far apart."""
    found = []
    for method in evaluation.methods:
        views = [StoryFeatures(story, method.store) for story in evaluation.stories.values()]
        for how in (CONTINUATION, CUT, UNKNOWN):
            groups = {v.story.key: adjacent_shots(v, kind=kind, joined_by=(how,)) for v in views}
            found.append(_split(method.name, "joined", how, groups))
        changes = {v.story.key: scene_changes(v, kind=kind) for v in views}
        found.append(_split(method.name, "joined", SCENE_CHANGE, changes))
        gaps = {v.story.key: recurrence(v, kind=kind) for v in views}
        for low, high in GAPS:
            name = str(low) if low == high else f"{low}-{high}" if high < 10**6 else f"{low}+"
            groups = {key: [_gap_group(values, low, high)] for key, values in gaps.items()}
            found.append(_split(method.name, "recurrence", name, groups))
    return [one for one in found if one.pairs]


def _gap_group(values: Mapping[int, np.ndarray], low: int, high: int) -> Group:
    inside = [array for gap, array in values.items() if low <= gap <= high]
    return Group("story", np.concatenate(inside) if inside else np.zeros(0))


def _split(method: str, kind: str, name: str, groups: Mapping[str, Sequence[Group]]) -> Split:
    score = MetricScore({key: StoryScore.of(each) for key, each in groups.items()})
    interval = cell(cell_interval(score, MACRO))
    return Split(method=method, kind=kind, name=name, cell=interval, pairs=score.coverage().units)


def worst_pairs(stories: Mapping[str, Story], shown: Shown) -> list[WorstPair]:
    """The pairs that should look alike and do so least: adjacent shots of a scene, and shots of a character.

    The worst of each method, at most two of a story.
    """
    found: list[WorstPair] = []
    for method, of_stories in shown.items():
        pairs = [pair for key in stories for pair in _pairs(method, stories[key], of_stories[key])]
        taken: dict[str, int] = {}
        kept: list[WorstPair] = []
        for pair in sorted(pairs, key=lambda p: (p.similarity, p.story, p.first, p.second)):
            if taken.get(pair.story, 0) < WORST_PER_STORY and len(kept) < WORST_PER_METHOD:
                taken[pair.story] = taken.get(pair.story, 0) + 1
                kept.append(pair)
        found += kept
    return found


def _pairs(method: str, story: Story, features: Mapping[ShotKey, np.ndarray]) -> list[WorstPair]:
    why: dict[tuple[ShotKey, ShotKey], list[str]] = {}
    for pair in story.adjacent_shots():
        name = {CONTINUATION: "continuation in a scene", CUT: "cut in a scene"}.get(pair.kind, "same scene")
        why.setdefault((pair.first, pair.second), []).append(name)
    for name, keys in story.characters().items():
        for i, a in enumerate(keys):
            for b in keys[i + 1 :]:
                why.setdefault((a, b), []).append(name)
    return [
        WorstPair(
            method=method,
            story=story.key,
            first=a.stem,
            second=b.stem,
            why=", ".join(reasons),
            similarity=round(float(cosine(features[a], features[b])), 4),
        )
        for (a, b), reasons in why.items()
        if a in features and b in features and np.isfinite(cosine(features[a], features[b]))
    ]
