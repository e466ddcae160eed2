"""Does it show what the text says: cosine of video features and text features."""

from __future__ import annotations

import numpy as np

from benchmark.features import NOTHING, STORY_UNIT, TEXT, Group, StoryFeatures, Unit
from benchmark.functional.similarity import cosine


def scene_text(view: StoryFeatures, *, kind: str) -> list[Group]:
    """Each scene's joined frames with its joined prompts: a group of one value per scene."""
    return [
        Group(name, _alike(view, (scene.number,), kind) if view.readable(scene.shots) else NOTHING)
        for name, scene in view.scenes()
    ]


def story_text(view: StoryFeatures, *, kind: str) -> list[Group]:
    """The whole story's joined frames with its overview: one group of one value."""
    readable = view.readable(view.story.shots)
    return [Group("story", _alike(view, STORY_UNIT, kind) if readable else NOTHING)]


def shot_text(view: StoryFeatures, *, kind: str) -> list[Group]:
    """Each shot with its prompt, a group per scene."""
    return [
        Group(name, np.concatenate([_alike(view, shot.key, kind) for shot in scene.shots]))
        for name, scene in view.scenes()
    ]


def _alike(view: StoryFeatures, unit: Unit, kind: str) -> np.ndarray:
    video, text = view.pooled(unit, kind), view.get(unit, TEXT)
    return NOTHING if video is None or text is None else np.atleast_1d(cosine(video, text))
