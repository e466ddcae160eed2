import cv2
import numpy as np
import pytest

from curation.framing.static_marks import static_marks

HEIGHT, WIDTH = 240, 426
INSIDE = (0, 0, WIDTH, HEIGHT)


def scene(seed: int) -> np.ndarray:
    """Overlapping discs of random place, size and brightness, uint8 [H, W]."""
    rng = np.random.default_rng(seed)
    picture = np.full((HEIGHT, WIDTH), rng.integers(30, 170), np.uint8)
    for _ in range(25):
        at = (int(rng.integers(0, WIDTH)), int(rng.integers(0, HEIGHT)))
        cv2.circle(picture, at, int(rng.integers(10, 60)), int(rng.integers(20, 180)), -1, cv2.LINE_AA)
    return picture


def marked(picture: np.ndarray, at=(396, 28), opacity: float = 0.6) -> np.ndarray:
    ring = np.zeros((HEIGHT, WIDTH), np.float32)
    cv2.circle(ring, at, 11, 1.0, 3, cv2.LINE_AA)
    ring *= opacity
    return (picture * (1 - ring) + 240 * ring).astype(np.uint8)


def test_half_transparent_ring_is_found_where_it_is():
    (box,) = static_marks([marked(scene(i)) for i in range(8)], range(8), INSIDE)
    x, y, width, height = box
    assert (x + width / 2, y + height / 2) == pytest.approx((396, 28), abs=3)
    assert width == pytest.approx(34, abs=8)


def test_scenes_without_a_mark_have_none():
    assert static_marks([scene(i) for i in range(8)], range(8), INSIDE).shape == (0, 4)


def test_white_mark_is_found_though_some_shots_are_white_there():
    white = np.full((HEIGHT, WIDTH), 240, np.uint8)
    pictures = [marked(white if i in (2, 5) else scene(i)) for i in range(8)]
    assert len(static_marks(pictures, range(8), INSIDE)) == 1


def test_many_pictures_of_one_shot_count_as_one():
    pictures = [marked(scene(0)) for _ in range(20)]
    assert len(static_marks(pictures, [0] * 20, INSIDE)) == 0
    assert len(static_marks(pictures, [0, 1, 2, 3, 4] * 4, INSIDE)) == 0


def test_a_set_that_never_changes_is_no_mark():
    assert len(static_marks([scene(0)] * 8, range(8), INSIDE)) == 0


def test_things_in_the_middle_are_no_marks():
    pictures = [marked(scene(i), at=(213, 120)) for i in range(8)]
    assert len(static_marks(pictures, range(8), INSIDE)) == 0


def test_edges_of_black_bars_are_no_marks():
    pictures = [scene(i) for i in range(8)]
    for picture in pictures:
        picture[:30] = picture[210:] = 16
    assert len(static_marks(pictures, range(8), (0, 30, WIDTH, 210))) == 0
