"""The video of a sequence and its facts in words: even shots, true times, boxes where the subject is."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from curation.captions.facts import Scene, Seen, Shot, Subject, Target
from curation.captions.media import (
    chosen_looks,
    picture_of,
    rough_boxes,
    shot_facts,
    timeline,
    video_of,
)
from curation.looks import Look, jpeg_of

ANNA = Subject(
    subject_id="s0", label="[Person A]", class_name="person", is_primary=True, colours=(), screen_time_s=1.0
)


def look(clip, number):
    picture = np.full((64, 96, 3), 10 * (number % 20), np.uint8)
    return Look(clip, 4 * number, jpeg_of(picture))


def seen(places, first_s=0.0, last_s=3.0, growth=1.0):
    return Seen(
        subject=ANNA, area=0.12, height=0.4, x=0.35, y=0.5, start=(0.3, 0.5), end=(0.3, 0.5),
        growth=growth, first_s=first_s, last_s=last_s, places=tuple(places),
    )  # fmt: skip


def shot(clip, number, looks, who=()):
    return Shot(
        clip_index=clip,
        number=number,
        duration_s=looks / 4,
        seen=tuple(who),
        looks=tuple(look(clip, i) for i in range(looks)),
    )


def scene(*shots):
    return Scene(sequence_id="q", shots=shots, subjects=(ANNA,), targets=())


@pytest.mark.parametrize(
    ("looks", "fps", "frames"),
    [
        (21, 2, [*range(0, 80, 8)]),  # 81 frames of a clip: the last look is left out
        (20, 2, [*range(0, 80, 8)]),
        (21, 4, [*range(0, 80, 4)]),
        (21, 1, [*range(0, 96, 16)]),
        (5, 1, [0, 16]),
        (1, 2, [0, 0]),  # a lone look is taken twice
        (2, 2, [0, 0]),
    ],
)
def test_a_shot_has_an_even_number_of_frames_at_the_rate(looks, fps, frames):
    assert [k.frame for k in chosen_looks(shot(0, 1, looks), fps)] == frames


def test_shots_follow_one_another_and_no_pair_straddles_a_cut():
    whole = scene(shot(0, 1, 21), shot(3, 2, 9), shot(4, 3, 1))
    spans = timeline(whole, 2)
    assert [(s.start_s, s.end_s) for s in spans] == [(0.0, 5.0), (5.0, 7.0), (7.0, 8.0)]
    video = video_of(whole, 2)
    assert video.fps == 2.0
    assert video.frames_thwc_u8.shape == (16, 64, 96, 3)
    values = video.frames_thwc_u8[:, 0, 0, 0].astype(int)
    assert np.abs(values - [*range(0, 200, 20), 0, 20, 40, 60, 0, 0]).max() <= 2
    assert video.name == video_of(whole, 2).name


def test_facts_are_in_the_times_of_the_video():
    there = [(t / 8, 0.2, 0.3, 0.5, 0.7) for t in range(17)]
    whole = scene(shot(0, 1, 21), shot(1, 2, 9, [seen(there, 0.0, 2.0)]))
    lines = [shot_facts(span) for span in timeline(whole, 2)]
    assert lines[0] == "Shot 1, 0.0 to 5.0 s: no labelled subject"
    assert lines[1] == "Shot 2, 5.0 to 7.0 s: [Person A] 5.0 to 7.0 s at [200, 300, 500, 700]"


def test_a_subject_that_moves_or_comes_nearer_has_two_boxes():
    still = [(t / 8, 0.2, 0.3, 0.5, 0.7) for t in range(16)]
    moves = [(t / 8, 0.05 * t, 0.3, 0.05 * t + 0.3, 0.7) for t in range(16)]
    assert rough_boxes(seen(still)) == [(0.2, 0.3, 0.5, 0.7)]
    first, last = rough_boxes(seen(moves))
    assert first[0] < 0.1
    assert last[0] > 0.6
    assert last[2] <= 1.0  # inside the picture
    assert len(rough_boxes(seen(still, growth=2.0))) == 2
    assert rough_boxes(seen([])) == [
        pytest.approx((0.2, 0.3, 0.5, 0.7))
    ]  # without places: where it mostly is


def test_drawn_boxes_are_near_in_time():
    away = [(4.0, 0.25, 0.25, 0.75, 0.75)]
    near = [(0.0, 0.25, 0.25, 0.75, 0.75), *away]
    plain = video_of(scene(shot(0, 1, 9)), 2).frames_thwc_u8
    drawn = video_of(scene(shot(0, 1, 9, [seen(near)])), 2, draw_labels=True).frames_thwc_u8
    changed = (drawn != plain).any(axis=(1, 2, 3))
    assert changed.tolist() == [True, False, False, False]
    red = drawn[0, 16, 24:70].astype(int)
    assert (red[:, 0] != red[:, 2]).any()  # colours are in the order of the frames, RGB


def test_a_target_is_shown_at_full_size(tmp_path):
    Image.fromarray(np.arange(48 * 80 * 3, dtype=np.uint8).reshape(48, 80, 3)).save(tmp_path / "t.png")
    target = Target(
        recon_id="r", subject=ANNA, shot=shot(0, 1, 2), area=0.1, x=0.5, y=0.5, others=(),
        picture=tmp_path / "t.png",
    )  # fmt: skip
    picture = picture_of(target).rgb_hwc_u8
    assert picture.shape == (48, 80, 3)
    assert picture[0, 1].tolist() == [3, 4, 5]
