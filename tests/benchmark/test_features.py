from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmark.features import FeatureError, FeatureTable, StoryFeatures
from benchmark.functional.consistency import character_shots, frame_consistency, recurrence
from benchmark.metrics import METRICS
from benchmark.sampling import Every
from benchmark.scoring import score
from benchmark.stories import ShotKey
from tests.benchmark import made

STORIES = {"tale": made.story("tale", prompts=["[Person A] runs."] * 5)}


def table():
    return made.features(STORIES, lambda _, shot: np.arange(8.0) + shot.shot, noise=0.1)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({((1, 2), "clip_b32"): np.full((17, 8), np.nan)}, "shot 01_02, clip_b32: 136 of 136 values are not"),
        ({((1, 2), "clip_b32"): np.ones((16, 8))}, "01_02, dino_b14: 17 frames, but clip_b32 has 16"),
        ({((1, 2), "viclip_24"): np.ones((3, 9))}, "width 9, but .* has 8: use one encoder"),
        ({((7, 7), "viclip_8"): np.ones(8)}, "how many frames the shot has is not known"),
    ],
)
def test_features_that_do_not_fit_are_one_line(change, line):
    arrays = dict(table().arrays) | {("tale", unit, kind): a for (unit, kind), a in change.items()}
    with pytest.raises(FeatureError, match=line):
        FeatureTable(arrays)


def test_a_feature_without_direction_is_undefined_not_zero():
    arrays = dict(table().arrays)
    arrays["tale", (1, 2), "viclip_24"] = np.zeros((3, 8))
    scored = score([METRICS["inter_shot_viclip_adjacent"]], STORIES, FeatureTable(arrays), recipe="r")
    coverage = scored.metrics["inter_shot_viclip_adjacent"].coverage()
    assert coverage == ((1, 1), (1, 2), 1, 2)


def test_intervals_in_seconds_need_rates():
    arrays = table().arrays
    view = StoryFeatures(STORIES["tale"], FeatureTable(arrays))
    groups = frame_consistency(view, kind="clip_b32", level="scene", every=Every(seconds=0.5))
    assert [len(group.units) for group in groups] == [0, 0]
    with pytest.raises(ValueError, match="is no level"):
        frame_consistency(view, kind="clip_b32", level="film", every=Every(frames=8))
    timed = score([METRICS["background_half_second"], METRICS["background"]], STORIES, table(), recipe="r")
    # 0.5 s at 16 frames a second are 8 frames
    a, b = timed.metrics.values()
    assert a == b


def test_a_shot_that_was_not_encoded_is_undefined():
    arrays = {k: a for k, a in table().arrays.items() if k[1:] != ((1, 2), "clip_b32")}
    scored = score([METRICS["background"]], STORIES, FeatureTable(arrays), recipe="r").metrics["background"]
    assert scored.coverage().groups == (1, 2)


def test_a_reviewed_map_and_how_far_apart_shots_are():
    view = StoryFeatures(STORIES["tale"], table())
    by_gap = recurrence(view, kind="viclip_24")
    assert {gap: len(values) for gap, values in by_gap.items()} == {1: 4, 2: 3, 3: 2, 4: 1}
    cast = {"Robinson": (ShotKey(1, 1), ShotKey(2, 2)), "Animal A": (ShotKey(1, 1), ShotKey(1, 2))}
    view = StoryFeatures(replace(STORIES["tale"], cast=cast), table())
    groups = character_shots(view, kind="viclip_24")
    assert [(group.name, len(group.units)) for group in groups] == [("Robinson", 1), ("Animal A", 1)]
    people = character_shots(view, kind="viclip_24", tags=("Person",))
    assert [group.name for group in people] == ["Robinson"]
    by_gap = recurrence(view, kind="viclip_24")
    assert {gap: len(values) for gap, values in by_gap.items()} == {1: 1, 4: 1}
