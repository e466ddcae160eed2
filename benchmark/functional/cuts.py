"""Are the cuts where the script wants them.

HoloCine's shot cut accuracy is exp(-(E_matched + E_penalty) / F_total): the distances, in frames, of detected
and requested cuts after one-to-one matching, and a penalty for each missed and each extra cut. The paper does
not say how large the penalty is, so it is an option with a name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from benchmark.features import NOTHING, Group, StoryFeatures
from benchmark.stories import CONTINUATION, CUT, SCENE_CHANGE, Scene

PENALTIES = ("mean_shot", "video", "half_mean_shot")


def penalty_frames(penalty: str | float, num_requested: int, num_frames: int) -> float:
    """Frames that a missed or extra cut costs.

    Args:
        penalty: a number of frames, or `mean_shot`: the mean requested shot length; `half_mean_shot`; or
            `video`: all frames, so that one mistake costs a factor e.
        num_requested: cuts requested.
        num_frames: of the video.

    Raises:
        ValueError: no such penalty.
    """
    if not isinstance(penalty, str):
        if not penalty >= 0:
            raise ValueError(f"a penalty cannot be {penalty}: give frames, zero or more")
        return float(penalty)
    mean_shot = num_frames / (num_requested + 1)
    known = {"mean_shot": mean_shot, "half_mean_shot": mean_shot / 2, "video": float(num_frames)}
    if penalty not in known:
        raise ValueError(f"{penalty!r} is no penalty: use a number of frames or {', '.join(PENALTIES)}")
    return known[penalty]


def match_cuts(detected: Sequence[int], requested: Sequence[int]) -> tuple[list[tuple[int, int]], float]:
    """One-to-one matching of as many cuts as possible at the least total distance.

    Returns:
        (detected, requested) frames of each matched pair in order, and the sum of their distances.
    """
    a, b = sorted(detected), sorted(requested)
    swapped = len(a) > len(b)
    few, many = (b, a) if swapped else (a, b)
    # cost[i, j]: the first i of the fewer matched among the first j of the more; in order is optimal.
    cost = np.full((len(few) + 1, len(many) + 1), np.inf)
    cost[0] = 0
    for i, frame in enumerate(few, 1):
        for j in range(i, len(many) + 1):
            cost[i, j] = min(cost[i, j - 1], cost[i - 1, j - 1] + abs(frame - many[j - 1]))
    pairs, i, j = [], len(few), len(many)
    while i:
        if cost[i, j] == cost[i, j - 1]:
            j -= 1
            continue
        pairs.append((many[j - 1], few[i - 1]) if swapped else (few[i - 1], many[j - 1]))
        i, j = i - 1, j - 1
    return pairs[::-1], float(cost[-1, -1])


def shot_cut_accuracy(
    detected: Sequence[int], requested: Sequence[int], num_frames: int, *, penalty: str | float = "mean_shot"
) -> float:
    """HoloCine's shot cut accuracy of one video, in (0, 1]; 1 is every cut in its place and none besides.

    Args:
        detected: first frames of new shots, as found.
        requested: the same, as asked for.
        num_frames: of the video; NaN comes out for none.
        penalty: see `penalty_frames`.
    """
    if num_frames < 1:
        return math.nan
    pairs, distance = match_cuts(detected, requested)
    unmatched = len(detected) + len(requested) - 2 * len(pairs)
    cost = distance + unmatched * penalty_frames(penalty, len(requested), num_frames)
    return math.exp(-cost / num_frames)


def scene_cut_accuracy(view: StoryFeatures, *, penalty: str | float = "mean_shot") -> list[Group]:
    """`shot_cut_accuracy` of each scene's joined shots against the script: a group per scene.

    A scene without all of its shots, or with a cut flag that the script lacks, has no value.
    """
    return [Group(name, _scene_accuracy(view, scene, penalty)) for name, scene in view.scenes()]


def boundary_agreement(view: StoryFeatures) -> list[Group]:
    """Whether there is a cut between two shots exactly where the script wants one: 1 or 0, one group."""
    values = []
    for pair in [*view.story.adjacent_shots(), *view.story.scene_changes()]:
        measured = view.get(pair.second, "stat_boundary_cut")
        if measured is not None and pair.kind in (CONTINUATION, CUT, SCENE_CHANGE):
            values.append(float(bool(measured) == (pair.kind != CONTINUATION)))
    return [Group("story", np.asarray(values))]


def _scene_accuracy(view: StoryFeatures, scene: Scene, penalty: str | float) -> np.ndarray:
    detected: list[int] = []
    requested: list[int] = []
    offset = 0
    for i, shot in enumerate(scene.shots):
        inside = view.get(shot.key, "stat_inner_cuts")
        boundary = view.get(shot.key, "stat_boundary_cut") if i else np.asarray(0.0)
        if inside is None or boundary is None or (i and shot.cut is None):
            return NOTHING
        if i and boundary:
            detected.append(offset)
        if i and shot.cut:
            requested.append(offset)
        detected += [offset + int(frame) for frame in inside]
        offset += view.store.num_frames(view.story.key, shot.key)
    return np.asarray([shot_cut_accuracy(detected, requested, offset, penalty=penalty)])
