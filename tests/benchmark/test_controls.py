"""Controls of a calibration: what a method that shows stills, or other stories, would get."""

from __future__ import annotations

import pytest

from benchmark.controls import frozen_numbers
from benchmark.stories import ShotKey, load_stories
from benchmark.submission import probed, read_folder
from tests.benchmark import made
from tests.pipelines.benchmark_files import write_scripts


def test_frozen_numbers_are_those_of_a_video_that_stands_still_and_are_kept(tmp_path):
    moving = made.moving(12, seed=4, size=(60, 90))
    made.video(tmp_path / "a" / "tale" / "01_01.mp4", moving)
    stories, _ = load_stories([write_scripts(tmp_path / "scripts", layout=(1,))])
    clip = probed(read_folder(tmp_path / "a", stories), stories).clips["tale"][ShotKey(1, 1)]
    numbers = frozen_numbers(clip, tmp_path / "features")
    assert (numbers.frames, numbers.freeze, numbers.motion, numbers.inner_cuts) == (12, 1.0, 0.0, ())
    assert numbers.luma == pytest.approx(moving[0].mean() / 255, abs=0.05)
    clip.path.unlink()
    assert frozen_numbers(clip, tmp_path / "features").luma == numbers.luma
