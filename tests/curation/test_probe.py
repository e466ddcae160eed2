"""Facts that a probe reads from packets, and the segments of the scan."""

from __future__ import annotations

import itertools

import av
import numpy as np
import pytest

from curation.engine.stage import BadInput
from curation.video.packets import Packets, is_vfr, segments
from curation.video.probe import probe
from tests.footage import add_video, encode, film, pictures
from tests.support import shared


def packets(key_pts, all_pts) -> Packets:
    pts = np.array(all_pts)
    return Packets(pts, np.zeros_like(pts), np.isin(pts, key_pts))


def stream(first=0, container="mp4"):
    return {"time_base_num": 1, "time_base_den": 1000, "first_pts": first, "container": container}


@pytest.mark.parametrize(
    ("steps", "varies"),
    [
        ([40] * 100, False),
        ([41, 42] * 100, False),  # 24 frames a second in whole milliseconds
        ([40] * 400 + [80], False),  # one dropped frame
        ([33, 50] * 50, True),
        ([16] * 50 + [33] * 50, True),
        ([], False),
    ],
)
def test_frame_rate_varies_beyond_rounding(steps, varies):
    assert is_vfr(np.array(steps)) is varies


def test_segments_start_at_key_frames_and_tile():
    found = segments(packets([0, 700, 1500, 2100, 4000], range(0, 5000, 100)), stream(), 1.0)
    assert [(s["start_pts"], s["end_pts"]) for s in found] == [(0, 1500), (1500, 4000), (4000, None)]
    assert [s["index"] for s in found] == [0, 1, 2]


def test_segments_count_from_the_first_shown_frame():
    found = segments(packets([-500, 0, 900, 1600], range(-500, 2000, 100)), stream(first=100), 1.0)
    assert [s["start_pts"] for s in found] == [100, 1600]


def test_a_stream_that_cannot_be_entered_is_one_segment():
    assert len(segments(packets([0, 1000, 2000], [0, 1000, 2000]), stream(container="mpeg"), 0.5)) == 1


def test_a_film_is_probed(tmp_path):
    path = film(tmp_path / "film.mp4", count=50, size=(90, 161 - 1), gop_size=12)
    row, parts, notes = probe(str(path), segment_s=0.5)
    assert (row["width"], row["height"], row["fps"]) == (160, 90, pytest.approx(24))
    assert (row["num_packets"], row["duration_s"]) == (50, pytest.approx(50 / 24))
    assert (row["codec"], row["pix_fmt"], row["bit_depth"]) == ("h264", "yuv420p", 8)
    assert not row["vfr"]
    assert not row["interlaced"]
    assert notes == []
    assert len(parts) == 4
    for a, b in itertools.pairwise(parts):
        assert a["end_pts"] == b["start_pts"]


def test_a_short_film_is_cut_finer(tmp_path):
    path = film(tmp_path / "film.mp4", count=24 * 24, size=(48, 80), gop_size=24)
    assert len(probe(str(path))[1]) == 1
    assert len(probe(str(path), min_segments=3)[1]) == 3
    assert len(probe(str(path), min_segments=100)[1]) == 5  # not under 5 s


def test_the_larger_of_two_default_streams_is_the_film():
    row, _, notes = probe(str(shared("clips/nasa_13013.mp4")))
    assert (row["stream_index"], row["width"], row["height"]) == (3, 480, 270)
    assert notes == ["video stream 0 (320x180) ignored", "2 soft subtitle stream(s) ignored"]


@pytest.mark.parametrize("extension", ["flv", "avi", "webm", "mkv"])
def test_an_early_end_is_seen_by_the_declared_duration(extension, tmp_path):
    codec = {"avi": "mpeg4", "webm": "libvpx-vp9"}.get(extension, "libx264")
    options = {"deadline": "realtime", "cpu-used": "8"} if extension == "webm" else {}
    path = film(tmp_path / f"film.{extension}", count=120, codec=codec, options=options)
    probe(str(path))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.5)])
    with pytest.raises(BadInput) as caught:
        probe(str(path))
    assert caught.value.reason == "truncated"


def test_longer_sound_is_no_truncation(tmp_path):
    path = tmp_path / "long_sound.mkv"
    with av.open(str(path), "w") as container:
        video = add_video(container, (90, 160))
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        encode(container, video, pictures(24, (90, 160)))
        for k in range(50):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), "s16", "mono")
            frame.sample_rate, frame.pts = 8000, 1600 * k
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    row, _, _ = probe(str(path))
    assert row["duration_s"] == pytest.approx(1.0, abs=0.01)


def test_a_playlist_is_no_film(tmp_path):
    film(tmp_path / "part.ts", count=24)
    path = tmp_path / "list.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\npart.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(BadInput) as caught:
        probe(str(path))
    assert caught.value.reason == "not_a_video"


def test_frames_out_of_order_are_refused(tmp_path):
    path = film(tmp_path / "old.avi", count=48)  # H.264 with B-frames: AVI has no presentation times
    with pytest.raises(BadInput) as caught:
        probe(str(path))
    assert caught.value.reason == "broken_timestamps"
    assert "ffmpeg" in caught.value.detail
