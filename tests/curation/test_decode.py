"""Spans are decoded exactly, wherever they start and whatever the stream is made of."""

from __future__ import annotations

from dataclasses import replace
from zlib import crc32

import av
import numpy as np
import pytest

from curation.engine.stage import BadInput
from curation.video import decode
from curation.video.decode import decode_at, decode_span, fit_size, seconds, ticks
from curation.video.packets import read_packets, seeks_exactly
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


PROGRAM_STREAMS = {
    "mpeg2.mpg": {"codec": "mpeg2video", "gop_size": 15, "max_b_frames": 2, "bit_rate": 3_000_000},
    "mpeg1.mpg": {"codec": "mpeg1video", "gop_size": 15, "max_b_frames": 2, "bit_rate": 1_150_000},
    "no_b_frames.vob": {"codec": "mpeg2video", "gop_size": 12, "bit_rate": 2_000_000},
    "long_groups.vob": {"codec": "mpeg2video", "gop_size": 100, "max_b_frames": 2, "bit_rate": 2_000_000},
}


@pytest.mark.parametrize("name", PROGRAM_STREAMS)
def test_program_streams_are_entered_where_that_is_exact(name, tmp_path, monkeypatch):
    path = film(tmp_path / name, count=360, size=(240, 352), cut_at=200, **PROGRAM_STREAMS[name])
    stream, segments, notes = probe(str(path), segment_s=2.0)
    assert stream["seeks_exactly"]
    assert not any("from its start" in note for note in notes)
    assert len(segments) >= 3
    whole = {f.pts: crc32(bytes(f.planes[0])) for f in decode_span(str(path), stream, 0, None)}
    pts = sorted(whole)
    seeks, first_whole = [], decode._first_whole
    monkeypatch.setattr(decode, "_first_whole", lambda *a, **k: seeks.append(k) or first_whole(*a, **k))
    for first in range(3, 340, 41):
        span = list(decode_span(str(path), stream, pts[first], pts[first + 10]))
        assert [f.pts for f in span] == pts[first : first + 10]
        assert [crc32(bytes(f.planes[0])) for f in span] == [whole[p] for p in pts[first : first + 10]]
    assert any(not k["trust"] for k in seeks), "no span was decoded from the start of the file"


def test_a_program_stream_that_seeks_elsewhere_is_read_from_its_start(tmp_path):
    path = film(tmp_path / "film.mpg", count=240, size=(240, 352), **PROGRAM_STREAMS["mpeg2.mpg"])
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        packets = read_packets(container, video)
        assert seeks_exactly(container, video, packets, [])
        late = replace(packets, pts=packets.pts + 3750)  # every frame under the next one's time
        assert not seeks_exactly(container, video, late, [])
        assert not seeks_exactly(container, video, replace(packets, unstamped=1), [])
        other = packets.key.copy()
        other[np.flatnonzero(other)[5]] = False
        assert not seeks_exactly(container, video, replace(packets, key=other), [])
    stream, _, _ = probe(str(path))
    pts = [f.pts for f in decode_span(str(path), stream, 0, None)]
    unsure = {**stream, "seeks_exactly": False}
    assert [f.pts for f in decode_span(str(path), unsure, pts[150], pts[155])] == pts[150:155]


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
