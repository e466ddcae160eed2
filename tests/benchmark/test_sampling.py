from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.sampling import SAMPLERS, Every, every, lin, mid, split_joined, step
from tests.benchmark import golden

SAMPLING = golden.values("sampling.json")


@pytest.mark.parametrize("count", [24, 8])
def test_middles_of_shots(count):
    for name, wanted in SAMPLING[f"middle_{count}_shot"].items():
        story, stem = name.split("/")
        assert mid(count, golden.frames()[story, golden.key(stem)]).tolist() == wanted


def on_joined(story, scene, sample):
    keys = [
        (shot.key, n)
        for s in golden.stories()[story].scenes
        if scene is None or s.number == scene
        for shot in s.shots
        if (n := golden.frames()[story, shot.key])
    ]
    lengths = [n for _, n in keys]
    parts = split_joined(sample(lengths), lengths)
    return [[f"{k.scene}_{k.shot}", int(f)] for (k, _), part in zip(keys, parts, strict=True) for f in part]


def test_samples_of_joined_frames():
    for name, wanted in SAMPLING["middle_24_scene"].items():
        story, scene = name.split("/")
        assert on_joined(story, int(scene), lambda n: mid(24, sum(n))) == wanted
    for name, wanted in SAMPLING["every_8_scene"].items():
        story, scene = name.split("/")
        assert on_joined(story, int(scene), lambda n: every(Every(frames=8), n)) == wanted
    for story, wanted in SAMPLING["middle_8_story"].items():
        assert on_joined(story, None, lambda n: mid(8, sum(n))) == wanted


def test_samplers_of_the_papers():
    assert mid(8, 81).tolist() == [4, 14, 24, 34, 44, 54, 64, 75]
    assert lin(8, 81).tolist() == [0, 11, 22, 34, 45, 57, 68, 80]
    assert step(8, 81).tolist() == [0, 10, 20, 30, 40, 50, 60, 70]


@given(st.sampled_from(sorted(SAMPLERS)), st.integers(1, 40), st.integers(1, 300))
def test_samples_ascend_inside_the_video(name, count, length):
    frames = SAMPLERS[name](count, length)
    assert len(frames) == count
    assert frames.min() >= 0
    assert frames.max() < length
    assert (np.diff(frames) >= 0).all()
    assert len(set(frames.tolist())) == min(count, length)


def test_seconds():
    half = Every(seconds=0.5)
    assert every(half, [33], [16.0]).tolist() == [0, 8, 16, 24, 32]
    assert every(half, [31], [15.0]).tolist() == [0, 8, 15, 23, 30]
    assert every(half, [16, 15], [16.0, 15.0]).tolist() == [0, 8, 16, 24]
    with pytest.raises(ValueError, match="frame rate"):
        every(half, [33], [None])
    with pytest.raises(ValueError, match="exactly one"):
        Every(frames=8, seconds=0.5)
    with pytest.raises(ValueError, match="at least 1"):
        mid(8, 0)
    with pytest.raises(ValueError, match="of a video of 5"):
        split_joined(np.asarray([5]), [5])
