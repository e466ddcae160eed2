import numpy as np
import pytest

from curation.framing.overlays import Inside, OverlaySettings, find_overlays, link, overlap, read_samples

WIDTH, HEIGHT = 640, 360
INSIDE = Inside(0, 0, WIDTH, HEIGHT)
STEP_S = 0.5


def clips(lengths: list[int], context: tuple[int, ...] = ()) -> list[dict]:
    return [{"clip_index": i, "is_context": i in context} for i in range(len(lengths))]


def overlays(lengths, texts, *, inside=INSIDE, context=(), flat=None, **settings):
    """Find overlays in clips of `lengths` samples.

    `texts`: list of (first sample, last sample, box or function of the sample); others are empty.
    """
    rows, sample = [], 0
    for clip, length in enumerate(lengths):
        for _ in range(length):
            base = {"clip_index": clip, "frame": 12 * sample, "pts": 500 * sample, "time_s": STEP_S * sample}
            boxes = [
                box(sample) if callable(box) else box for first, last, box in texts if first <= sample <= last
            ]
            for x, y, width, height, *score in boxes:
                rows.append(
                    base | {"x": x, "y": y, "width": width, "height": height, "score": [*score, 0.7][0]}
                )
            if not boxes:
                rows.append(base | dict.fromkeys(("x", "y", "width", "height", "score")))
            sample += 1
    samples = read_samples(rows, clips(lengths, context), flat)
    return find_overlays(samples, inside, OverlaySettings(**settings))


def kinds(found) -> list[str]:
    return [o["kind"] for o in found]


def line(width: int, y: float = 310, height: float = 24):
    return ((WIDTH - width) / 2, y, width, height)


def test_no_text_no_overlays():
    assert overlays([5, 5], []) == []


def test_line_across_a_cut_is_a_subtitle_wherever_it_is():
    (found,) = overlays([5, 5], [(3, 6, (60, 250, 180, 24))])
    assert found["kind"] == "subtitle"


def test_centred_low_line_in_a_single_shot_is_a_subtitle():
    assert kinds(overlays([9], [(0, 8, line(200))])) == ["subtitle"]


def test_one_sample_is_enough_for_a_subtitle():
    assert kinds(overlays([6, 6], [(2, 2, line(200))])) == ["subtitle"]


def test_lines_of_changing_width_are_subtitles_though_left_aligned():
    texts = [(0, 2, (60, 300, 300, 24)), (3, 5, (60, 300, 150, 24))]
    assert kinds(overlays([6], texts)) == ["subtitle", "subtitle"]


def test_two_lines_that_merge_into_one_box_stay_subtitles():
    texts = [
        (0, 1, line(260, 285)),
        (0, 1, line(220, 312)),
        (2, 3, line(260, 285, 46)),
        (4, 5, line(180, 300)),
    ]
    assert set(kinds(overlays([6], texts))) == {"subtitle"}


def test_box_is_padded_and_span_reaches_to_the_neighbouring_samples():
    (found,) = overlays([10], [(3, 5, line(200, 310, 25))], pad=0.2)
    assert (found["x"], found["y"]) == (215, 305)
    assert (found["width"], found["height"]) == (210, 35)
    assert (found["start_s"], found["end_s"]) == (1.0, 3.0)


def test_span_ends_with_the_sequence():
    (found,) = overlays([4], [(0, 3, line(200))])
    assert (found["start_s"], found["end_s"]) == (0.0, 1.5)


def test_logo_in_the_same_place_through_all_shots():
    corner = (540, 20, 80, 22)
    found = overlays([4, 4, 4], [(0, 11, corner)])
    assert kinds(found) == ["logo"]
    assert found[0]["width"] > found[0]["height"]


def test_flickering_logo_is_still_one():
    corner = (540, 20, 80, 22)
    texts = [(s, s, corner) for s in (0, 2, 3, 5, 8, 9, 11)]
    assert set(kinds(overlays([4, 4, 4], texts))) == {"logo"}


def test_sign_that_moves_with_the_camera_is_scene_text():
    assert kinds(overlays([8, 4], [(0, 7, lambda s: (400 - 30 * s, 120, 150, 30))])) == ["scene_text"]


