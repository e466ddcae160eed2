"""decord gives PyAV's frames under PyAV's timestamps, or refuses in one line."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest

from curation.engine.stage import BadInput
from curation.optional import MissingExtra
from curation.stages.analyse import Analyse
from curation.video import decord_frames
from curation.video.decode import decode_span, fit_size, to_bgr
from curation.video.decord_frames import REASON, decord_span
from curation.video.probe import probe
from tests.curation.test_decode import STREAMS
from tests.footage import film
from tests.odd_inputs import ODD
from tests.support import shared


@pytest.fixture
def decord():
    return pytest.importorskip("decord")


def difference(a, b):
    return float(np.abs(a.astype(np.int16) - b).mean())


def is_refused(stream):
    return stream["rotation"] != 0 or stream["container"] in ("avi", "mpegts", "mpeg")


def compared(path, stream, start, end, most=None):
    """Difference of each frame of a span, after checking that both decoders have the same timestamps."""
    ours = itertools.islice(decode_span(str(path), stream, start, end), most)
    theirs = itertools.islice(decord_span(str(path), stream, start, end), most)
    out = []
    for a, b in itertools.zip_longest(ours, theirs):
        assert a.pts == b.pts
        out.append(difference(to_bgr(a, stream), to_bgr(b, stream)))
    return out


@pytest.mark.parametrize(
    "name",
    [
        "films/bbb_486p_first300s.mp4",
        "films/sintel_trailer_480x204.mp4",
        "films/sintel_letterbox_26s.mp4",
        "clips/friday_cc0.mp4",
        "clips/nasa_13013.mp4",
        "clips/vsr_subtitled_woman.mp4",
    ],
)
def test_frames_of_real_films_are_equal(decord, name):
    path = shared(name)
    stream, _, _ = probe(str(path))
    second = stream["time_base_den"] // stream["time_base_num"]
    middle = stream["first_pts"] + int(stream["duration_s"] / 2 * second)
    apart = compared(path, stream, middle, middle + 2 * second)
    assert len(apart) >= 40
    assert max(apart) == 0.0


def test_small_pictures_differ_by_the_order_of_scaling(decord):
    path = shared("clips/juggle_oneshot.mp4")
    stream, _, _ = probe(str(path))
    size = fit_size(stream, 640)
    assert size != (stream["height"], stream["width"])
    ours = itertools.islice(decode_span(str(path), stream, 0, None), 0, 60, 10)
    theirs = itertools.islice(decord_span(str(path), stream, 0, None), 0, 60, 10)
    apart = [
        difference(to_bgr(a, stream, size), to_bgr(b, stream, size))
        for a, b in zip(ours, theirs, strict=True)
    ]
    assert len(apart) == 6
    assert max(apart) < 2.5


@pytest.mark.parametrize("name", [n for n, odd in ODD.items() if odd.outcome == "ok" and n != "one hour"])
def test_odd_films_are_equal_or_refused(decord, name, tmp_path):
    path = ODD[name].make(tmp_path)
    stream, _, _ = probe(str(path))
    if name == "corrupt packets" or is_refused(stream):
        with pytest.raises(BadInput) as caught:
            compared(path, stream, stream["first_pts"], None)
        assert caught.value.reason in (REASON, "cannot_decode")
        return
    apart = compared(path, stream, stream["first_pts"], None)
    limit = 0.8 if stream["interlaced"] or stream["bit_depth"] > 8 else 0.0
    assert max(apart) <= limit


@pytest.mark.parametrize("name", STREAMS)
def test_a_span_far_inside_is_the_right_one(decord, name, tmp_path):
    path = film(tmp_path / name, count=100, size=(48, 80), cut_at=50, **STREAMS[name])
    stream, _, _ = probe(str(path))
    every = [f.pts for f in decode_span(str(path), stream, stream["first_pts"], None)]
    if is_refused(stream):
        with pytest.raises(BadInput, match=f"in {stream['container']} files; set analyse.decoder to pyav"):
            compared(path, stream, every[70], every[90])
        return
    assert compared(path, stream, every[70], every[90]) == [0.0] * 20
    assert compared(path, stream, every[20], every[23]) == [0.0] * 3


def test_a_frame_is_converted_only_when_it_is_wanted(decord, tmp_path, monkeypatch):
    path = film(tmp_path / "film.mp4", count=60)
    stream, _, _ = probe(str(path))
    made = []
    make = decord_frames.LazyFrame._picture
    monkeypatch.setattr(decord_frames.LazyFrame, "_picture", lambda f: made.append(f.pts) or make(f))
    frames = list(decord_span(str(path), stream, stream["first_pts"], None))
    assert len(frames) == 60
    assert made == [frames[0].pts], "only the one that is checked"


def test_another_picture_or_time_is_refused(decord, tmp_path, monkeypatch):
    path = film(tmp_path / "film.mp4", count=60)
    stream, _, _ = probe(str(path))
    with pytest.raises(BadInput, match="sees 320x180, not 640x180"):
        list(decord_span(str(path), {**stream, "width": 640}, 0, None))
    with pytest.raises(BadInput, match="from where they are"):
        list(decord_span(str(path), {**stream, "time_base_num": 2}, 0, None))
    with pytest.raises(BadInput, match="URLs"):
        list(decord_span("s3://bucket/film.mp4", stream, 0, None))
    real = decord_frames.to_bgr
    shifted = lambda frame, s: real(frame, s) // (1 + isinstance(frame, decord_frames.LazyFrame))  # noqa: E731
    monkeypatch.setattr(decord_frames, "to_bgr", shifted)
    with pytest.raises(BadInput, match="another picture"):
        list(decord_span(str(path), stream, 0, None))


def test_analysis_with_it_sees_the_same_frames(decord, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    from tests.curation.tiny_film import sequence_row, shots_of, write_film
    from tests.support import scratch

    path = write_film(tmp_path / "film.mp4", shots_of([24, 20]))
    row = {**sequence_row(path, [(0, 24), (24, 44)]), "film_id": "film"}
    seen = {}
    for decoder in ("pyav", "decord"):
        folder = scratch(tmp_path, decoder)
        out = Analyse(decoder=decoder, detector="opencv", track_fps=2).worker()(row, folder)
        folder.commit()
        text = pq.read_table(folder.open(out["text_boxes"]), columns=["clip_index", "frame", "pts"])
        seen[decoder] = (text.to_pylist(), out["analysed_frames"], folder.counters)
    assert seen["pyav"] == seen["decord"]
    assert seen["decord"][2]["decoded_frames"] == 44


def test_what_to_install_is_said_before_anything_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(MissingExtra, match=r"pip install -e .*\[decord\]"):
        Analyse(decoder="decord").fingerprint()
    with pytest.raises(MissingExtra, match=r"pip install -e .*\[decord\]"):
        Analyse(decoder="decord").worker()
    with pytest.raises(ValueError, match="pyav, decord"):
        Analyse(decoder="ffmpeg")
