from __future__ import annotations

import numpy as np
import pytest

from benchmark.features import FeatureTable
from benchmark.metrics import METRICS
from benchmark.presets import WEIGHT_FREE
from benchmark.scoring import score
from benchmark.stories import ShotKey
from benchmark.submission import Clip, probed, read_folder
from benchmark.weight_free import boundary, find_cuts, measure, measure_clips, measure_frames, story_features
from tests.benchmark import made


def one(path, pictures, **of):
    (numbers,) = measure_clips([Clip(path=made.video(path / "v.mp4", pictures, **of))])
    return numbers


def test_a_moving_and_a_frozen_shot(tmp_path):
    moving = one(tmp_path, made.moving(33))
    frozen = one(tmp_path, made.moving(1) * 33)
    assert (moving.frames, moving.duration_s) == (33, 33 / 16)
    assert (moving.freeze, frozen.freeze) == (0, 1)
    # 2 of 160 pixels a frame at 16 frames a second are 20 % of the width a second
    assert moving.motion == pytest.approx(20, rel=0.15)
    assert frozen.motion < 0.1
    assert moving.inner_cuts == frozen.inner_cuts == ()


def test_flicker_exposure_and_sharpness(tmp_path):
    plain = made.moving(24, speed=0, brightness=0.5)
    flickering = [np.clip(p.astype(int) + 10 * (i % 2), 0, 255).astype(np.uint8) for i, p in enumerate(plain)]
    a, b = one(tmp_path, plain), one(tmp_path, flickering)
    assert a.flicker < 0.1
    assert b.flicker == pytest.approx(10, rel=0.15)
    assert a.luma == pytest.approx(np.mean(plain[0]) / 255, abs=0.02)
    rising = one(tmp_path, [np.full((90, 160, 3), 60 + 4 * i, np.uint8) for i in range(24)])
    assert rising.flicker < 1
    white = one(tmp_path, [np.full((90, 160, 3), 255, np.uint8)] * 4)
    assert (white.clipped, white.luma) == (1, pytest.approx(1, abs=0.01))
    assert white.sharpness < 1 < a.sharpness


def test_cuts_inside_and_between_shots(tmp_path):
    first, second = made.moving(16, seed=1), made.moving(16, seed=2)
    path = made.video(tmp_path / "v.mp4", first + second)
    (whole,) = measure_clips([Clip(path=path)])
    assert whole.inner_cuts == (16,)
    assert whole.freeze == 0
    a, b = measure_clips([Clip(path=path, end=16), Clip(path=path, start=16)])
    assert (a.frames, b.frames, a.inner_cuts, b.inner_cuts) == (16, 16, (), ())
    cut, step = boundary(a, b)
    assert cut
    assert step > 20
    a, b = measure_clips([Clip(path=path, end=8), Clip(path=path, start=8, end=16)])
    assert not boundary(a, b)[0]


def test_the_rule_for_cuts():
    calm, wild = [1.0] * 6, [6.0] * 6
    assert find_cuts(np.asarray([*calm, 30.0, *calm])) == (7,)
    assert find_cuts(np.asarray([*calm, 14.0, *wild])) == (7,)
    assert find_cuts(np.asarray([*wild, 14.0, *wild])) == ()
    assert find_cuts(np.asarray([*calm, 20.0, 40.0, *calm])) == (8,)
    assert find_cuts(np.asarray([*calm, 8.0, *calm])) == ()
    assert find_cuts(np.zeros(0)) == ()


def test_a_shot_of_one_frame_has_what_it_can_have():
    picture = made.moving(1)[0]
    numbers = measure_frames([(picture[..., 0], picture[:27, :48])], 16.0)
    assert numbers.frames == 1
    assert set(numbers.features()) == {
        *("stat_luma", "stat_clipped", "stat_sharpness", "stat_duration_s", "stat_inner_cuts")
    }


def test_a_method_from_files_to_scores(tmp_path):
    stories = {"tale": made.story(cuts=[True, False, True, True, False])}
    walk = made.moving(40, seed=3)
    shots = {"01_01": walk[:16], "01_02": walk[15:31], "01_03": made.moving(16, seed=4)}
    for stem, pictures in {**shots, "02_01": made.moving(16, seed=5)}.items():
        made.video(tmp_path / f"tale/{stem}.mp4", pictures)
    (tmp_path / "tale/02_02.mp4").write_bytes(b"broken")
    submission = probed(read_folder(tmp_path, stories), stories)
    numbers, faults = measure(submission)
    assert faults == []
    arrays = story_features(stories["tale"], numbers["tale"])
    frames = {("tale", tuple(k)): n.frames for k, n in numbers["tale"].items()}
    table = FeatureTable(arrays, frames=frames)
    scores = score([*METRICS.values()], stories, table, recipe="r")
    assert set(WEIGHT_FREE) <= set(scores.metrics)
    assert scores.unavailable["background"] == "needs clip_b32"
    assert scores.metrics["cut_accuracy"].value() == 1
    assert scores.metrics["cut_accuracy"].coverage().units == 3
    # the second shot repeats the last frame of the first
    assert scores.metrics["duplicate_boundaries"].value() == pytest.approx(1 / 3)
    assert scores.metrics["holocine_sca"].coverage().groups == (1, 2)
    assert scores.metrics["holocine_sca"].value() == 1
    assert scores.metrics["duration_s"].value() == 1.0


def test_a_file_that_breaks_is_one_line(tmp_path):
    stories = {"tale": made.story(layout=(1,))}
    path = made.video(tmp_path / "tale/01_01.mp4", made.moving(5))
    submission = read_folder(tmp_path, stories)
    path.write_bytes(b"gone")
    numbers, faults = measure(submission)
    assert numbers == {}
    assert len(faults) == 1
    assert "\n" not in faults[0]
    made.video(path, made.moving(5))
    clips = {"tale": {ShotKey(1, 1): Clip(path=path, start=9, end=12)}}
    assert "mend the declared range" in measure(type(submission)(method="m", clips=clips))[1][0]
