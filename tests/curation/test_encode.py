"""Pictures and clocks through the encoder: selection, geometry, colours, interlacing, bytes."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import av
import numpy as np
import pytest

from curation.timing import source_of_output
from curation.video.decode import decode_span
from curation.video.encode import (
    FilterChain,
    Look,
    at_16fps,
    deinterlaced,
    luma_blocks,
    rgb_picture,
    write_h264,
)
from curation.video.probe import probe
from curation.video.verify import check_file, foreign_edge
from tests.curation.tiny_film import shots_of, texture, write_film


def look_at(path, crop=None, height=96, width=160):
    stream = probe(str(path))[0]
    crop = crop or (0, 0, stream["width"], stream["height"])
    look = FilterChain(Look(stream=stream, crop=crop, height=height, width=width).steps)
    return stream, [look(f) for f in decode_span(str(path), stream, stream["first_pts"], None)]


def luma(frame):
    return frame.to_ndarray(format="gray" if frame.format.name == "gray" else None)[: frame.height]


def flat_film(tmp_path, value, **kind):
    """A film of one colour; `value` are the samples of its planes."""
    pix_fmt = kind.setdefault("pix_fmt", "yuv420p")
    frame = av.VideoFrame(160, 96, pix_fmt)
    for plane, sample in zip(frame.planes, value, strict=True):
        kind_of_sample = np.uint16 if "10" in pix_fmt else np.uint8
        size = plane.buffer_size // np.dtype(kind_of_sample).itemsize
        plane.update(np.full(size, sample, kind_of_sample).tobytes())
    return write_film(tmp_path / "flat.mkv", [frame, frame], codec="ffv1", **kind)


def middle(frame):
    return [
        int(np.frombuffer(p, np.uint8)[p.line_size * (p.height // 2) + p.width // 2]) for p in frame.planes
    ]


# -- time ---------------------------------------------------------------------------------------


def test_frames_of_a_variable_rate_film_are_chosen_by_timestamp(tmp_path):
    steps = np.random.default_rng(1).choice([10, 40, 41, 90, 300], 40)
    pts = np.concatenate([[0], np.cumsum(steps)]).tolist()
    pictures = [np.full((96, 160), 20 + 5 * i, np.uint8) for i in range(len(pts))]
    path = write_film(tmp_path / "vfr.mkv", pictures, pts=pts, time_base=Fraction(1, 1000), codec="ffv1")
    stream = probe(str(path))[0]
    assert stream["vfr"]
    count = 60
    frames = decode_span(str(path), stream, 0, None)
    shown = [
        round(((float(luma(f).mean()) - 16) * 255 / 219 - 20) / 5)
        for f, times in at_16fps(frames, stream, 0, count)
        for _ in range(times)
    ]
    assert shown == source_of_output(stream, 0, pts, count).tolist()


def test_a_slow_film_repeats_frames_and_the_last_frame_fills_up():
    class Shown:
        def __init__(self, pts):
            self.pts = pts

    clock = {"time_base_num": 1, "time_base_den": 4, "first_pts": 0}
    picked = [(f.pts, times) for f, times in at_16fps(map(Shown, range(3)), clock, 0, 13)]
    assert picked == [(0, 4), (1, 4), (2, 5)]


def test_the_file_is_constant_16_fps_from_zero_and_its_bytes_are_always_the_same(tmp_path):
    film = write_film(tmp_path / "film.mp4", shots_of([30]))
    digests = set()
    for name in ("a.mp4", "b.mp4"):
        _, pictures = look_at(film)
        assert write_h264(tmp_path / name, ((p, 1) for p in pictures), crf=17, preset="veryfast") == 30
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1
    with av.open(str(tmp_path / "a.mp4")) as container:
        video = container.streams.video[0]
        assert (video.average_rate, video.frames, video.start_time) == (16, 30, 0)
        times = [p.pts * p.time_base for p in container.demux(video) if p.pts is not None]
        assert times == [Fraction(k, 16) for k in range(30)]  # stored order is shown order: no B-frames
    head = (tmp_path / "a.mp4").read_bytes()
    assert head.index(b"moov") < head.index(b"mdat")


# -- geometry -----------------------------------------------------------------------------------


def marked(height=96, width=160):
    """Dark picture with a bright top left corner."""
    picture = np.full((height, width), 40, np.uint8)
    picture[: height // 4, : width // 4] = 220
    return picture


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_is_applied_before_the_crop(tmp_path, rotation):
    path = write_film(tmp_path / "film.mkv", [marked(160, 240)] * 2, codec="ffv1")
    stream = probe(str(path))[0]
    turned = np.rot90(marked(160, 240), rotation // 90)
    height, width = turned.shape
    stream = {**stream, "rotation": rotation, "height": height, "width": width}
    crop = (0, 0, width - 32, height - 32)
    look = FilterChain(Look(stream=stream, crop=crop, height=height - 32, width=width - 32).steps)
    frame = look(next(decode_span(str(path), stream, 0, None)))
    expected = turned[: height - 32, : width - 32].astype(float)
    assert np.abs(luma(frame) - (16 + expected * 219 / 255)).max() < 12


def test_a_rotation_flag_in_the_file_turns_the_picture_as_a_player_does(tmp_path):
    import cv2

    path = write_film(tmp_path / "film.mp4", [marked()] * 3)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    turn = [0, 1, 0, -1, 0, 0, 0, 0, 16384]
    data[at : at + 36] = b"".join((v * 65536).to_bytes(4, "big", signed=True) for v in turn)
    path.write_bytes(bytes(data))
    stream, frames = look_at(path, height=160, width=96)
    player = cv2.VideoCapture(str(path))
    seen = cv2.cvtColor(player.read()[1], cv2.COLOR_BGR2GRAY)
    assert stream["rotation"] in (90, 270)
    assert seen.shape == (160, 96)
    assert np.abs(luma(frames[0]) - (16 + seen.astype(float) * 219 / 255)).mean() < 4


def test_crop_is_exact_to_the_pixel_even_at_odd_places(tmp_path):
    wide = np.tile(np.linspace(0, 240, 161).astype(np.uint8), (97, 1))
    path = write_film(tmp_path / "odd.mkv", [wide] * 2, codec="ffv1", pix_fmt="yuv420p")
    _, frames = look_at(path, crop=(33, 1, 64, 32), height=32, width=64)
    expected = 16 + wide[1:33, 33:97].astype(float) * 219 / 255
    assert np.abs(luma(frames[0]) - expected).max() <= 2


def test_anamorphic_pictures_come_out_with_square_pixels(tmp_path):
    path = write_film(
        tmp_path / "wide.mp4", shots_of([2], height=96, width=120), sample_aspect_ratio=Fraction(4, 3)
    )
    stream, frames = look_at(path)
    assert (stream["sar_num"], stream["sar_den"]) == (4, 3)
    write_h264(tmp_path / "out.mp4", [(frames[0], 1)], crf=17, preset="veryfast")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio in (None, 1)


# -- colours ------------------------------------------------------------------------------------

RED_601, RED_709, GREEN_709 = (81, 90, 240), (63, 102, 240), (173, 42, 26)  # ITU-R BT.601, BT.709


@pytest.mark.parametrize(
    ("samples", "expected", "tags"),
    [
        (RED_709, RED_709, {"colorspace": 1, "color_range": 1}),
        (RED_601, RED_709, {"colorspace": 6, "color_range": 1}),
        (RED_601, RED_709, {"colorspace": 5, "color_range": 1}),
        (RED_601, RED_709, {}),  # standard definition without a tag
        ((76, 85, 255), RED_709, {"colorspace": 5, "color_range": 2}),  # JPEG range
        ((126, 128, 128), (126, 128, 128), {"colorspace": 6, "color_range": 1}),
        ((250, 409, 960), RED_709, {"colorspace": 1, "color_range": 1, "pix_fmt": "yuv420p10le"}),
        ((81, 90, 240), RED_709, {"colorspace": 6, "color_range": 1, "pix_fmt": "yuv444p"}),
    ],
)
def test_colours_come_out_as_limited_range_bt709(tmp_path, samples, expected, tags):
    _, frames = look_at(flat_film(tmp_path, samples, **tags))
    assert np.abs(np.subtract(middle(frames[0]), expected)).max() <= 2
    write_h264(tmp_path / "out.mp4", [(frames[0], 1)], crf=10, preset="veryfast")
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range, context.pix_fmt) == (1, 1, "yuv420p")
        stored = next(container.decode(video=0))
    assert np.abs(np.subtract(middle(stored), expected)).max() <= 3


def test_rgb_films_and_target_pictures_keep_their_colours(tmp_path):
    picture = np.empty((96, 160, 3), np.uint8)
    picture[:] = (200, 40, 90)
    path = write_film(tmp_path / "rgb.mkv", [picture] * 2, codec="ffv1", pix_fmt="bgr0")
    _, frames = look_at(path)
    assert np.abs(rgb_picture(frames[0]).astype(int) - (200, 40, 90)).max() <= 3


# -- interlacing --------------------------------------------------------------------------------


def combed(offset, height=96, width=160):
    """Two fields of a moving bar, the lower one half a frame later."""
    picture = np.full((height, width), 40, np.uint8)
    for field in (0, 1):
        x = 10 + 8 * offset + 4 * field
        picture[field::2, x : x + 30] = 220
    return picture


def combing(picture):
    lines = picture.astype(float)
    return np.abs(lines[1:-1] - (lines[:-2] + lines[2:]) / 2).mean()


def test_interlaced_frames_are_made_progressive_and_keep_their_clock(tmp_path):
    path = write_film(
        tmp_path / "i.mkv", [combed(i) for i in range(10)], options={"x264-params": "tff=1", "crf": "4"}
    )
    stream = probe(str(path))[0]
    assert stream["interlaced"]
    frames = list(decode_span(str(path), stream, 0, None))
    mended = list(deinterlaced(frames))
    assert [f.pts for f in mended] == [f.pts for f in frames]
    before = np.mean([combing(luma(f)) for f in frames])
    after = np.mean([combing(luma(f)) for f in mended])
    assert after < before / 3
    assert list(deinterlaced([])) == []


# -- proof --------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path):
    _, pictures = look_at(write_film(tmp_path / "film.mp4", shots_of([9, 8])))
    path = tmp_path / "clip.mp4"
    write_h264(path, ((p, 1) for p in pictures), crf=17, preset="veryfast")
    return path, np.stack([luma_blocks(p) for p in pictures])


def test_a_good_file_passes(written):
    assert check_file(*written, 96, 160) is None


def test_what_is_wrong_with_a_file_is_said(written):
    path, sent = written
    assert "160x96" in check_file(path, sent, 480, 832)
    assert "17 frames at 16 fps" in check_file(path, sent[:-1], 96, 160)
    swapped = sent.copy()
    swapped[[3, 12]] = swapped[[12, 3]]
    assert "frame 3 is not the one" in check_file(path, swapped, 96, 160)
    data = bytearray(path.read_bytes())
    half = data.index(b"mdat") + 200
    data[half:] = bytes(len(data) - half)
    path.write_bytes(bytes(data))
    assert check_file(path, sent, 96, 160)
    path.write_bytes(bytes(data[:60]))
    assert "has no video" in check_file(path, sent, 96, 160)


def test_a_file_at_another_rate_is_caught(tmp_path):
    pictures = list(shots_of([17]))
    path = write_film(tmp_path / "fast.mp4", pictures, fps=24)
    sent = np.stack([p.reshape(6, 16, 10, 16).mean((1, 3)) for p in pictures])
    assert "24 fps" in check_file(path, sent, 96, 160)


def shot(seed, length):
    still = texture(seed).reshape(6, 16, 10, 16).mean((1, 3))
    drift = np.arange(length)[:, None, None] * 0.5
    return (still + drift).astype(np.float32)


def test_frames_of_the_neighbouring_shot_are_found_at_an_edge():
    mine, other = shot(1, 20), shot(2, 20)
    assert not foreign_edge(mine, other[-1])
    for foreign in (1, 2):
        assert foreign_edge(np.concatenate([other[-foreign:], mine]), other[-foreign - 1])
    assert not foreign_edge(mine, None)


def test_a_flash_and_fast_motion_are_not_taken_for_another_shot():
    mine, other = shot(1, 20), shot(2, 20)
    flash = mine.copy()
    flash[0] = 235
    assert not foreign_edge(flash, other[-1])
    wild = np.stack([shot(seed, 1)[0] for seed in range(20)])
    assert not foreign_edge(wild, wild[1] + 1)
