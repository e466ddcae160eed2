import cv2
import numpy as np
import pytest

from curation import weights
from curation.framing.colours import PALETTE, colour_names
from curation.models import appearance
from curation.models.appearance import (
    Appearance,
    Crop,
    Look,
    colour_vector,
    crop_of,
    load_looks,
    save_looks,
    sharpness,
    thing_weights,
    unit,
)
from curation.models.face_pattern import FacePattern, own_face, pattern, uniform_codes
from curation.models.yunet import YuNet
from tests.support import shared


def figure(colour, background, size=(240, 320), box=(120, 40, 80, 160)) -> np.ndarray:
    """A flat background with a two-coloured figure in it."""
    picture = np.full((*size, 3), background, np.uint8)
    x, y, w, h = box
    cv2.ellipse(picture, (x + w // 2, y + h // 2), (w // 2, h // 2), 0, 0, 360, colour, -1)
    cv2.circle(picture, (x + w // 2, y + h // 5), w // 5, (140, 180, 220), -1)
    return picture


BOX = (120, 40, 80, 160)


def vector(colour, background) -> np.ndarray:
    return colour_vector(crop_of(figure(colour, background), BOX))


def test_same_thing_on_another_background_is_nearer_than_another_thing_on_the_same():
    red_on_green = vector((30, 30, 200), (60, 140, 60))
    red_on_blue = vector((30, 30, 200), (160, 90, 40))
    blue_on_green = vector((180, 60, 20), (60, 140, 60))
    assert np.linalg.norm(red_on_green) == pytest.approx(1, abs=1e-5)
    assert red_on_green @ red_on_blue > 0.9
    assert red_on_green @ blue_on_green < 0.7


def test_what_moves_counts_for_more():
    picture = figure((30, 30, 200), (60, 140, 60))
    belief = np.zeros((24, 32), np.float32)
    belief[4:20, 12:16] = 1.0  # only the left half of the box moves
    weight = thing_weights(crop_of(picture, BOX, belief))
    x, y, w, h = (round(v) for v in crop_of(picture, BOX).box)
    left, right = weight[y : y + h, x : x + w // 2 - 6], weight[y : y + h, x + w // 2 + 10 : x + w]
    assert left.mean() > 4 * right.mean()


def test_crop_has_the_surround_and_is_small():
    picture = np.zeros((1000, 2000, 3), np.uint8)
    picture[400:600, 800:1200] = 255
    crop = crop_of(picture, (800, 400, 400, 200))
    assert max(crop.picture_bgr_u8.shape) == appearance.CROP_SIDE
    assert crop.inner.mean() > 250
    assert (crop.picture_bgr_u8 == 255).mean() == pytest.approx(1 / 1.5**2, abs=0.03)
    corner = crop_of(picture, (0, 0, 10, 10))
    assert corner.box[:2] == (0, 0)
    assert crop_of(picture, (1999.7, 999.7, 5, 5)).inner.size  # a box over the edge still has a pixel


def test_sharpness_falls_with_blur():
    picture = np.random.default_rng(0).integers(0, 255, (100, 100, 3), dtype=np.uint8)
    blurred = cv2.GaussianBlur(picture, (9, 9), 3)
    assert sharpness(picture, (10, 10, 50, 50)) > 20 * sharpness(blurred, (10, 10, 50, 50))
    assert sharpness(picture, (200, 200, 5, 5)) == 0


def test_a_flat_grey_crop_does_not_break():
    grey = Crop(np.full((40, 30, 3), 128, np.uint8), None, (5, 5, 20, 30))
    assert np.isfinite(colour_vector(grey)).all()
    assert unit(np.zeros(3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("bgr", "name"),
    [
        ((30, 30, 200), "red"),
        ((250, 250, 250), "white"),
        ((20, 20, 20), "black"),
        ((130, 130, 130), "grey"),
        ((40, 70, 110), "brown"),
        ((190, 90, 40), "blue"),
        ((40, 150, 60), "green"),
        ((30, 120, 240), "orange"),
    ],
)
def test_colour_names(bgr, name):
    picture = np.full((20, 20, 3), bgr, np.uint8)
    assert colour_names([(picture, np.ones((20, 20), np.float32))]) == [name]


def test_colour_names_are_by_share_and_weight():
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[:, :24] = (30, 30, 200)
    picture[:, 24:36] = (250, 250, 250)
    picture[:, 36:] = (40, 150, 60)  # a tenth
    weight = np.ones((40, 40), np.float32)
    assert colour_names([(picture, weight)]) == ["red", "white"]
    weight[:, :24] = 0
    assert colour_names([(picture, weight)])[0] == "white"
    assert colour_names([(picture, np.zeros((40, 40), np.float32))])[0] in PALETTE


def test_looks_come_back_from_the_file_and_the_file_repeats(tmp_path):
    looks = {
        3: Look(unit(np.ones(4)), unit(np.arange(5) + 1.0), None, None, ["red"]),
        1: Look(unit(np.arange(4) + 1.0), None, None, unit(np.ones(2)), ["white", "grey"]),
    }
    save_looks(tmp_path / "a.npz", looks)
    save_looks(tmp_path / "b.npz", dict(reversed(looks.items())))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    back = load_looks(tmp_path / "a.npz")
    assert sorted(back) == [1, 3]
    assert back[1].colours == ["white", "grey"]
    assert back[1].pattern is None
    assert back[1].reid is None
    assert np.array_equal(back[1].face, looks[1].face)
    assert np.array_equal(back[3].pattern, looks[3].pattern)
    save_looks(tmp_path / "none.npz", {})
    assert load_looks(tmp_path / "none.npz") == {}


def test_face_pattern_knows_a_face_again_in_other_light():
    skimage = pytest.importorskip("skimage")
    picture = np.ascontiguousarray(skimage.data.astronaut()[..., ::-1])
    finder = FacePattern()
    face = finder.vector(picture)
    darker = finder.vector((picture * 0.6).astype(np.uint8)[:300, 50:400])
    assert face is not None
    assert darker is not None
    assert face @ darker > 0.8
    rng = np.random.default_rng(0)
    assert face @ pattern(rng.integers(0, 255, (80, 80), dtype=np.uint8)) < 0.65
    assert finder.vector(np.zeros((50, 50, 3), np.uint8)) is None
    assert len(set(uniform_codes().tolist())) == 59


def test_face_pattern_is_the_same_in_a_mirror():
    rng = np.random.default_rng(0)
    face = cv2.GaussianBlur(rng.integers(0, 255, (90, 80), dtype=np.uint8), (9, 9), 0)
    assert pattern(face) @ pattern(face[:, ::-1]) == pytest.approx(1, abs=1e-6)


def test_a_face_at_the_side_of_a_box_is_a_neighbours():
    size = (300, 400)  # a man at a camera, and somebody who stands behind it
    own, leaning = (160, 40, 60, 60), (320, 40, 60, 60)
    neighbour, low = (320, 130, 60, 60), (160, 220, 90, 90)
    assert own_face(np.array([own]), *size) == 0
    assert own_face(np.array([leaning]), *size) == 0
    assert own_face(np.array([neighbour]), *size) is None
    assert own_face(np.array([low]), *size) is None
    assert own_face(np.array([neighbour, low, leaning, own]), *size) == 3
    assert own_face(np.zeros((0, 4)), *size) is None


def test_a_thing_in_shade_is_nearer_than_another_colour_in_light():
    light = figure((150, 160, 210), (60, 140, 60))
    shade = (light * 0.4).astype(np.uint8)
    other = figure((200, 150, 150), (60, 140, 60))
    vectors = [colour_vector(crop_of(picture, BOX)) for picture in (light, shade, other)]
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.05


@pytest.fixture(scope="module")
def networks():
    names = ("osnet_x0_25_msmt17", "face_yunet_dynamic", "mobilefacenet")
    return Appearance(*(shared(f"weights/{name}.onnx") for name in names))


def test_networks_tell_two_men_apart(networks):
    picture = cv2.imread(str(shared("images/zidane.jpg")))
    boxes = {"right": (688, 37, 462, 670), "left": (151, 201, 529, 512)}
    first = {who: networks.look([crop_of(picture, box)], "person") for who, box in boxes.items()}
    darker = (picture[:, ::-1] * 0.7).astype(np.uint8)
    x, y, w, h = boxes["right"]
    again = networks.look([crop_of(darker, (1280 - x - w, y, w, h))], "person")
    assert first["right"].face @ again.face > 0.7
    assert first["right"].reid @ again.reid > 0.8
    assert first["left"].face @ first["right"].face < 0.45
    assert first["left"].reid @ first["right"].reid < first["right"].reid @ again.reid
    parts = [row["part"] for row in networks.describe()]
    assert parts == ["appearance", "reid", "face_detector", "face"]
    assert networks.describe()[1]["sha256"] == weights.TABLE["osnet_x0_25"].sha256


def test_faces_are_looked_for_in_persons_only(networks):
    picture = cv2.imread(str(shared("images/zidane.jpg")))
    look = networks.look([crop_of(picture, (688, 37, 462, 670))], "dog")
    assert look.face is None
    assert look.pattern is None
    assert look.reid is not None


def test_yunet_finds_faces_with_landmarks_at_any_size():
    picture = cv2.imread(str(shared("images/zidane.jpg")))
    finder = YuNet(shared("weights/face_yunet_dynamic.onnx"))
    for scale in (1.0, 0.37):
        small = cv2.resize(picture, None, fx=scale, fy=scale)
        found = finder.detect(small)
        assert len(found.boxes) == 2
        for box, marks in zip(found.boxes, found.landmarks, strict=True):
            assert (marks >= box[:2]).all()
            assert (marks <= box[:2] + box[2:]).all()
            assert marks[:2, 1].mean() < marks[2, 1] < marks[3:, 1].mean()  # eyes, nose, mouth
