"""Does it look good: outputs of an aesthetic head on every frame, put on the scale a paper prints.

Raw outputs are stored; a paper's scale is one affine map. Nothing is clipped.
"""

from __future__ import annotations

import numpy as np

from benchmark.features import NOTHING, Group, StoryFeatures
from benchmark.sampling import Every
from benchmark.stories import Shot


def frame_scores(
    view: StoryFeatures, *, kind: str, offset: float, divisor: float, stride: int = 1
) -> list[Group]:
    """(raw - offset) / divisor of every stride-th frame of each shot, a group per scene."""
    return [
        Group(name, np.concatenate([_scores(view, s, kind, offset, divisor, stride) for s in scene.shots]))
        for name, scene in view.scenes()
    ]


def shot_scores(
    view: StoryFeatures, *, kind: str, offset: float, divisor: float, stride: int = 1
) -> list[Group]:
    """Mean of `frame_scores` over each shot, a group per scene."""
    found = []
    for name, scene in view.scenes():
        scores = [_scores(view, shot, kind, offset, divisor, stride) for shot in scene.shots]
        found.append(Group(name, np.asarray([float(s.mean()) for s in scores if len(s)])))
    return found


def _scores(
    view: StoryFeatures, shot: Shot, kind: str, offset: float, divisor: float, stride: int
) -> np.ndarray:
    raw = view.sampled([shot], kind, Every(frames=stride))
    return NOTHING if raw is None else (raw - offset) / divisor
