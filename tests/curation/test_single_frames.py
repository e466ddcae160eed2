from pathlib import Path

import av
import numpy as np
import pytest

from curation.video.decode import decode_span
from curation.video.probe import probe
from curation.video.single_frames import frames_at, key_times, pick
from tests.curation.tiny_film import shots_of, write_film

KEYS = [0, 100, 200, 300, 400]


@pytest.mark.parametrize(
    ("span", "number", "expected"),
    [
        ((0, 401), 1, [200]),
        ((50, 350), 1, [200]),
        ((120, 240), 1, [200]),
        ((100, 200), 1, [100]),  # half-open: 200 belongs to the next shot
        ((110, 190), 1, [150]),  # no key frame: the middle
        ((0, 401), 2, [100, 300]),
        ((0, 401), 9, KEYS),  # each once
        ((100, 300), 3, [100, 200]),
    ],
)
def test_key_frames_nearest_the_middle(span, number, expected):
    assert pick(KEYS, *span, number) == expected


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A film of two seconds with key frames at 0, 12, 24 and 36 and B-frames between; its frames."""
    path = write_film(
        tmp_path_factory.mktemp("film") / "film.mp4",
        shots_of([48], seed=3),
        options={"x264-params": "keyint=12:min-keyint=12:scenecut=0:bframes=2"},
    )
    stream, _, _ = probe(str(path))
    return str(path), stream, [f.pts for f in decode_span(str(path), stream, 0, None)]


def looked_at(made, positions, stream=None):
    """Timestamps and pictures found, and the frames that were decoded for them."""
    path, known, pts = made
    decoded = []
    times = [pts[i] for i in positions]
    found = list(frames_at(path, stream or known, times, key_times(path, known), decoded.append))
    assert [position for position, _ in found] == list(range(len(positions)))
    return [pts.index(frame.pts) for _, frame in found], [f.to_ndarray() for _, f in found], sum(decoded)


def test_key_times_are_those_of_the_film(made):
    path, stream, pts = made
    assert [pts.index(k) for k in key_times(path, stream)] == [0, 12, 24, 36]


def test_a_key_frame_costs_one_frame(made):
    path, stream, pts = made
    frames, pictures, decoded = looked_at(made, [0, 12, 36])

    assert frames == [0, 12, 36]
    assert decoded == 3
    whole = {f.pts: f.to_ndarray() for f in decode_span(path, stream, 0, None)}
    for index, picture in zip(frames, pictures, strict=True):
        assert np.array_equal(picture, whole[pts[index]])


def test_other_frames_cost_those_from_the_key_frame_on(made):
    frames, _, decoded = looked_at(made, [15, 30])

    assert frames == [15, 30]
    assert decoded == 4 + 7


def test_between_two_frames_the_one_on_screen(made):
    path, stream, pts = made
    ((_, frame),) = frames_at(path, stream, [pts[17] - 1], [pts[0], pts[12]], lambda count: None)
    assert frame.pts == pts[16]


def test_where_seeks_cannot_be_trusted_one_pass_does(made):
    _, stream, _ = made
    unsure = {**stream, "container": "mpeg", "seeks_exactly": False}

    frames, _, decoded = looked_at(made, [12, 15, 47], unsure)

    assert frames == [12, 15, 47]
    assert decoded == 48


def test_a_damaged_key_frame_is_left_out_and_the_others_are_not(made, tmp_path):
    path, stream, pts = made
    with av.open(path) as container:
        packets = {p.pts: (p.pos, p.size) for p in container.demux(video=0) if p.pts is not None}
    data = bytearray(Path(path).read_bytes())
    position, size = packets[pts[24]]
    data[position : position + size] = b"\xff" * size
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(data)

    keys = key_times(str(torn), stream)
    found = list(frames_at(str(torn), stream, [pts[12], pts[24], pts[36]], keys, lambda count: None))

    assert [position for position, _ in found] == [0, 2]
