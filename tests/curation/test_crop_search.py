import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.framing.crop_search import find_crop, head, subject_map
from curation.framing.overlays import Inside

ASPECT = 832 / 480
NONE = np.zeros((0, 4))


def box(x, y, width, height, *, score=1.0, class_name="dog") -> dict:
    return {"x": x, "y": y, "width": width, "height": height, "score": score, "class_name": class_name}


def crop_of(inside, obstacles=NONE, boxes=(), aspect=ASPECT, **kwargs):
    kwargs = {"subject_weight": 2.0, **kwargs}
    return find_crop(inside, np.asarray(obstacles, float), subject_map(boxes, inside), aspect, **kwargs)


def touches(crop, obstacle) -> bool:
    x, y, width, height = obstacle
    across = crop.x < x + width and x < crop.x + crop.width
    return across and crop.y < y + height and y < crop.y + crop.height


def test_wide_film_keeps_its_height_and_the_middle():
    crop = crop_of(Inside(0, 60, 848, 420))
    assert (crop.y, crop.height) == (60, 360)
    assert crop.width == 624
    assert crop.x == pytest.approx((848 - 624) / 2, abs=2)
    assert crop.area_share == pytest.approx(624 * 360 / (848 * 360))
    assert crop.kept == 1


def test_tall_picture_loses_more_below_than_above():
    crop = crop_of(Inside(0, 0, 640, 480))
    above, below = crop.y, 480 - crop.y - crop.height
    assert 0 < above < below


def test_follows_the_subject_sideways():
    left = crop_of(Inside(0, 0, 1200, 500), boxes=[box(20, 100, 150, 300)])
    right = crop_of(Inside(0, 0, 1200, 500), boxes=[box(1030, 100, 150, 300)])
    assert left.x <= 20
    assert right.x + right.width >= 1180
    assert left.kept == pytest.approx(1)
    assert right.kept == pytest.approx(1)


def test_time_and_score_decide_between_two_subjects():
    often = [box(20, 100, 150, 300)] * 3
    crop = crop_of(Inside(0, 0, 1200, 500), boxes=[*often, box(1030, 100, 150, 300)])
    assert crop.x <= 20
    sure = [box(20, 100, 150, 300, score=0.2), box(1030, 100, 150, 300, score=0.9)]
    assert crop_of(Inside(0, 0, 1200, 500), boxes=sure).x > 300


def test_subtitle_band_costs_the_bottom():
    crop = crop_of(Inside(0, 0, 1280, 720), obstacles=[(0, 640, 1280, 40)])
    assert crop.y == 0
    assert 636 <= crop.height <= 640


def test_logo_is_cut_off_on_the_side_that_keeps_the_head():
    logo = [(1130, 0, 150, 60)]
    heads_up = [box(500, 0, 200, 700, class_name="person")]
    crop = crop_of(Inside(0, 0, 1280, 720), obstacles=logo, boxes=heads_up)
    assert crop.x + crop.width <= 1130
    assert crop.y == 0
    low = [box(0, 300, 1200, 420)]
    crop = crop_of(Inside(0, 0, 1280, 720), obstacles=logo, boxes=low)
    assert crop.y >= 60
    assert crop.height >= 640


def test_background_goes_before_heads():
    people = [box(x, 0, 120, 480, class_name="person") for x in (100, 300)]
    crop = crop_of(Inside(0, 0, 640, 480), boxes=people)
    assert crop.y == 0


def test_square_pixels_are_not_assumed():
    sar = 16 / 11
    crop = crop_of(Inside(0, 0, 720, 576), aspect=ASPECT / sar)
    assert crop.width * sar / crop.height == pytest.approx(ASPECT, rel=0.004)


def test_no_room_no_crop():
    assert crop_of(Inside(0, 0, 640, 360), obstacles=[(0, 0, 640, 360)]) is None
    assert crop_of(Inside(0, 0, 640, 360), obstacles=[(0, 100, 640, 20)], min_height=300) is None


