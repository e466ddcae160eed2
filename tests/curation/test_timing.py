"""The arithmetic of 16 frames a second against brute force with fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.timing import (
    frame_index_16fps,
    is_shown,
    num_frames_16fps,
    source_of_output,
    trim_4n1,
)


def stream(num, den):
    return {"time_base_num": num, "time_base_den": den, "first_pts": 0}


def on_screen(clock, start, pts, k):
    """Position in `pts` of the frame on screen k/16 s after `start`, from the definition."""
    tick = Fraction(clock["time_base_num"], clock["time_base_den"])
    late = tick if 1 / tick >= 500 else 0  # rounded clocks
    time = start * tick + Fraction(k, 16)
    return max(i for i, p in enumerate(pts) if p * tick - late <= time or i == 0)


CLOCKS = st.sampled_from([(1, 24), (1001, 24000), (1, 1000), (1, 90000), (1, 1000000), (1, 12288)])


@settings(max_examples=150, deadline=None)
@given(CLOCKS, st.integers(0, 10**7), st.lists(st.integers(1, 400), min_size=2, max_size=60))
def test_every_output_frame_shows_what_is_on_screen(clock, start, gaps_ms):
    clock = stream(*clock)
    second = Fraction(clock["time_base_den"], clock["time_base_num"])
    gaps = [max(1, round(g * second / 1000)) for g in gaps_ms]
    pts = start + np.concatenate([[0], np.cumsum(gaps)])
    count = num_frames_16fps(clock, start, int(pts[-1]), trim=False)
    shown = source_of_output(clock, start, pts[:-1], count)
    assert shown.tolist() == [on_screen(clock, start, pts[:-1], k) for k in range(count)]
    for i, (p, following) in enumerate(zip(pts[:-1].tolist(), pts[1:].tolist(), strict=True)):
        assert is_shown(clock, start, p, following) == (i in shown)
        if i in shown:
            assert frame_index_16fps(clock, start, p) == shown.tolist().index(i)


def test_two_of_three_frames_of_a_24_fps_film_are_shown():
    pts = np.arange(24)
    shown = source_of_output(stream(1, 24), 0, pts, 16)
    assert shown.tolist() == [0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 22]


@pytest.mark.parametrize("offset", range(16))
def test_a_16_fps_film_in_rounded_milliseconds_keeps_every_frame(offset):
    pts = np.round(np.arange(200) * 1000 / 16).astype(int)[offset:]
    shown = source_of_output(stream(1, 1000), int(pts[0]), pts, len(pts))
    assert shown.tolist() == list(range(len(pts)))


def test_no_drift_over_hours():
    clock = stream(1001, 30000)
    one_hour = 30000 * 3600 // 1001
    assert frame_index_16fps(clock, 0, one_hour) == -(-one_hour * 16 * 1001 // 30000)
    assert frame_index_16fps(clock, 10**9, 10**9 + one_hour) == frame_index_16fps(clock, 0, one_hour)


def test_count_stops_before_the_end():
    clock = stream(1, 90000)
    assert num_frames_16fps(clock, 0, 90000, trim=False) == 16  # the frame at 1 s is the next shot's
    assert num_frames_16fps(clock, 0, 90000 * 5 + 5700, trim=False) == 82
    assert num_frames_16fps(clock, 0, 90000 * 5 + 5700) == 81
    assert num_frames_16fps(stream(1, 16), 3, 3, trim=False) == 0


def test_trim_gives_4n1():
    assert [trim_4n1(n) for n in (0, 1, 4, 5, 8, 81, 84, 85)] == [0, 1, 1, 5, 5, 81, 81, 85]


def test_a_time_before_the_clip_is_refused():
    with pytest.raises(ValueError, match="before the clip"):
        frame_index_16fps(stream(1, 24), 10, 9)
