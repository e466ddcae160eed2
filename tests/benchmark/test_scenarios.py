"""What scores must do on videos of which the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.calibration import Frozen, calibrate
from benchmark.metrics import METRICS, columns, readings
from benchmark.scoring import score
from tests.benchmark import made

CONSISTENCY = [
    *("background", "background_video", "background_within_shot", "background_with_first"),
    *("subject_intra_shot_scene_level", "subject_intra_shot_true_shot"),
    *("inter_shot_viclip_adjacent", "inter_shot_dino_adjacent", "inter_scene", "vbench_subject"),
    *("storymem_cross_shot_overall", "storymem_cross_shot_top10", "inter_shot_character_grouped"),
]
PROMPTS = ["[Person A] runs.", "[Person A] sits.", "[Person B] runs.", "[Person B] sits.", "[Person A] is."]
STORIES = {f"s{i}": made.story(f"s{i}", prompts=PROMPTS) for i in range(4)}
SEEDS = st.integers(0, 1000)


def value(name, table, stories=STORIES):
    return score([METRICS[name]], stories, table, recipe="r").metrics[name].value()


def direction(*seed):
    return np.random.default_rng(seed).normal(size=8)


@pytest.mark.parametrize("name", CONSISTENCY)
def test_identical_shots_are_perfectly_consistent(name):
    table = made.features(STORIES, lambda story, shot: direction(int(story[1:])))
    assert value(name, table) == pytest.approx(1, abs=1e-12)


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_a_frozen_video_wins_what_looks_at_frames_of_a_shot(seed):
    table = made.features(STORIES, lambda *_: direction(seed), noise=0.3, seed=seed)
    for name in ("subject_intra_shot_true_shot", "background_within_shot", "vbench_background"):
        assert value(name, Frozen(table)) == pytest.approx(1, abs=1e-12)
        assert value(name, table) < 0.999


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_shuffled_stories_lose_consistency_and_calibrate_to_the_floor(seed):
    own = made.features(STORIES, lambda story, _: direction(seed, int(story[1:])), noise=0.2, seed=seed)
    # Each shot comes from another story than its neighbours.
    mixed = made.features(
        STORIES,
        lambda story, shot: direction(seed, (int(story[1:]) + 3 * shot.scene + shot.shot) % 4),
        noise=0.2,
        seed=seed,
    )
    for name in ("inter_shot_viclip_adjacent", "storymem_cross_shot_overall", "background"):
        assert value(name, mixed) < value(name, own)
    metric = METRICS["inter_shot_viclip_adjacent"]
    scores = score([metric], STORIES, own, recipe="r").metrics[metric.name]
    limits = calibrate(metric, scores, STORIES, own)
    assert limits.floor < limits.score <= 1
    assert limits.calibrated > 0.8
    assert np.isnan(limits.cheat)


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_swapped_identities_lose_what_is_grouped_by_character(seed):
    looks = {"A": direction(seed, 1), "B": direction(seed, 2)}
    true = made.features(
        STORIES,
        lambda _, shot: looks["AABBA"[[(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)].index(tuple(shot))]],
    )
    swapped = made.features(
        STORIES,
        lambda _, shot: looks["ABBAA"[[(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)].index(tuple(shot))]],
    )
    assert value("inter_shot_character_grouped", true) == pytest.approx(1)
    assert value("inter_shot_character_grouped", swapped) < 0.99
    assert value("storymem_cross_shot_overall", swapped) == pytest.approx(
        value("storymem_cross_shot_overall", true)
    )


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_videos_of_other_prompts_match_worse(seed):
    def own(story, shot):
        return direction(seed, int(story[1:]), *shot)

    table = made.features(STORIES, own, noise=0.1, seed=seed)
    arrays = dict(table.arrays)
    for story in STORIES.values():
        texts = [arrays[story.key, tuple(shot.key), "text"] for shot in story.shots]
        for shot, text in zip(story.shots, [*texts[1:], texts[0]], strict=True):
            arrays[story.key, tuple(shot.key), "text"] = text
    moved = type(table)(arrays)
    assert value("semantic_shot", moved) < value("semantic_shot", table)
    metric = METRICS["semantic_shot"]
    limits = calibrate(
        metric, score([metric], STORIES, table, recipe="r").metrics["semantic_shot"], STORIES, table
    )
    assert limits.floor < limits.score
    assert np.isnan(limits.calibrated)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.floats(0.1, 1e4))
def test_lengths_of_features_do_not_count(seed, factor):
    table = made.features(STORIES, lambda story, shot: direction(seed, *shot), noise=0.3, seed=seed)
    scaled = type(table)(
        {key: array * factor if key[2] != "text" else array / factor for key, array in table.arrays.items()}
    )
    for name in ("background", "semantic_story", "inter_scene", "storymem_cross_shot_top10"):
        assert value(name, scaled) == pytest.approx(value(name, table), abs=1e-9)


def test_cuts_and_continuations_are_told_apart():
    stories = {"s": made.story("s", (4,), cuts=[True, False, True, None])}
    looks = [direction(1), direction(1), direction(2), direction(3)]
    table = made.features(stories, lambda _, shot: looks[shot.shot - 1])
    scores = {n: value(n, table, stories) for n in ("inter_shot_continuations", "inter_shot_cuts")}
    cosine = float(looks[1] @ looks[2] / np.linalg.norm(looks[1]) / np.linalg.norm(looks[2]))
    assert scores["inter_shot_continuations"] == pytest.approx(1)
    assert scores["inter_shot_cuts"] == pytest.approx(cosine)


def test_a_column_has_its_default_first():
    assert [readings(column)[0].name for column in columns()][:7] == [
        *("aesthetic", "semantic_story", "semantic_shot", "background"),
        *("subject_intra_shot_scene_level", "inter_shot_viclip_adjacent", "inter_scene"),
    ]
    assert all(name == metric.name for name, metric in METRICS.items())
