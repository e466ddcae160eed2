"""Does it look the same: across frames, shots, scenes, and wherever a character comes back.

Each function gives the groups of a story, one `Group` per scene, shot, story or character.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from benchmark.features import NOTHING, TEXT, Group, StoryFeatures
from benchmark.functional.similarity import adjacent, cosine, pool, with_first
from benchmark.sampling import Every
from benchmark.stories import CONTINUATION, CUT, TAGS, UNKNOWN, Shot, ShotKey

EACH_KIND = (CONTINUATION, CUT, UNKNOWN)


def frame_consistency(
    view: StoryFeatures,
    *,
    kind: str,
    level: str,
    every: Every,
    with_first_frame: bool = False,
    clamp: bool = False,
) -> list[Group]:
    """Cosine of sampled frames with the sampled frame before.

    Args:
        view: a story and its features.
        kind: of the frame features.
        level: `scene` or `story`: the frames of its shots joined, cuts included; `shot`: a group per shot;
            `shots_of_scene`: sampling restarts in each shot, a group per scene.
        every: sampling interval, from the first frame.
        with_first_frame: (cosine with the frame before + cosine with the first) / 2. The first frame is
            not compared with itself.
        clamp: negative cosines become 0, as VBench does.
    """

    def values(shots: Sequence[Shot]) -> np.ndarray:
        rows = view.sampled(shots, kind, every)
        if rows is None:
            return NOTHING
        kept: Callable[[np.ndarray], np.ndarray] = (lambda c: np.maximum(c, 0)) if clamp else (lambda c: c)
        found = kept(adjacent(rows))
        return (found + kept(with_first(rows))) / 2 if with_first_frame else found

    story = view.story
    if level == "story":
        return [Group("story", values(story.shots) if view.readable(story.shots) else NOTHING)]
    if level == "shot":
        return [Group(shot.key.stem, values([shot])) for shot in story.shots]
    if level == "shots_of_scene":
        return [
            Group(name, np.concatenate([values([shot]) for shot in scene.shots]))
            for name, scene in view.scenes()
        ]
    if level != "scene":
        raise ValueError(f"{level!r} is no level: use scene, story, shot or shots_of_scene")
    return [
        Group(name, values(scene.shots) if view.readable(scene.shots) else NOTHING)
        for name, scene in view.scenes()
    ]


def adjacent_shots(
    view: StoryFeatures, *, kind: str, every: Every | None = None, joined_by: Sequence[str] = EACH_KIND
) -> list[Group]:
    """Cosine of shots whose declared numbers follow each other, a group per scene.

    A missing shot takes its pairs with it; its neighbours are not compared with each other.

    Args:
        view: a story and its features.
        kind: clip features, pooled over the shot; or frame features, with `every`.
        every: interval at which frame features are taken before pooling.
        joined_by: which pairs count: `continuation`, `cut`, `unknown`.
    """
    features = _shot_features(view, kind, every)
    found: dict[int, list[float]] = {scene.number: [] for scene in view.story.scenes}
    for pair in view.story.adjacent_shots():
        if pair.kind in joined_by and pair.first in features and pair.second in features:
            found[pair.first.scene].append(float(cosine(features[pair.first], features[pair.second])))
    return [Group(str(number), np.asarray(values)) for number, values in found.items()]


def scene_changes(view: StoryFeatures, *, kind: str) -> list[Group]:
    """Cosine of the last shot of a scene and the first of the next: one group, the story."""
    features = _shot_features(view, kind)
    pairs = [(a, b) for a, b, _ in view.story.scene_changes() if a in features and b in features]
    return [Group("story", np.asarray([float(cosine(features[a], features[b])) for a, b in pairs]))]


def adjacent_scenes(view: StoryFeatures, *, kind: str) -> list[Group]:
    """Cosine of the pooled features of scenes whose declared numbers follow each other: one group."""
    values = []
    for a, b in view.story.adjacent_scenes() if view.readable(view.story.shots) else ():
        first, second = view.pooled((a.number,), kind), view.pooled((b.number,), kind)
        if first is not None and second is not None:
            values.append(float(cosine(first, second)))
    return [Group("story", np.asarray(values))]


def character_shots(view: StoryFeatures, *, kind: str, tags: Sequence[str] = TAGS) -> list[Group]:
    """Cosines of all pairs of shots in which a character appears, a group per character; across scenes.

    Characters that the script gives a single shot make no group.

    Args:
        view: a story and its features.
        kind: of the shots' features, pooled.
        tags: which labels count, see `Story.characters`.
    """
    features = _shot_features(view, kind)
    found = []
    for name, keys in view.story.characters(tags).items():
        if len(keys) >= 2:
            there = [features[key] for key in keys if key in features]
            values = [float(cosine(a, b)) for i, a in enumerate(there) for b in there[i + 1 :]]
            found.append(Group(name, np.asarray(values)))
    return found


def recurrence(view: StoryFeatures, *, kind: str, tags: Sequence[str] = TAGS) -> dict[int, np.ndarray]:
    """Cosines of the pairs of `character_shots` by how many shots lie between, plus one."""
    features, place = _shot_features(view, kind), {s.key: i for i, s in enumerate(view.story.shots)}
    found: dict[int, list[float]] = {}
    for keys in view.story.characters(tags).values():
        there = [key for key in keys if key in features]
        for i, a in enumerate(there):
            for b in there[i + 1 :]:
                found.setdefault(place[b] - place[a], []).append(float(cosine(features[a], features[b])))
    return {gap: np.asarray(found[gap]) for gap in sorted(found)}


def all_shots(view: StoryFeatures, *, kind: str) -> list[Group]:
    """Cosines of all unordered pairs of shots: one group, the story."""
    if not view.readable(view.story.shots):
        return [Group("story", NOTHING)]
    features = _shot_features(view, kind)
    pairs = [float(cosine(features[a], features[b])) for a, b in _pairs(features)]
    return [Group("story", np.asarray(pairs))]


def most_alike_prompts(
    view: StoryFeatures, *, kind: str, count: int | None = 10, share: float | None = None
) -> list[Group]:
    """Cosines of the pairs of shots whose prompts are most alike: one group, the story.

    Args:
        view: a story and its features.
        kind: of the shots' features, pooled.
        count: how many pairs; all if there are fewer.
        share: instead, which part of the story's pairs, rounded up: ten pairs are half of all pairs of a
            short story and a seventh of those of a long one.
    """
    features = _shot_features(view, kind)
    chosen = most_alike_pairs(view, kind=kind, count=count, share=share)
    return [Group("story", np.asarray([float(cosine(features[a], features[b])) for a, b in chosen]))]


def most_alike_pairs(
    view: StoryFeatures, *, kind: str, count: int | None = 10, share: float | None = None
) -> list[tuple[ShotKey, ShotKey]]:
    """The pairs that `most_alike_prompts` compares, the most alike first; ties in the order of the script."""
    if not view.readable(view.story.shots):
        return []
    texts = {key: view.get(key, TEXT) for key in _shot_features(view, kind)}
    known = {key: text for key, text in texts.items() if text is not None}
    pairs = [(float(cosine(known[i], known[j])), i, j) for i, j in _pairs(known)]
    if share is not None:
        count = int(np.ceil(share * len(pairs) - 1e-9))
    return [(i, j) for _, i, j in sorted(pairs, key=lambda pair: -pair[0])[:count]]


def _pairs(features: Mapping[ShotKey, object]) -> list[tuple[ShotKey, ShotKey]]:
    keys = list(features)
    return [(a, b) for i, a in enumerate(keys) for b in keys[i + 1 :]]


def _shot_features(view: StoryFeatures, kind: str, every: Every | None = None) -> dict[ShotKey, np.ndarray]:
    """Pooled feature of each shot that exists and has one, in the order of the script."""
    found = {}
    for shot in view.story.shots:
        if every is None:
            feature = view.pooled(shot.key, kind) if view.present(shot) else None
        else:
            rows = view.sampled([shot], kind, every)
            feature = None if rows is None else pool(rows)
        if feature is not None:
            found[shot.key] = feature
    return found
