from __future__ import annotations

import math

import numpy as np
import pytest

from benchmark.calibration import (
    Frozen,
    calibrate,
    calibrated,
    frozen_score,
    shuffled_floor,
    shuffled_text_floor,
    split_half_ceiling,
)
from benchmark.functional.similarity import cosine, pool
from benchmark.metrics import METRICS
from benchmark.scoring import score
from tests.benchmark import made

STORIES = {f"s{i}": made.story(f"s{i}", (2, 1)) for i in range(3)}
TABLE = made.features(
    STORIES,
    lambda story, shot: np.random.default_rng([int(story[1:]), *shot]).normal(size=8) + 1,
    noise=0.3,
)


def other_stories(level, kind_a, kind_b, a_first):
    units = {"shot": [(1, 1), (1, 2), (2, 1)], "scene": [(1,), (2,)]}[level]
    keys = list(STORIES)
    pairs = [(a, b) for a in keys for b in keys if (a < b if a_first else a != b)]
    values = [
        [
            float(cosine(pool(TABLE.get(a, u, kind_a)), pool(TABLE.get(b, v, kind_b))))
            for u in units
            for v in units
        ]
        for a, b in pairs
    ]
    return np.mean(values)


@pytest.mark.parametrize("level", ["shot", "scene"])
def test_floors_are_means_over_all_pairs_of_different_stories(level):
    floor = shuffled_floor(STORIES, TABLE, "viclip_24", level=level)
    assert floor == pytest.approx(other_stories(level, "viclip_24", "viclip_24", True), abs=1e-12)
    text = shuffled_text_floor(STORIES, TABLE, "viclip_24", level=level)
    assert text == pytest.approx(other_stories(level, "viclip_24", "text", False), abs=1e-12)


def test_one_story_has_no_floor():
    assert math.isnan(shuffled_floor({"s0": STORIES["s0"]}, TABLE, "viclip_24"))


def test_ceilings():
    clips = TABLE.get("s0", (1, 1), "viclip_24")
    one = {"s0": made.story("s0", (1,))}
    wanted = float(cosine(pool(clips[[0, 2]]), pool(clips[1])))
    assert split_half_ceiling(one, TABLE, "viclip_24") == pytest.approx(wanted)
    frames = TABLE.get("s0", (1, 1), "dino_b14")
    wanted = float(cosine(frames[0:16:2], frames[1:17:2]).mean())
    assert split_half_ceiling(one, TABLE, "dino_b14", frames=True) == pytest.approx(wanted)
    assert math.isnan(split_half_ceiling(one, TABLE, "viclip_8"))


def test_calibrated_scores():
    assert calibrated(0.5, 0.5, 0.9) == 0
    assert calibrated(0.9, 0.5, 0.9) == pytest.approx(1)
    assert math.isnan(calibrated(0.5, 0.5, 0.5))


def test_a_run_that_wins_by_freezing_is_told():
    metric = METRICS["background_within_shot"]
    scored = score([metric], STORIES, TABLE, recipe="r").metrics[metric.name]
    limits = calibrate(metric, scored, STORIES, TABLE)
    assert limits.cheat == pytest.approx(1)
    assert limits.won_by_freezing
    assert 0 < limits.calibrated < 1.5
    assert frozen_score(metric, STORIES, TABLE).coverage() == scored.coverage()
    frozen = Frozen(TABLE)
    assert (frozen.get("s0", (1, 1), "viclip_24") == TABLE.get("s0", (1, 1), "viclip_24")).all()
    assert len(np.unique(frozen.get("s0", (1, 1), "clip_b32"), axis=0)) == 1


def test_only_cosines_have_limits():
    metric = METRICS["aesthetic"]
    with pytest.raises(ValueError, match="is no cosine"):
        calibrate(metric, score([metric], STORIES, TABLE, recipe="r").metrics["aesthetic"], STORIES, TABLE)
