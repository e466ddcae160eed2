"""Spans are decoded exactly, wherever they start and whatever the stream is made of."""

from __future__ import annotations

import numpy as np
import pytest

from curation.stage import BadInput
from curation.video.decode import decode_at, decode_span, fit_size, seconds, ticks
from curation.video.probe import probe
from tests.footage import film
from tests.odd_inputs import corrupt_packets

OPEN_GOP = "open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0"
STREAMS = {
    "closed.mp4": {"gop_size": 12},
    "open.mp4": {"options": {"x264-params": OPEN_GOP}},
    "open.ts": {"options": {"x264-params": OPEN_GOP}},
    "short_groups.mkv": {"options": {"x264-params": "keyint=2:min-keyint=1:bframes=1"}},
    "intra_refresh.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=24:bframes=0"}},
    "program.mpg": {"codec": "mpeg2video", "gop_size": 12, "max_b_frames": 2, "bit_rate": 2_000_000},
    "old.avi": {"codec": "mpeg4", "gop_size": 12, "max_b_frames": 2, "bit_rate": 2_000_000},
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_span_is_what_the_whole_film_shows_there(name, tmp_path):
    path = film(tmp_path / name, count=60, size=(48, 80), cut_at=35, **STREAMS[name])
    stream, _, _ = probe(str(path))
    whole = list(decode_span(str(path), stream, stream["first_pts"], None))
    pictures = {f.pts: f.to_ndarray(format="gray") for f in whole}
    pts = sorted(pictures)
    assert len(pts) == 60
    for first in range(0, 60, 7):
        last = min(first + 5, 59)
        span = list(decode_span(str(path), stream, pts[first], pts[last]))
        assert [f.pts for f in span] == pts[first:last]
        for frame in span:
            np.testing.assert_array_equal(frame.to_ndarray(format="gray"), pictures[frame.pts])


def test_a_span_may_start_between_frames(tmp_path):
    path = film(tmp_path / "film.mp4", count=30, size=(48, 80))
    stream, _, _ = probe(str(path))
    pts = [f.pts for f in decode_span(str(path), stream, 0, None)]
    assert [f.pts for f in decode_span(str(path), stream, pts[9] + 1, pts[12] + 1)] == pts[10:13]


def test_the_frame_on_screen(tmp_path):
    path = film(tmp_path / "film.mp4", count=30, size=(48, 80))
    stream, _, _ = probe(str(path))
    pts = [f.pts for f in decode_span(str(path), stream, 0, None)]
    wanted = [pts[3], pts[3] + 1, pts[8] - 1, pts[29] + 10**6]
    shown = dict(decode_at(str(path), stream, wanted))
    assert shown[0].pts == pts[3]
    assert shown[3].pts == pts[29]


def test_errors_are_handed_over_or_end_the_decoding(tmp_path):
    path = corrupt_packets(tmp_path)
    data = bytearray(path.read_bytes())
    at = len(data) * 6 // 10
    data[at : at + 4000] = bytes(4000)
    path.write_bytes(data)
    stream, _, _ = probe(str(path))
    errors: list[Exception] = []
    frames = list(decode_span(str(path), stream, 0, None, on_error=errors.append))
    assert errors
    assert 60 < len(frames) < 120
    with pytest.raises(BadInput) as caught:
        list(decode_span(str(path), stream, 0, None))
    assert caught.value.reason == "cannot_decode"


def test_time_goes_by_ticks():
    stream = {"first_pts": 300, "time_base_num": 1, "time_base_den": 90000, "height": 1080, "width": 1919}
    assert seconds(stream, 300 + 45000) == 0.5
    assert ticks(stream, 0.5) == 45300
    assert fit_size(stream, 640) == (360, 640)
