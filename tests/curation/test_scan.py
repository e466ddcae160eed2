"""The scan measures what it says, in any pixel format, and segments merge exactly."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest

from curation import rows
from curation.engine.runner import run
from curation.engine.stage import FAILED, KEPT, BadInput, plan
from curation.engine.store import Store
from curation.shots import measure
from curation.shots.signals import Signals
from curation.stages.ingest import Identify, Ingest
from curation.stages.scan import Scan, ToFilms, ToSegments, scan
from curation.stages.titles import Titles
from curation.video.decode import decode_span, to_bgr
from curation.video.probe import probe
from tests.curation.test_decode import STREAMS
from tests.curation.tiny_film import shots_of, write_interlaced
from tests.footage import add_video, encode, film, pictures
from tests.odd_inputs import corrupt_packets, rotated
from tests.support import scratch

X265 = {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:keyint=12:open-gop=1"}


def whole(stream):
    return {"index": 0, "start_pts": stream["first_pts"], "end_pts": None}


def scanned(path, **more):
    stream, _, _ = probe(str(path))
    return scan(str(path), stream, whole(stream), **more)


def assert_same(a: Signals, b: Signals) -> None:
    for field in fields(Signals):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), err_msg=field.name)


@pytest.mark.parametrize("name", [*STREAMS, "hevc.mp4"])
def test_segments_merge_to_the_unsplit_scan(name, tmp_path):
    more = STREAMS.get(name, {"codec": "libx265", "options": X265})
    path = film(tmp_path / name, count=100, size=(48, 80), cut_at=50, **more)
    stream, segments, _ = probe(str(path), segment_s=0.4)
    assert len(segments) > 3
    options = {"skip_loop_filter": "all"}
    parts = [scan(str(path), stream, segment, options=options)[0] for segment in segments]
    one, tally = scan(str(path), stream, whole(stream), options=options)
    assert (len(one), tally.frames, tally.errors) == (100, 100, 0)
    assert_same(Signals.concat(parts), one)


def test_an_interlaced_film_leaves_both_fields_and_no_other_does(tmp_path):
    path = write_interlaced(tmp_path / "i.mkv", shots_of([61, 35]), "tff")
    stream, segments, _ = probe(str(path))
    one, _ = scan(str(path), stream, whole(stream))
    middle = int(one.pts[40])
    spans = [{**segments[0], "end_pts": middle}, {**segments[0], "start_pts": middle}]
    assert_same(Signals.concat([scan(str(path), stream, span)[0] for span in spans]), one)
    assert one.lower_u8.shape == one.thumbs_u8.shape
    apart = np.abs(one.lower_u8.astype(int) - one.thumbs_u8).mean(axis=(1, 2))
    assert np.argmax(apart) == 30
    assert apart[30] > 20
    assert np.delete(apart, 30).max() < 5
    assert one.span(29, 31).lower_u8.tolist() == one.lower_u8[29:31].tolist()
    progressive, _ = scanned(film(tmp_path / "p.mp4", count=24))
    assert len(progressive.lower_u8) == 0


def test_a_scan_says_what_straightforward_arithmetic_says(tmp_path):
    path = film(tmp_path / "film.mp4", count=40, size=(180, 320), cut_at=17)
    signals, _ = scanned(path)
    stream, _, _ = probe(str(path))
    frames = list(decode_span(str(path), stream, 0, None))
    np.testing.assert_array_equal(signals.pts, [f.pts for f in frames])
    hsv = [cv2.cvtColor(to_bgr(f, stream)[2::5, 2::5], cv2.COLOR_BGR2HSV).astype(int) for f in frames]
    change = np.array([np.abs(b - a).mean(axis=(0, 1)) for a, b in pairwise(hsv)])
    assert np.isnan(signals.content[0]).all()
    # chroma is nearest here and interpolated by the scaler there
    np.testing.assert_allclose(signals.content[1:], change, atol=3)
    assert np.argmax(signals.content[1:].sum(axis=1)) == 16
    grey = np.stack([cv2.cvtColor(to_bgr(f, stream), cv2.COLOR_BGR2GRAY) for f in frames])
    np.testing.assert_allclose(signals.luma[:, 0], grey.mean(axis=(1, 2)), atol=2)
    np.testing.assert_allclose(signals.luma[:, 1], grey.std(axis=(1, 2)), atol=3)
    small = np.stack([cv2.resize(g, (32, 18), interpolation=cv2.INTER_AREA) for g in grey])
    assert np.abs(signals.thumbs_u8.astype(int) - small).mean() < 4
    laplacian = cv2.Laplacian(grey[0], cv2.CV_64F).var()
    assert signals.sharpness[0] == pytest.approx(laplacian, rel=0.25)
    np.testing.assert_array_equal(signals.key_frame, [0, 12, 24, 36])


FORMATS = {
    "422 10 bit": {"codec": "libx265", "pix_fmt": "yuv422p10le", "options": X265},
    "full range": {"codec": "mjpeg", "pix_fmt": "yuvj422p"},
    "444": {"pix_fmt": "yuv444p"},
    "10 bit": {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": X265},
    "12 bit 444": {"codec": "libx265", "pix_fmt": "yuv444p12le", "options": X265},
    "rgb": {"codec": "libx264rgb", "pix_fmt": "rgb24", "options": {"crf": "10"}},
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_pixel_format_gives_the_same_signals(name, tmp_path):
    reference, _ = scanned(film(tmp_path / "reference.mkv", count=24, options={"crf": "10"}))
    signals, _ = scanned(film(tmp_path / "film.mkv", count=24, **FORMATS[name]))
    np.testing.assert_allclose(signals.luma[:, 0], reference.luma[:, 0], atol=2)
    np.testing.assert_allclose(signals.luma[:, 2], reference.luma[:, 2], atol=4)
    assert np.abs(signals.thumbs_u8.astype(int) - reference.thumbs_u8).mean() < 3
    assert np.abs(signals.edges_hsv[..., 2].astype(int) - reference.edges_hsv[..., 2]).mean() < 5


def test_grey_has_no_colour(tmp_path):
    signals, _ = scanned(film(tmp_path / "grey.mkv", count=24, codec="libx264", pix_fmt="gray"))
    assert signals.edges_hsv[..., 1].max() == 0
    assert signals.luma[0, 1] > 5


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_thumbs_are_upright(quarter, tmp_path):
    path = rotated(quarter)(tmp_path)
    signals, _ = scanned(path)
    wanted = np.rot90(next(pictures(1)), -quarter)
    wanted = cv2.resize(cv2.cvtColor(wanted, cv2.COLOR_BGR2GRAY), (32, 18), interpolation=cv2.INTER_AREA)
    assert np.abs(signals.thumbs_u8[0].astype(int) - wanted).mean() < 8


def test_bars_turn_with_the_picture():
    assert measure.turn_bars((1, 2, 3, 4), 0) == (1, 2, 3, 4)
    picture = np.full((40, 60), 200, np.uint8)
    picture[:5], picture[-7:], picture[:, :9], picture[:, -11:] = 0, 0, 0, 0
    found = measure.bars(picture, black=0, scale=1.0)
    assert found == (5, 7, 9, 11)
    for turns in range(4):
        turned = np.ascontiguousarray(np.rot90(picture, turns))
        assert measure.turn_bars(found, turns) == measure.bars(turned, black=0, scale=1.0)


def test_bars_need_black_and_flat_lines():
    rng = np.random.default_rng(0)
    dark = rng.integers(0, 40, (90, 160)).astype(np.uint8)
    assert measure.bars(dark, black=0, scale=1.0) == (0, 0, 0, 0)
    boxed = np.full((90, 160), 16, np.uint8)
    boxed[12:-12] = rng.integers(30, 200, (66, 160))
    noisy = boxed + rng.integers(0, 5, boxed.shape).astype(np.uint8)
    assert measure.bars(noisy, black=16, scale=219 / 255) == (12, 12, 0, 0)
    assert measure.bars(np.zeros((90, 160), np.uint8), black=0, scale=1.0) == (90, 90, 160, 160)


def test_letterbox_is_measured_through_the_codec(tmp_path):
    def boxed():
        for picture in pictures(24, (180, 320)):
            picture[:24], picture[-20:] = 0, 0
            yield picture

    path = tmp_path / "boxed.mp4"
    with av.open(str(path), "w") as container:
        encode(container, add_video(container, (180, 320)), boxed())
    signals, _ = scanned(path, options={"skip_loop_filter": "all"})
    top, bottom, left, right = signals.bars.min(axis=0)
    assert 22 <= top <= 24
    assert 18 <= bottom <= 20
    assert (left, right) == (0, 0)


def test_corrupt_packets_do_not_lose_the_film(tmp_path):
    path = corrupt_packets(tmp_path)
    data = bytearray(path.read_bytes())
    at = len(data) * 6 // 10
    data[at : at + 4000] = bytes(4000)
    path.write_bytes(data)
    signals, tally = scanned(path)
    assert tally.errors > 0
    assert 60 < len(signals) < 120
    assert 0 < signals.corrupt.sum() < len(signals)
    assert (np.diff(signals.pts) > 0).all()


def test_stage_writes_counts_and_repeats_itself(tmp_path):
    path = film(tmp_path / "film.mp4", count=48)
    stream, segments, _ = probe(str(path))
    row = {"film_id": "f", "stream": stream, "segment": segments[0], "path": str(path)}
    bytes_ = []
    for name in ("a", "b"):
        folder = scratch(tmp_path / name)
        out = Scan().worker()(row, folder)
        assert folder.counters == {"decoded_frames": 48, "decoded_s": pytest.approx(2.0)}
        folder.commit()
        bytes_.append(folder.open(out["signals"]).read_bytes())
    assert bytes_[0] == bytes_[1]


def test_unknown_filter_option_is_an_error():
    with pytest.raises(ValueError, match=r"scan\.skip_loop_filter"):
        Scan(skip_loop_filter="some")


def test_films_go_out_and_come_back_with_their_signals(tmp_path):
    good = film(tmp_path / "good.mp4", count=60, gop_size=12)
    (tmp_path / "bad.mp4").write_text("no film")
    steps = plan(
        [Identify(), Ingest(segment_s=0.4), ToSegments(), Scan(), Titles(), ToFilms()],
        rows.SOURCE,
    )
    found = [{"path": str(p), "licence": "CC0-1.0"} for p in (tmp_path / "bad.mp4", good)]
    store = Store(tmp_path / ".work")
    outcome = run(steps, found, store, on_ray=False)
    films = {row["path"]: row for row in outcome.tables["film"]}
    assert len(films) == 2
    assert films[str(tmp_path / "bad.mp4")]["status"] == FAILED
    assert films[str(tmp_path / "bad.mp4")]["reason"] == "not_a_video"
    row = films[str(good)]
    assert row["status"] == KEPT
    assert len(row["signals"]) == len(row["segments"]) > 3
    joined = Signals.concat([Signals.load(store.path(ref)) for ref in row["signals"]])
    assert len(joined) == 60


def test_a_failed_segment_fails_its_film():
    film_columns = dict.fromkeys(ToFilms.emits.names) | {"film_id": "f", "path": "p"}
    verdict = {"status": KEPT, "stage": None, "reason": None, "detail": None}
    parts = [
        film_columns | verdict | {"segment": {"index": i}, "segment_id": f"f-g{i}", "signals": f"s{i}"}
        for i in (1, 0, 2)
    ]
    assert ToFilms().fold(parts)[0]["signals"] == ["s0", "s1", "s2"]
    parts[0] |= {"status": FAILED, "stage": "scan", "reason": "cannot_open", "signals": None}
    (row,) = ToFilms().fold(parts)
    assert (row["status"], row["reason"], row["signals"]) == (FAILED, "cannot_open", None)


def test_a_file_that_vanished_is_refused(tmp_path):
    path = film(tmp_path / "film.mp4", count=24)
    stream, segments, _ = probe(str(path))
    path.unlink()
    with pytest.raises(BadInput) as caught:
        scan(str(path), stream, segments[0])
    assert caught.value.reason == "cannot_open"
