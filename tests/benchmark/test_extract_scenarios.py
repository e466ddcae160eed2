"""Videos of which the answer is known, from pixels to scores, with small encoders; controls made of them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmark.calibration import calibrate
from benchmark.controls import frozen, name_of, rearranged
from benchmark.extraction.controls import reversed_order, shuffled, swapped_identities
from benchmark.extraction.run import extract
from benchmark.metrics import METRICS
from benchmark.presets import all_readings, preset
from benchmark.scoring import score
from benchmark.stories import ShotKey
from tests.benchmark import extracting, made

MEMENTO = preset("memento")
A, B = "[Person A] runs.", "[Person B] sits."
STORIES = {f"s{i}": made.story(f"s{i}", (3, 2), prompts=[A, A, B, B, A]) for i in range(3)}
WHO = {(1, 1): 1, (1, 2): 1, (1, 3): 2, (2, 1): 2, (2, 2): 1}
"""Shot -> whose looks it shows."""
CONSISTENCY = ("background", "subject_intra_shot_scene_level", "inter_shot_viclip_adjacent", "inter_scene")


def look(*seed, speed=1):
    """A shot of 17 frames; equal seeds give equal places."""
    return made.moving(17, seed=sum(n * 31**i for i, n in enumerate(seed)), speed=speed)


def scored(root, shot):
    return of_method(extracting.method(root / "m", STORIES, shot), root / "f")


def of_method(submission, folder):
    store, work, faults = extract(submission, STORIES, MEMENTO, extracting.encoders(), folder)
    assert faults == ()
    return store, values(store), submission, folder, work


def values(store):
    found = score(all_readings(MEMENTO), STORIES, store, recipe="r").metrics
    return {name: metric.value() for name, metric in found.items()}


def control(plain, name):
    """A control that shows the same videos in other places."""
    _, _, submission, folder, _ = plain
    (moved,) = (one for one in rearranged(submission, STORIES) if one.method == name_of("m", name))
    _, found, _, _, work = of_method(moved, folder)
    assert work.encoded["clip_l14"] == work.encoded["clip_b32"] == 0
    assert 0 < work.reused["clip_l14"] <= plain[4].encoded["clip_l14"]
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Each story has its place, characters have looks of their own in it."""
    return scored(tmp_path_factory.mktemp("plain"), lambda s, key: look(int(s[1:]) * 7, WHO[key]))


def test_identical_shots_are_perfectly_consistent(tmp_path):
    _, found, *_ = scored(tmp_path, lambda s, key: look(int(s[1:]), speed=0))
    for name in (
        *CONSISTENCY,
        "background_video",
        "inter_shot_dino_adjacent",
        "inter_shot_character_grouped",
    ):
        assert found[name] == pytest.approx(1, abs=1e-3), name
    assert found["duplicate_boundaries"] == 1
    assert found["freeze"] == 1


def test_frozen_videos_win_inside_shots_only(plain, tmp_path):
    _, ice, *_ = scored(tmp_path, lambda s, key: look(int(s[1:]) * 7, WHO[key])[:1] * 17)
    for name in ("subject_intra_shot_true_shot", "background_within_shot"):
        assert ice[name] == pytest.approx(1, abs=1e-3)
        assert plain[1][name] < ice[name]
    assert (ice["freeze"], plain[1]["freeze"]) == (1, 0)
    assert ice["motion"] < 0.1 < plain[1]["motion"]
    assert ice["inter_shot_viclip_adjacent"] < 0.999
    # The control says the same of what it can say, without a new video.
    store, _, submission, folder, _ = plain
    found = values(frozen(submission, STORIES, store, folder)[1])
    for name in ("subject_intra_shot_true_shot", "background", "subject_intra_shot_scene_level", "freeze"):
        assert found[name] == pytest.approx(ice[name], abs=2e-3), name
    assert np.isnan(found["inter_shot_viclip_adjacent"])


def test_shuffled_stories_lose_consistency(plain):
    found = control(plain, "shuffled")
    store, own, *_ = plain
    names = ("background", "inter_shot_viclip_adjacent", "inter_shot_dino_adjacent", "inter_scene")
    for name in names:
        assert found[name] < own[name], name
    assert found["background_within_shot"] == pytest.approx(own["background_within_shot"], abs=0.05)
    metric = METRICS["inter_shot_viclip_adjacent"]
    own_score = score([metric], STORIES, store, recipe="r").metrics[metric.name]
    limits = calibrate(metric, own_score, STORIES, store)
    assert limits.floor < limits.score


def test_swapped_identities_lose_what_is_grouped_by_character(plain):
    found = control(plain, "swapped identities")
    name = "inter_shot_character_grouped"
    assert plain[1][name] == pytest.approx(1, abs=1e-3)
    assert found[name] < plain[1][name] - 0.05
    assert found["aesthetic"] == pytest.approx(plain[1]["aesthetic"], rel=0.05)
    source = swapped_identities(STORIES, plain[0])
    assert {tuple(shot) for _, shot in source} == {(1, 1), (1, 3)}


def test_reversed_order_keeps_adjacent_shots_and_loses_the_script(plain):
    found, own = control(plain, "reversed"), plain[1]
    assert found["background_video"] == pytest.approx(own["background_video"], abs=0.02)
    assert found["semantic_shot"] != own["semantic_shot"]
    assert found["luma"] == pytest.approx(own["luma"], rel=0.05)
    assert reversed_order(STORIES, plain[0])["s0", ShotKey(1, 1)] == ("s0", ShotKey(2, 2))


def test_where_videos_of_shuffled_stories_are_from(plain):
    source = shuffled(STORIES, plain[0])
    assert all(story != other for (story, _), (other, _) in source.items())
    two = dict(list(STORIES.items())[:2])
    for stories in (STORIES, two):
        source = shuffled(stories, plain[0])
        for story in stories.values():
            for pair in story.adjacent_shots():
                assert source[story.key, pair.first][0] != source[story.key, pair.second][0]
    assert shuffled({"s0": STORIES["s0"]}, plain[0]) == {}
    assert swapped_identities({"s0": made.story("s0", (3, 2))}, plain[0]) == {}
