"""Weight-free numbers of shots, read as metrics."""

from __future__ import annotations

import numpy as np

from benchmark.features import Group, StoryFeatures


def shot_number(view: StoryFeatures, *, kind: str) -> list[Group]:
    """A stored number of each shot, a group per scene."""
    found = []
    for name, scene in view.scenes():
        numbers = [view.get(shot.key, kind) for shot in scene.shots]
        found.append(Group(name, np.asarray([float(n) for n in numbers if n is not None])))
    return found


def shot_count(view: StoryFeatures, *, kind: str) -> list[Group]:
    """How many entries a stored list has for each shot, a group per scene."""
    found = []
    for name, scene in view.scenes():
        lists = [view.get(shot.key, kind) for shot in scene.shots]
        found.append(Group(name, np.asarray([float(len(n)) for n in lists if n is not None])))
    return found


def boundary_below(view: StoryFeatures, *, kind: str, threshold: float) -> list[Group]:
    """Whether a number of each boundary between two shots lies below a threshold: 1 or 0, one group."""
    pairs = [*view.story.adjacent_shots(), *view.story.scene_changes()]
    numbers = [view.get(pair.second, kind) for pair in pairs]
    return [Group("story", np.asarray([float(n < threshold) for n in numbers if n is not None]))]
