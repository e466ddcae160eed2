"""The demo film shows what its ground truth says."""

from __future__ import annotations

import dataclasses
import itertools
import socket

import av
import cv2
import numpy as np
import pytest

from curation.demo import film as demo
from curation.demo import pictures
from curation.demo.story import LINES, SHOTS
from curation.demo.truth import ground_truth

SCALE = 4


@pytest.fixture(scope="module")
def small(demo_film):
    """The film's luma at a quarter of its size, uint8 [N, 120, 213]."""
    with av.open(str(demo_film.path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        return np.stack(
            [
                cv2.resize(frame.to_ndarray()[:480, :854], (213, 120), interpolation=cv2.INTER_AREA)
                for frame in container.decode(video=0)
            ]
        )


@pytest.fixture(scope="module")
def change(small):
    """Mean absolute luma change to the frame before, [N]; the first is 0."""
    steps = [np.abs(b.astype(int) - a).mean() for a, b in itertools.pairwise(small)]
    return np.array([0.0, *steps])


def frames_of(demo_film, wanted):
    """Full frames BGR by index."""
    wanted, found = set(wanted), {}
    with av.open(str(demo_film.path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for k, frame in enumerate(container.decode(video=0)):
            if k in wanted:
                found[k] = frame.to_ndarray(format="bgr24")
    return found


def test_container_is_as_told(demo_film, small):
    truth = demo_film.truth
    with av.open(str(demo_film.path)) as container:
        video = container.streams.video[0]
        assert video.codec_context.name == "h264"
        assert (video.height, video.width) == truth.size == (480, 854)
        assert video.average_rate == truth.fps == 24
    assert len(small) == truth.num_frames
    assert 85 <= truth.duration_s <= 110


def test_truth_survives_its_file(demo_film):
    assert ground_truth(demo_film.truth_path) == demo_film.truth


def test_shots_and_transitions_tile_the_film(demo_film):
    truth = demo_film.truth
    gaps = {t.start_frame: t for t in truth.transitions}
    at = 0
    for shot in truth.shots:
        assert shot.start_frame == at
        at = shot.end_frame
        if at in gaps:
            assert shot.transition_out == gaps[at].kind
            at = gaps[at].end_frame
    assert at == truth.num_frames
    kinds = [t.kind for t in truth.transitions]
    assert (kinds.count("fade"), kinds.count("dissolve"), kinds.count("cut")) == (1, 1, 13)
    assert [s.transition_in for s in truth.shots[1:]] == kinds


def test_cuts_are_at_their_frames(demo_film, change):
    for cut in demo_film.truth.cuts:
        around = np.r_[change[cut - 6 : cut], change[cut + 1 : cut + 7]]
        assert change[cut] > 4 * around.max()
        assert change[cut] > 8


def test_fade_goes_through_black(demo_film, small):
    (fade,) = (t for t in demo_film.truth.transitions if t.kind == "fade")
    luma = small[:, 8:112].mean((1, 2))
    levels = luma[fade.start_frame : fade.end_frame]
    black = levels < 17.5
    assert black.sum() >= 8
    first, last = np.flatnonzero(black)[[0, -1]]
    assert black[first : last + 1].all()
    assert (np.diff(levels[: first + 1]) < 0).all()
    assert (np.diff(levels[last:]) > 0).all()
    assert levels[0] < luma[fade.start_frame - 1]
    assert levels[-1] < luma[fade.end_frame]


def test_dissolve_mixes_its_two_shots(demo_film, small):
    (dissolve,) = (t for t in demo_film.truth.transitions if t.kind == "dissolve")
    a, b = (small[k].astype(float) for k in (dissolve.start_frame - 1, dissolve.end_frame))
    share = [
        ((f - a) * (b - a)).sum() / ((b - a) ** 2).sum()
        for f in small[dissolve.start_frame : dissolve.end_frame].astype(float)
    ]
    assert (np.diff(share) > 0).all()
    assert 0 < share[0] < 0.2
    assert 0.8 < share[-1] < 1


def test_faults_are_where_they_are_told(demo_film, small, change):
    for shot in demo_film.truth.shots:
        frames = slice(shot.start_frame + 1, shot.end_frame)
        luma, moved = small[frames].mean(), np.median(change[frames])
        assert (luma < 24) == (shot.fault == "dark"), shot.name
        if shot.fault != "dark":
            assert (moved < 0.05) == (shot.fault == "frozen"), (shot.name, moved)
    assert [s.fault for s in demo_film.truth.shots if s.fault] == ["dark", "frozen"]


def test_two_windows_suit_the_presets(demo_film):
    """paper-text: 30-60 s of shots of 5 s or more; paper-table: 6-16 clips in 30-65 s."""
    shots = demo_film.truth.shots
    faults = [s.index for s in shots if s.fault]
    for window in (shots[: faults[0]], shots[faults[-1] + 1 :]):
        assert 6 <= len(window) <= 8
        assert 30 <= (window[-1].end_frame - window[0].start_frame) / 24 <= 60
        assert all(5.2 <= (s.end_frame - s.start_frame) / 24 < 10 for s in window)


def test_bars_are_black(demo_film):
    top, bottom, left, right = demo_film.truth.bars
    assert (left, right) == (0, 0)
    titled = {k for s in demo_film.truth.subtitles for k in range(s.start_frame, s.end_frame)}
    bright = [s for s in demo_film.truth.shots if s.fault != "dark"]
    quiet = [next(k for k in range(s.start_frame, s.end_frame) if k not in titled) for s in bright]
    for frame in frames_of(demo_film, quiet).values():
        bars = frame[: top - 1], frame[-bottom + 1 :]
        edges = frame[top + 1 : top + 9], frame[-bottom - 9 : -bottom - 1]
        for bar, edge in zip(bars, edges, strict=True):
            assert bar.mean() < 2
            assert edge.mean() > bar.mean() + 6


def test_subtitles_come_and_go_in_their_boxes(demo_film):
    subtitles = demo_film.truth.subtitles
    assert len({s.text for s in subtitles}) == len(subtitles) == len(LINES)
    assert any("\n" in s.text for s in subtitles)
    assert any(s.box.y + s.box.height > 480 - 26 > s.box.y for s in subtitles)
    wanted = [k for s in subtitles for k in (s.start_frame - 1, s.start_frame, s.end_frame - 1, s.end_frame)]
    frames = frames_of(demo_film, wanted)

    def white(index, box):
        part = frames[index][box.y : box.y + box.height, box.x : box.x + box.width]
        return (part.min(2) > 195).mean()

    for s in subtitles:
        shown = min(white(k, s.box) for k in (s.start_frame, s.end_frame - 1))
        assert shown > 0.10, s
        assert max(white(k, s.box) for k in (s.start_frame - 1, s.end_frame)) < 0.7 * shown, s


def test_logo_stays(demo_film):
    truth = demo_film.truth
    box = truth.logo.box
    assert (truth.logo.start_frame, truth.logo.end_frame) == (0, truth.num_frames)
    wanted = range(5, truth.num_frames, 97)
    parts = [
        cv2.cvtColor(f[box.y : box.y + box.height, box.x : box.x + box.width], cv2.COLOR_BGR2GRAY)
        for f in frames_of(demo_film, wanted).values()
    ]
    edges = np.stack([cv2.Laplacian(p, cv2.CV_32F) for p in parts])
    usual = np.median(edges, 0).ravel()
    likeness = [np.corrcoef(usual, e.ravel())[0, 1] for e in edges]
    assert min(likeness) > 0.6


def test_signs_move_with_the_camera(demo_film):
    truth = demo_film.truth
    for text in ("HANGAR 7", "AIRLOCK 2"):
        index = next(s.shot_index for s in truth.signs if s.text == text)
        shot = truth.shots[index]
        assert shot.fault is None
        lefts = [s.box.x for s in truth.signs if s.shot_index == index]
        assert abs(lefts[0] - lefts[-1]) > 100
        assert len(lefts) == len(range(shot.start_frame, shot.end_frame, demo.BOX_STEP))


def test_subjects_recur_on_different_sets(demo_film):
    truth = demo_film.truth
    good = [s for s in truth.shots if not s.fault]
    astronaut = [s for s in good if "astronaut" in s.subjects]
    cat = [s for s in good if "cat" in s.subjects]
    assert len([s for s in astronaut if s.index < 7]) >= 4
    assert len([s for s in astronaut if s.index > 8]) >= 4
    assert len([s for s in cat if s.index > 8]) >= 4
    assert len([s for s in astronaut if "cat" in s.subjects]) >= 2
    assert len({SHOTS[s.index].place for s in astronaut}) >= 6
    sizes = [
        b.box.height
        for b in truth.subjects
        if b.subject == "astronaut" and not truth.shots[b.shot_index].fault
    ]
    assert max(sizes) > 1.5 * min(sizes)


def test_opencv_finds_the_faces(demo_film):
    truth = demo_film.truth
    faces = [
        b
        for b in truth.subjects
        if b.face and b.frame % 48 == 0 and truth.shots[b.shot_index].fault != "dark"
    ]
    assert len(faces) >= 10
    assert min(b.face.height for b in faces) >= 50
    frames = frames_of(demo_film, [b.frame for b in faces])
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    found = 0
    for b in faces:
        grey = cv2.cvtColor(frames[b.frame], cv2.COLOR_BGR2GRAY)
        x, y = b.face.x + b.face.width / 2, b.face.y + b.face.height / 2
        boxes = cascade.detectMultiScale(grey, 1.1, 5, minSize=(36, 36))
        found += any(bx < x < bx + w and by < y < by + h for bx, by, w, h in boxes)
    assert found >= 0.9 * len(faces)


def test_a_crop_can_keep_the_people_and_lose_the_text(demo_film):
    """Room for 832:480 between bars, subtitles and logo that holds all faces and most of the cat."""
    truth = demo_film.truth
    top, bottom = truth.bars[0], min(s.box.y for s in truth.subtitles)
    width = (bottom - top) * 832 / 480
    assert width < truth.logo.box.x
    boxes = [b.face or b.box for b in truth.subjects if b.face or b.subject == "cat"]
    boxes = [b for b in boxes if b.width < 400]
    inside = [b.y >= top and b.y + b.height * 0.85 <= bottom for b in boxes]
    assert np.mean(inside) > 0.97
    for window in (range(7), range(9, 16)):
        faces = [b.face for b in truth.subjects if b.face and b.shot_index in window]
        assert max(f.x + f.width for f in faces) - min(f.x for f in faces) < width


def test_same_packages_same_bytes(tmp_path):
    """A part of the film, twice from scratch; the whole film is in the slow test."""
    spans, _, total = demo.timeline()
    files = []
    for name in ("a.mp4", "b.mp4"):
        studio = demo.Studio(spans, total)
        studio.total = 40
        demo._encode(tmp_path / name, studio.frames(), 40, None)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


@pytest.mark.slow
def test_whole_film_same_bytes(demo_film, tmp_path):
    again = demo.render(tmp_path)
    assert again.path.read_bytes() == demo_film.path.read_bytes()
    assert again.truth_path.read_bytes() == demo_film.truth_path.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demo_film.mp4", "ground_truth.json"]


def test_nothing_is_downloaded(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("network used")

    monkeypatch.setattr(socket, "socket", refuse)
    spans, _, total = demo.timeline()
    studio = demo.Studio(spans, total)
    for span in spans[::3]:
        assert studio._picture(span.start).shape == (428, 854, 3)


def test_pictures_and_licences_are_told(demo_film):
    told = {p["file"]: p["licence"] for p in demo_film.truth.pictures}
    assert told == {p.file: p.licence for p in pictures.PICTURES}
    for file in told:
        assert pictures.load(file).ndim == 3
        assert f"| {file} |" in pictures.__doc__
    assert all("CC0" in licence or "public domain" in licence for licence in told.values())


def test_missing_pictures_are_explained(monkeypatch):
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"astronaut\.png from scikit-image; install"):
        pictures.load("astronaut.png")


def test_half_a_film_is_not_left_behind(tmp_path, monkeypatch):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo.render(tmp_path, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_screenplay_names_are_known():
    names = [shot.name for shot in SHOTS]
    assert len(set(names)) == len(names)
    assert {line.shot for line in LINES} <= set(names)
    assert dataclasses.is_dataclass(SHOTS[0])