def test_sign_before_the_camera_begins_to_move_is_scene_text():
    found = overlays([12], [(2, 11, lambda s: (400 - max(0, s - 5) ** 1.7 * 8, 120, 150, 30))])
    assert set(kinds(found)) == {"scene_text"}


def test_sign_of_a_static_shot_is_scene_text():
    assert kinds(overlays([6, 6], [(0, 5, (420, 120, 130, 30))])) == ["scene_text"]


def test_poster_seen_in_every_other_shot_is_scene_text():
    poster = (420, 120, 130, 30)
    found = overlays([4, 4, 4, 4], [(0, 3, poster), (8, 11, poster)])
    assert set(kinds(found)) == {"scene_text"}


def test_title_that_comes_and_goes_in_the_middle_of_a_shot():
    assert kinds(overlays([12], [(4, 8, (180, 150, 280, 40))])) == ["title"]


def test_card_over_a_flat_picture_is_a_title():
    text = [(5, 8, (200, 160, 240, 30))]
    flat = [5 <= s <= 8 for s in range(14)]
    assert kinds(overlays([5, 4, 5], text, flat=flat)) == ["title"]
    assert kinds(overlays([5, 4, 5], text)) == ["scene_text"]


def test_rolling_credits_are_titles():
    texts = [
        (0, 9, lambda s, n=n: (320 - 60 - 10 * n, 40 + 60 * n - 18 * s % 60, 120 + 20 * n, 22))
        for n in range(5)
    ]
    assert set(kinds(overlays([10], texts))) == {"title"}


def test_large_letters_count_from_the_title_score():
    letters = (150, 100, 300, 120)
    assert kinds(overlays([12], [(4, 8, (*letters, 0.9))])) == ["title"]
    assert overlays([12], [(4, 8, (*letters, 0.7))]) == []


def test_false_boxes_of_the_size_of_the_picture_are_nothing():
    assert overlays([6, 6], [(0, 11, (2, 20, 630, 330, 0.75))]) == []


def test_small_square_boxes_are_no_subtitles():
    assert "subtitle" not in kinds(overlays([8], [(3, 6, (312, 300, 16, 18))]))


def test_text_of_context_shots_only_is_left_out():
    assert overlays([4, 4], [(4, 7, line(200))], context=(1,)) == []
    assert kinds(overlays([4, 4], [(3, 5, line(200))], context=(1,))) == ["subtitle"]


def test_low_and_high_are_measured_inside_the_bars():
    inside = Inside(0, 70, WIDTH, 290)
    assert kinds(overlays([9], [(0, 8, line(200, 250))], inside=inside)) == ["subtitle"]
    assert kinds(overlays([9], [(0, 8, line(200, 165))], inside=inside)) == ["scene_text"]


def test_order_of_the_rows_does_not_matter():
    texts = [(0, 3, line(220)), (0, 3, (540, 20, 80, 22)), (4, 7, line(120)), (4, 7, (540, 20, 80, 22))]
    rows = []
    for sample in range(8):
        for first, last, (x, y, width, height) in texts:
            if first <= sample <= last:
                rows.append(
                    {
                        "clip_index": sample // 4,
                        "frame": sample,
                        "pts": sample,
                        "time_s": sample / 2,
                        "x": x,
                        "y": y,
                        "width": width,
                        "height": height,
                        "score": 0.7,
                    }
                )
    found = [
        find_overlays(read_samples(order, clips([4, 4])), INSIDE, OverlaySettings())
        for order in (rows, rows[::-1])
    ]
    assert found[0] == found[1]
    assert sorted(kinds(found[0])) == ["logo", "subtitle", "subtitle"]


def test_runs_bridge_one_missed_sample_but_not_two():
    box = np.array([[10.0, 10, 50, 10, 0.7]])
    none = np.zeros((0, 5))
    assert len(link([box, none, box])) == 1
    assert len(link([box, none, none, box])) == 2


def test_overlap_is_intersection_over_union():
    a, b = np.array([0.0, 0, 10, 10]), np.array([5.0, 0, 10, 10])
    assert overlap(a, b) == pytest.approx(1 / 3)
    assert overlap(a, b + 10) == 0