def test_boxes_on_the_bars_count_for_nothing():
    inside = Inside(0, 60, 848, 420)
    assert crop_of(inside, boxes=[box(700, 0, 100, 50)]).kept == 1
    half = subject_map([box(0, 20, 100, 80)], inside)
    assert half.kept(0, 60, 624, 360) == pytest.approx(1)


def test_kept_is_the_share_of_covered_weight():
    inside = Inside(0, 0, 1000, 500)
    subjects = subject_map([box(100, 100, 200, 200), box(700, 100, 200, 200)], inside)
    covered = subjects.covered(np.array([0, 100, 200]), np.array([0]), 500, 500)
    np.testing.assert_allclose(covered, [[0.5, 0.5, 0.25]], atol=0.01)  # a cell is 0.008 wide
    assert [subjects.kept(x, 0, 500, 500) for x in (0, 100, 200)] == pytest.approx([0.5, 0.5, 0.25])
    assert subjects.kept(0, 0, 1000, 500) == pytest.approx(1)


def test_close_up_larger_than_the_crop_is_kept():
    inside = Inside(0, 0, 1000, 500)
    subjects = subject_map([box(0, 0, 1000, 450)], inside)
    assert subjects.kept(200, 0, 500, 150) == pytest.approx(1)


def test_head_is_on_top():
    assert head(np.array([0.0, 0, 100, 300])) == pytest.approx([20, 0, 60, 66])
    assert head(np.array([0.0, 0, 100, 80]))[3] == 60


def brute_force_area(inside, obstacles, aspect) -> int:
    """Largest area over every even rectangle of the shape, by trying all of them."""
    left, top, right, bottom = (int(v) for v in (inside.left, inside.top, inside.right, inside.bottom))
    for height in range((bottom - top) // 2 * 2, 1, -2):
        width = 2 * round(aspect * height / 2)
        if width > right - left or width < 2:
            continue
        xs, ys = range(left, right - width + 1, 2), range(top, bottom - height + 1, 2)
        for x, y in itertools.product(xs, ys):
            if not any(
                x < ox + ow and ox < x + width and y < oy + oh and oy < y + height
                for ox, oy, ow, oh in obstacles
            ):
                return width * height
    return 0


small = st.integers(0, 60)


@settings(max_examples=60, deadline=None)
@given(
    obstacles=st.lists(st.tuples(small, small, st.integers(1, 30), st.integers(1, 20)), max_size=4),
    aspect=st.sampled_from([ASPECT, 1.0, 0.7]),
)
def test_no_larger_rectangle_exists(obstacles, aspect):
    inside = Inside(4, 2, 64, 40)
    found = crop_of(inside, obstacles=np.array(obstacles).reshape(-1, 4), aspect=aspect, subject_weight=0.0)
    expected = brute_force_area(inside, obstacles, aspect)
    assert (found.width * found.height if found else 0) == expected


@settings(max_examples=60, deadline=None)
@given(
    obstacles=st.lists(
        st.tuples(st.floats(0, 600), st.floats(0, 340), st.floats(1, 200), st.floats(1, 90)), max_size=5
    ),
    boxes=st.lists(
        st.tuples(st.floats(0, 600), st.floats(0, 340), st.floats(5, 200), st.floats(5, 200)), max_size=4
    ),
    top=st.integers(0, 50),
)
def test_every_crop_is_even_of_the_shape_inside_and_clear(obstacles, boxes, top):
    inside = Inside(0, top, 640, 360)
    crop = crop_of(inside, obstacles=np.array(obstacles).reshape(-1, 4), boxes=[box(*b) for b in boxes])
    if crop is None:
        return
    assert all(v % 2 == 0 for v in crop[:4])
    assert crop.x >= 0
    assert crop.y >= top
    assert crop.x + crop.width <= 640
    assert crop.y + crop.height <= 360
    assert abs(crop.width - ASPECT * crop.height) <= 1
    assert not any(touches(crop, o) for o in obstacles)
    assert 0 <= crop.kept <= 1
